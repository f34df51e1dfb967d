"""The text states that directions are fitted on, pooled over a prompt's tokens or over the words that matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from .models.text import encode_text, token_ids
from .native.capture_states import SEED
from .scenes.splits import PromptPair


@dataclass(frozen=True, eq=False)
class TextStates:
    """Rows in the order of `capture_states.rows_of`: pooled and token, each (n, D) float32."""

    pooled: Any
    token: Any

    def states(self) -> Any:
        """As a fit takes them, with one sigma bin."""
        from safety_steering_pack.safety_steering.activations import States

        return States(self.pooled[:, None], self.token[:, None])


def read_texts(pairs: Sequence[PromptPair], pooling: str) -> TextStates:
    """The states of both prompts of each pair.

    pooling: "all" is the mean over a prompt's tokens, which is what a capture of the conditioning holds. "words" is,
    for an unsafe prompt, the mean over the tokens that its twin does not share, and for a safe one a token drawn at
    random: an unsafe word against any benign one. token: a token drawn at random.
    """
    import torch

    states, mask = encode_text([text for pair in pairs for text in pair.prompts])
    lengths = mask.sum(dim=1)
    places = (torch.rand(len(states), generator=torch.Generator().manual_seed(SEED)) * lengths).long()
    token = states[torch.arange(len(states)), places]
    if pooling == "all":
        return TextStates(states.sum(dim=1) / lengths[:, None], token)
    pooled = token.clone()
    for number, pair in enumerate(pairs):
        pooled[2 * number] = states[2 * number, differing_tokens(pair)].mean(dim=0)
    return TextStates(pooled, token)


def differing_tokens(pair: PromptPair) -> list[int]:
    """Places of the unsafe prompt's tokens that its twin does not share."""
    unsafe, safe = token_ids(pair.prompts)
    parts = SequenceMatcher(None, unsafe, safe, autojunk=False).get_opcodes()
    return [place for kind, start, end, _, _ in parts if kind != "equal" for place in range(start, end)]
