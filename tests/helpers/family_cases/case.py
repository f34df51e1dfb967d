"""What a family case says: how to build a tiny model of ComfyUI's own classes, and what a call to it looks like."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tiny.models import values

from family_cases.reads import READS

Build = Callable[[torch.dtype], Any]


@dataclass(frozen=True)
class Tokens:
    """Written down by hand: a block's output has `total` tokens, of which `moved` (ascending) may move.

    total None: all tokens may move, and their number differs from block to block (UNets).
    item: place in the output, if that is a tuple. dims: einops pattern to "b n d", if the output is laid out otherwise.
    """

    total: int | None
    moved: Sequence[int] = ()
    item: int = 0
    dims: str = ""


@dataclass(frozen=True)
class FamilyCase:
    """One row of the table of families.

    name: of the case; several cases may show one family in different tasks.
    family: name of the row of the model map that must be found.
    build: weights' dtype -> a fresh ModelPatcher.
    latent: shape of the latents (B, C, ...), or one shape each for latents that are packed. noise_mask: 0 where latents
        are kept, of a shape that core expands.
    text: (rows, width) of the conditioning states; rows from `words` on are zero, as padded.
    extras: generator -> further keys of a conditioning entry (masks, images, ...).
    tokens: "list.stream" -> its tokens in a block's output. reads: the same for what a block reads from the text, where
        it is not laid out as `read_tokens` says. conditioning: rows of the states that may move, at `states_at`, the
        keyword under which the diffusion model receives them; channels: those that belong to the first space.
    states: makes of random states what the family's encoder gives (parts of different width, ...).
    loader: the model comes out of the stock loader (else the class inside its own BaseModel and ModelPatcher).
    sampler, cfg: settings of comfy.sample other than one step of euler at cfg 2, which batches two prompts.
    prepare: acts on the patcher before every run (options that a task needs).
    hits: calls of each block per model call, where a list's is not 1.
    """

    name: str
    family: str
    build: Build
    latent: tuple[Any, ...]
    text: tuple[int, int]
    tokens: Mapping[str, Tokens]
    words: int = 6
    extras: Callable[[torch.Generator], dict[str, Any]] = lambda generator: {}
    noise_mask: Callable[[], torch.Tensor] | None = None
    conditioning: Sequence[int] | None = None
    states_at: str = "context"
    channels: tuple[int, int | None] = (0, None)
    states: Callable[[torch.Tensor], torch.Tensor] = lambda states: states
    loader: bool = False
    sampler: Mapping[str, Any] = field(default_factory=dict)
    cfg: float = 2.0
    prepare: Callable[[Any], Any] = lambda patcher: patcher
    hits: Mapping[str, int] = field(default_factory=dict)
    reads: Mapping[str, Tokens] = field(default_factory=dict)

    @property
    def moved_states(self) -> Sequence[int]:
        """Rows of the conditioning states that may move: by default the words."""
        return range(self.words) if self.conditioning is None else self.conditioning

    @property
    def read_tokens(self) -> Mapping[str, Tokens]:
        """For each "list.stream" what a block reads: most often one tensor with the tokens of the block's output."""
        return {
            name: self.reads.get(name) or replace(self.tokens[name], item=0, dims="") for name in READS[self.family]
        }

    def tokens_at(self, hook_point: str) -> Tokens:
        """The tokens at a hook point in a block."""
        kind, name, _, stream = hook_point.split(".")
        return (self.tokens if kind == "block" else self.read_tokens)[f"{name}.{stream}"]

    @property
    def states_width(self) -> int:
        """Width of the states at `conditioning`."""
        return len(range(self.text[1])[slice(*self.channels)])

    def states_of(self, arguments: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The states at `conditioning` in a model call's arguments as (B, N, D), and all others of that argument."""
        states = arguments[self.states_at].flatten(1, -2)
        others = torch.ones(states.shape[-1], dtype=torch.bool)
        others[slice(*self.channels)] = False
        return states[..., slice(*self.channels)], states[..., others]

    def latents(self) -> Any:
        """Empty latents."""
        if isinstance(self.latent[0], int):
            return torch.zeros(self.latent)
        from comfy.nested_tensor import NestedTensor

        return NestedTensor([torch.zeros(shape) for shape in self.latent])

    def entry(self, seed: int) -> list[Any]:
        """A CONDITIONING with one entry."""
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(1, *self.text, generator=generator)
        states[:, self.words :] = 0
        return [[self.states(states), self.extras(generator)]]


def from_loader(state_dict: Callable[[], dict[str, torch.Tensor]], config: dict[str, Any] | None = None) -> Build:
    """What the stock loader makes of a tiny checkpoint: tensors as `state_dict` (on meta) names them, seeded values."""

    def build(dtype: torch.dtype) -> Any:
        import comfy.sd

        tensors = {name: values(name, meta.shape, 0).to(dtype) for name, meta in state_dict().items()}
        metadata = {"config": json.dumps(config)} if config else None
        patcher = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": dtype}, metadata=metadata)
        assert patcher is not None, "the stock loader does not know this checkpoint"
        patcher.set_model_compute_dtype(dtype)
        return patcher

    return build


def on_meta(module: str, class_name: str, **sizes: Any) -> Callable[[], dict[str, torch.Tensor]]:
    """The state dict of one of ComfyUI's own classes with small sizes, without values."""

    def state_dict() -> dict[str, torch.Tensor]:
        import comfy.ops

        model_class = getattr(importlib.import_module(module), class_name)
        return dict(model_class(**sizes, device="meta", operations=comfy.ops.disable_weight_init).state_dict())

    return state_dict


def from_config(config: str, **sizes: Any) -> Build:
    """A class of comfy.supported_models with small sizes: its own BaseModel and diffusion model, seeded values."""

    def build(dtype: torch.dtype) -> Any:
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models

        model_config = getattr(comfy.supported_models, config)(dict(sizes))
        model_config.unet_config.update(sizes)  # some classes set their published sizes
        model_config.set_inference_dtype(dtype, None)
        device = comfy.model_management.get_torch_device()
        model = model_config.get_model({}, "", device=device)
        fill(model.diffusion_model)
        return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))

    return build


def fill(module: torch.nn.Module) -> None:
    """Give every parameter seeded values; the classes leave them unset because a loader would fill them."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(values(name, parameter.shape, 0))
