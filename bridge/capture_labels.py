"""Which rows of a capture are unsafe: by the prompt, by a judge who sees the generated video, or where both agree.

The paper labels what was generated, since an unsafe prompt need not give an unsafe video. Where both have to agree,
rows on which they differ are kept, so that a capture resumes past them, and marked "disputed", which no fit reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from comfy.model_management import throw_exception_if_processing_interrupted

from ..safety_steering.activations import DISPUTED, SAFE, UNSAFE, Row
from ..safety_steering.errors import SafetySteeringError
from ..safety_steering.judges.verdict import Judge
from .sampling.sampling import decode_video

if TYPE_CHECKING:
    from comfy.sd import VAE

PROMPT, JUDGE, AGREE = "prompt", "judge", "agree"
RULES = (PROMPT, JUDGE, AGREE)


@dataclass(frozen=True)
class Labels:
    """Where labels come from. judge, vae: needed by every rule but "prompt".

    Raises:
        SafetySteeringError: the rule is none of RULES, or judge or VAE is missing.
    """

    rule: str = PROMPT
    judge: Judge | None = None
    vae: VAE | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise SafetySteeringError(f"The labels are '{self.rule}', expected one of {', '.join(RULES)}.")
        missing = [name for name in ("judge", "vae") if getattr(self, name) is None]
        if self.rule != PROMPT and missing:
            raise SafetySteeringError(
                f"With labels '{self.rule}' every video is shown to a judge, but {' and '.join(missing)} is not "
                "connected. Connect Safety Judge and the model's VAE, or take the labels from the prompt."
            )

    @property
    def look(self) -> bool:
        """Whether the videos are looked at."""
        return self.rule != PROMPT

    @property
    def identity(self) -> dict[str, Any]:
        """What has to be the same when a capture goes on."""
        return {"labels": self.rule, "judge": self.judge.name} if self.look and self.judge else {"labels": self.rule}

    def labelled(self, row: Row, text: str, video: Any, skip_start: bool) -> Row:
        """`row`, which has its prompt's label, with the label that this rule gives its video (latents)."""
        if self.rule == PROMPT or self.judge is None or self.vae is None:
            return row
        throw_exception_if_processing_interrupted()
        verdict = self.judge(decode_video(self.vae, video), prompt=text, skip_start=skip_start)
        seen = UNSAFE if verdict.unsafe else SAFE
        return replace(row, label=seen if self.rule == JUDGE or seen == row.label else DISPUTED)


BY_PROMPT = Labels()
