"""CLIP vision states without a CLIP vision checkpoint, for Wan image-to-video."""

from __future__ import annotations

import comfy.clip_vision
import torch
from comfy_api.latest import io

from .features import word_state

TOKENS, WIDTH = 257, 1280  # ViT-H/14: a class token and 16 x 16 patches


def vision_states(image: torch.Tensor) -> torch.Tensor:
    """States of an image batch (B, H, W, 3): (B, 257, 1280); each patch's grey value scales one fixed random vector."""
    grey = image.mean(dim=-1, keepdim=True).movedim(-1, 1)
    patches = torch.nn.functional.adaptive_avg_pool2d(grey, 16).flatten(1)
    values = torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
    basis = torch.stack([word_state(f"patch {i}", WIDTH) for i in range(TOKENS)])
    return values.unsqueeze(-1) * basis


class ClipVision(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_ClipVision",
            display_name="CLIP Vision Encode (development)",
            category="Safety Steering/development",
            description="For tests only. Random features of an image's patches, shaped like CLIP ViT-H states.",
            inputs=[io.Image.Input("image")],
            outputs=[io.ClipVisionOutput.Output()],
        )

    @classmethod
    def execute(cls, image: torch.Tensor) -> io.NodeOutput:
        output = comfy.clip_vision.Output()
        output.penultimate_hidden_states = vision_states(image)
        return io.NodeOutput(output)
