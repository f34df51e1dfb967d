"""Makes a run fail, or run slowly, inside the model call: while another pack's hooks are registered and have fired."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
from comfy_api.latest import io


def disturb(fail_at_call: int, seconds_per_call: float) -> Callable[..., Any]:
    """A DIFFUSION_MODEL wrapper that fails after the n-th call; Wan, LTXV and Flux call it inside APPLY_MODEL."""
    calls = 0

    def wrapper(executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = executor(*args, **kwargs)
        time.sleep(seconds_per_call)
        if calls == fail_at_call:
            calls = 0
            raise RuntimeError(f"SafetySteeringDev_Fail: failed on purpose in model call {fail_at_call}")
        return result

    return wrapper


class Fail(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteeringDev_Fail",
            display_name="Fail in Sampling (development)",
            category="Safety Steering/development",
            description="For tests only. Raises in the n-th model call; can slow each call for a test to interrupt.",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("fail_at_call", default=1, min=0, tooltip="0: never."),
                io.Float.Input("seconds_per_call", default=0.0, min=0.0, max=60.0),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, fail_at_call: int, seconds_per_call: float) -> io.NodeOutput:
        patched = model.clone()
        patched.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL,
            "safety_steering_dev_fail",
            disturb(fail_at_call, seconds_per_call),
        )
        return io.NodeOutput(patched)
