"""Conditioning states as a diffusion model receives them, without running the model.

One sampler step passes the conditioning through everything that core and the model do to it (LTX-2's connector, masks,
parts of different encoders). The model call itself returns zeros, so the only cost is loading the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy.patcher_extension import WrappersMP

from ...safety_steering.errors import MismatchError, SafetySteeringError
from ..models.families import PARTS
from ..models.families.schema import Family, StateArgument
from ..models.model_map import patcher_shape, state_spaces
from ..models.swaps import unwrap
from ..models.tokens import editable_states, to_sequence
from ..sampling.sampling import Conditioning, Sampling, sample_prompt
from ..steering.model_call import ModelCall, named

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

WRAPPER_KEY = "safety_steering_read"
AUTO = "auto"
SIDE = 256  # pixels of a small picture
FRAMES = 2  # latent frames of a small video
States = tuple[torch.Tensor, torch.Tensor]  # states (1, N, D), and which of their rows may be edited (1, N, 1)


def small_latent(model: ModelPatcher, template: Conditioning | None = None) -> dict[str, torch.Tensor]:
    """An empty latent of the size of the template's start image, or else of 256 x 256 pixels and two latent frames.

    Raises:
        SafetySteeringError: the model makes neither pictures nor videos.
    """
    shown = template[0][1].get("concat_latent_image") if template else None
    if shown is not None:
        return {"samples": torch.zeros_like(shown[:1])}
    about = model.get_model_object("latent_format")
    if about.latent_dimensions not in (2, 3):
        raise SafetySteeringError("This model makes neither pictures nor videos. Connect another, or a latent.")
    side = max(4, SIDE // about.spacial_downscale_ratio)
    frames = (FRAMES,) if about.latent_dimensions == 3 else ()
    return {"samples": torch.zeros(1, about.latent_channels, *frames, side, side)}


def find_part(family: Family, hook_point: str, space: str) -> int:
    """The index of a space at a hook point, by its id; 0 for "auto".

    Raises:
        MismatchError: the family has no such space at the hook point.
    """
    if hook_point not in family.states:
        raise MismatchError(f"Models of the family {family.name} take no states at '{hook_point}'.")
    states = family.states[hook_point]
    if space == AUTO:
        return 0
    for index, state in enumerate(states):
        # spaces of unlisted widths are named by their width
        own = f"{family.name}.{state.name or hook_point}"
        if space in state.spaces.values() or (space.startswith(own) and space.removeprefix(own).isdigit()):
            return index
    known = [name for state in states for name in state.spaces.values()]
    raise MismatchError(f"{family.name} has no space '{space}' at {hook_point}; it has {', '.join(known)}, or auto.")


def part_space(family: Family, hook_point: str, part: int, width: int) -> str:
    """The id of the space of a part (index as of `find_part`), by the width of its states."""
    return state_spaces(family, hook_point, width)[part]


def read_conditioning(encoded: Conditioning, state: StateArgument, diffusion_model: Any = None) -> States:
    """The states in a CONDITIONING, for a model that takes them unchanged."""
    states, about = encoded[0]
    states = to_sequence(states[:1], state.dims)
    rows = editable_states(states, about.get("attention_mask") if state.mask else None)
    if state.part:
        kept, channels = PARTS[state.part](diffusion_model, states)
        rows = rows if kept is None else rows & kept
        states = states[..., channels]
    return states, rows


class ModelReader:
    """Reads the states that a model receives at a hook point for a CONDITIONING."""

    def __init__(self, model: ModelPatcher, hook_point: str, space: str, latent: dict[str, Any]) -> None:
        self.family = patcher_shape(model).family
        self.part = find_part(self.family, hook_point, space)
        self._hook_point = hook_point
        self._latent = latent
        self._seen: list[States] = []
        self._model = model.clone()
        self._model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, self._look)

    def read(self, encoded: Conditioning) -> States:
        """The states (1, N, D) on the CPU, and which rows may be edited."""
        self._seen = []
        sampling = Sampling(self._latent, "", 1, 1.0, "euler", "simple", 0)
        # cfg 1 uses no negative prompt
        sample_prompt(self._model, encoded, [], sampling, 0)
        if not self._seen:
            raise SafetySteeringError("The sampler never called the model, so its prompt states cannot be read.")
        return self._seen[0]

    def _look(self, executor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        call = ModelCall(unwrap(executor.class_obj.diffusion_model), self.family, named(args, kwargs))
        states, tokens = call.states(self._hook_point, *self._wanted(call))
        rows = torch.ones(1, states.shape[1], 1, dtype=torch.bool) if tokens.mask is None else tokens.mask[:1].cpu()
        self._seen.append((states[:1].cpu(), rows))
        return torch.zeros_like(call.x)

    def _wanted(self, call: ModelCall) -> tuple[str, int]:
        """Space id and width by which `ModelCall.states` finds the part."""
        if self.part == 0:
            return "", 0
        state = self.family.states[self._hook_point][self.part]
        states = to_sequence(call.arguments[state.argument], state.dims)
        if state.part:
            states = states[..., PARTS[state.part](call.diffusion_model, states)[1]]
        width = states.shape[-1]
        return part_space(self.family, self._hook_point, self.part, width), width
