"""A start frame without a VAE, for models whose own VAE does not shrink."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io


def with_start_frame(latent: dict[str, Any]) -> dict[str, Any]:
    """The latent (B, C, T, H, W) with a random first frame that the sampler keeps: noise mask 0 there, 1 elsewhere."""
    samples = latent["samples"].clone()
    generator = torch.Generator().manual_seed(0)
    samples[:, :, 0] = torch.randn(samples[:, :, 0].shape, generator=generator)
    mask = torch.ones_like(samples[:, :1])
    mask[:, :, 0] = 0
    return {**latent, "samples": samples, "noise_mask": mask}


class StartFrame(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_StartFrame",
            display_name="Start Frame (development)",
            category="Safety Steering/development",
            description="For tests only. Random latents as a video's first frame, masked as a start image would be.",
            inputs=[io.Latent.Input("latent")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, latent: dict[str, Any]) -> io.NodeOutput:
        return io.NodeOutput(with_start_frame(latent))
