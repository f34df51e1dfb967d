"""The functions of core that a guarded server stands in front of, and the check that core still goes through them.

Each is looked up by core when it is called, so replacing the attribute reaches every caller. A core whose functions
have another signature, or are called another way, is one that this guardrail does not know: then it must not serve.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...safety_steering.errors import SafetySteeringError

MOST_HEALED = 10  # times in a row that a replaced function is put back before the server ends

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class UnknownCore(SafetySteeringError):
    """This ComfyUI is not built as the guardrail expects."""


@dataclass(frozen=True)
class ChokePoint:
    """A function `name` of `owner` with these parameters, which `caller` looks up under that name at each call."""

    owner: Any
    name: str
    parameters: tuple[str, ...]
    caller: Callable[..., Any] | None

    @property
    def title(self) -> str:
        """The function's full name, for people."""
        return f"{getattr(self.owner, '__name__', self.owner)}.{self.name}"

    def check(self) -> None:
        """Raise UnknownCore unless core has this function, with this signature, and looks it up by name."""
        function = getattr(self.owner, self.name, None)
        if function is None:
            raise UnknownCore(f"This ComfyUI has no {self.title}. Use the version that this pack was tested with.")
        found = tuple(inspect.signature(function).parameters)
        if found != self.parameters:
            raise UnknownCore(
                f"{self.title} of this ComfyUI takes ({', '.join(found)}), expected ({', '.join(self.parameters)}). "
                "Use the version that this pack was tested with."
            )
        if self.caller is not None and self.name not in self.caller.__code__.co_names:
            raise UnknownCore(
                f"{self.caller.__qualname__} of this ComfyUI does not look {self.title} up, so it cannot be guarded. "
                "Use the version that this pack was tested with."
            )


def choke_points() -> dict[str, ChokePoint]:
    """Every choke point by its function's name."""
    import comfy.hooks
    import comfy.lora
    import comfy.model_base
    import comfy.sampler_helpers
    import comfy.samplers
    import comfy.sd
    import comfy.utils
    import execution
    import folder_paths
    from server import PromptServer

    import nodes

    node = ("server", "dynprompt", "caches", "current_item", "extra_data", "executed", "prompt_id", "execution_list")
    pending = ("pending_subgraph_results", "pending_async_nodes", "ui_outputs")
    call = ("execution_block_cb", "pre_execute_cb", "v3_data")
    model_call = ("self", "x", "t", "c_concat", "c_crossattn", "control", "transformer_options", "kwargs")
    executor = execution.PromptExecutor
    sample = comfy.samplers.CFGGuider.sample
    return {
        "worker": ChokePoint(execution.PromptQueue, "get", ("self", "timeout"), None),
        "send": ChokePoint(PromptServer, "send", ("self", "event", "data", "sid"), PromptServer.publish_loop),
        "output folder": ChokePoint(folder_paths, "get_output_directory", (), folder_paths.get_directory_by_type),
        "temp folder": ChokePoint(folder_paths, "get_temp_directory", (), folder_paths.get_directory_by_type),
        "file names": ChokePoint(folder_paths, "annotated_filepath", ("name",), folder_paths.exists_annotated_filepath),
        "counters": ChokePoint(
            folder_paths, "get_save_image_path", ("filename_prefix", "output_dir", "image_width", "image_height"), None
        ),
        "message": ChokePoint(PromptServer, "send_sync", ("self", "event", "data", "sid"), executor.add_message),
        "job": ChokePoint(executor, "execute", ("self", "prompt", "prompt_id", "extra_data", "execute_outputs"), None),
        "node": ChokePoint(execution, "execute", (*node, *pending), executor.execute_async),
        "inputs": ChokePoint(
            execution, "get_output_data", ("prompt_id", "unique_id", "obj", "input_data_all", *call), execution.execute
        ),
        "outputs": ChokePoint(
            execution, "get_output_from_returns", ("return_values", "obj"), execution.get_output_data
        ),
        "model": ChokePoint(
            comfy.model_base.BaseModel, "__init__", ("self", "model_config", "model_type", "device", "unet_model"), None
        ),
        "load file": ChokePoint(
            comfy.utils,
            "load_torch_file",
            ("ckpt", "safe_load", "device", "return_metadata"),
            nodes.LoraLoader.load_lora,
        ),
        "apply lora": ChokePoint(
            comfy.lora, "load_lora", ("lora", "to_load", "log_missing"), comfy.sd.load_lora_for_models
        ),
        "model as lora": ChokePoint(
            comfy.hooks,
            "create_hook_model_as_lora",
            ("weights_model", "weights_clip", "strength_model", "strength_clip"),
            None,
        ),
        "tokenize": ChokePoint(
            comfy.sd.CLIP, "tokenize", ("self", "text", "return_word_ids", "kwargs"), nodes.CLIPTextEncode.encode
        ),
        "encode": ChokePoint(
            comfy.sd.CLIP,
            "encode_from_tokens",
            ("self", "tokens", "return_pooled", "return_dict"),
            comfy.sd.CLIP.encode_from_tokens_scheduled,
        ),
        "scheduled encode": ChokePoint(
            comfy.sd.CLIP,
            "encode_from_tokens_scheduled",
            ("self", "tokens", "unprojected", "add_dict", "show_pbar"),
            nodes.CLIPTextEncode.encode,
        ),
        "error": ChokePoint(
            executor, "add_message", ("self", "event", "data", "broadcast"), executor.handle_execution_error
        ),
        "lists": ChokePoint(folder_paths, "get_filename_list", ("folder_name",), None),
        "run": ChokePoint(comfy.sampler_helpers, "prepare_model_patcher", ("model", "conds", "model_options"), sample),
        "model call": ChokePoint(
            comfy.model_base.BaseModel, "apply_model", model_call, comfy.samplers._calc_cond_batch
        ),
    }


