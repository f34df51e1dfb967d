"""The text states of diverse harmless prompts, which a fit's detectors need: encoded, without generating anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.utils
import torch

from ...safety_steering.activations import Source
from ...safety_steering.directions.detectors import TEXT_STATES, can_detect
from ...safety_steering.directions.portable import BUNDLED_ANCHORS, anchor_texts
from ...safety_steering.errors import MismatchError
from ...safety_steering.prompts.files import load_prompts
from ...safety_steering.prompts.prompt_set import PromptSet
from ..alignment.text_states import TextStates
from ..folders import PROMPTS, find

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP


def benign_states(
    source: Source, clip: CLIP | None, model: ModelPatcher | None = None, own: PromptSet | None = None
) -> torch.Tensor | None:
    """Mean text states (n, D) float32 of the bundled harmless captions and of the safe prompts of `own`.

    None without a CLIP, or if a fit of this capture makes no detectors.

    Raises:
        MismatchError: the CLIP's states are not those that were captured, or as `TextStates`.
    """
    if clip is None or not can_detect(source):
        return None
    safe = [row.safe for row in own.rows if row.safe] if own else []
    texts = tuple(dict.fromkeys([*bundled_captions(), *safe]))
    bar = comfy.utils.ProgressBar(len(texts))
    found = TextStates(clip, model).states(texts, lambda done, total: bar.update_absolute(done, total))
    space = source.hook_points[TEXT_STATES][0]
    if found.side.space != space:
        raise MismatchError(
            f"The text encoder's states are of the space {found.side.space}, and the captured ones of {space}. Connect "
            "the clip that the capture used; if it is that one, connect its model too."
        )
    return found.states.pooled


def bundled_captions() -> tuple[str, ...]:
    """The harmless captions that ship with the pack."""
    return anchor_texts(load_prompts(find(PROMPTS, BUNDLED_ANCHORS)))
