"""The pack's client of a ComfyUI server, under its plain name for tests, demo and bench."""

from __future__ import annotations

import pack

pack.register()

from safety_steering_pack.commands.comfy_client import ComfyClient, ExecutionError, PromptRejected, Run

__all__ = ["ComfyClient", "ExecutionError", "PromptRejected", "Run"]