class Guarded:
    """Choke points with the guardrail's functions in them. end: called when a pack does not stop replacing them."""

    def __init__(self, wraps: dict[str, Wrap], end: Callable[[], None] = lambda: None) -> None:
        """Check every point, then put each wrapper around its function.

        Raises:
            UnknownCore: core is not as expected; then nothing was changed.
        """
        points = choke_points()
        for point in points.values():
            point.check()
        self._end = end
        self.healed = 0
        self.told = ""
        self._in_a_row = 0
        self._placed: list[tuple[ChokePoint, Any]] = []
        for key, wrap in wraps.items():
            point = points[key]
            original = getattr(point.owner, point.name)
            wrapper = functools.wraps(original)(wrap(original))
            setattr(point.owner, point.name, wrapper)
            self._placed.append((point, wrapper))

    def check(self) -> None:
        """Put the guardrail back where a pack has replaced it since.

        Raises:
            UnknownCore: that was so; what ran meanwhile was not guarded.
        """
        replaced = [
            (point, wrapper) for point, wrapper in self._placed if getattr(point.owner, point.name) is not wrapper
        ]
        if not replaced:
            self._in_a_row = 0
            return
        told = [f"{_pack_of(getattr(point.owner, point.name))} has replaced {point.title}" for point, _ in replaced]
        for point, wrapper in replaced:
            setattr(point.owner, point.name, wrapper)
        self.healed += 1
        self._in_a_row += 1
        logging.error("Safety Steering: %s. It is put back.", "; ".join(told))
        if self._in_a_row >= MOST_HEALED:
            logging.critical("Safety Steering: a pack replaces functions of core again and again, so the server ends.")
            self._end()
        self.told = (
            f"{told[0]} since the guardrail was set up. It is put back, and what ran meanwhile is refused. "
            "Start the server without that pack."
        )
        raise UnknownCore(self.told)


def _pack_of(function: Any) -> str:
    """Whose function this is, as the beginning of a sentence."""
    function = inspect.unwrap(function) if callable(function) else function
    file = getattr(getattr(function, "__code__", None), "co_filename", "")
    parts = Path(file).parts
    if "custom_nodes" in parts and parts.index("custom_nodes") + 1 < len(parts):
        return f"The node pack '{parts[parts.index('custom_nodes') + 1]}'"
    return f"Something in {Path(file).name}" if file else "Something"
