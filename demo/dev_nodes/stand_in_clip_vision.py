"""A CLIP vision model without a checkpoint: the stand-in's states behind ComfyUI's method."""

from __future__ import annotations

import comfy.clip_vision
import torch
from comfy_api.latest import io

from .clip_vision import vision_states


class VisionModel:
    """What core's CLIP Vision Encode asks for."""

    def encode_image(self, image: torch.Tensor, crop: bool = True) -> comfy.clip_vision.Output:
        output = comfy.clip_vision.Output()
        output.penultimate_hidden_states = vision_states(image)
        return output


class StandInClipVision(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_StandInClipVision",
            display_name="Stand-in CLIP Vision (development)",
            category="Safety Steering/development",
            description="For tests only. Random features of an image's patches, as a CLIP vision model.",
            outputs=[io.ClipVision.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(VisionModel())
