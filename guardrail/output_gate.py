"""The output gate: compares the judge's scores of finished frames with the policy's thresholds.

It fails closed: a frame without a finite score for each threshold is held back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .policy_settings import OutputGateSettings

if TYPE_CHECKING:
    from PIL import Image

DELIVER = "deliver"
NOTICE = "This image was withheld\nby the operator of this service."
BACKGROUND = (96, 96, 96)
INK = (232, 232, 232)


@dataclass(frozen=True)
class GateDecision:
    """action: deliver | notice | fail. frame, category, score: what reached a threshold; score None: not finite."""

    action: str
    frame: int = 0
    category: str = ""
    score: float | None = None

    @property
    def reason(self) -> str:
        """One sentence for the audit log; empty if the frames are delivered."""
        if self.action == DELIVER:
            return ""
        if self.score is None:
            return f"The judge gave frame {self.frame} no usable score for '{self.category}'."
        return f"Frame {self.frame} scored {self.score:.3f} for '{self.category}'."


def decide(scores: Sequence[Mapping[str, float]], settings: OutputGateSettings) -> GateDecision:
    """Decide about an output. scores: one mapping for each frame, category -> score in 0..1.

    The first frame that reaches a threshold decides. An output without frames is held back.
    """
    if settings.mode == "off":
        return GateDecision(DELIVER)
    for frame, of_frame in enumerate(scores or [{}]):
        for category, threshold in settings.thresholds.items():
            score = of_frame.get(category, math.nan)
            if not math.isfinite(score):
                return GateDecision(settings.mode, frame, category)
            if score >= threshold:
                return GateDecision(settings.mode, frame, category, score)
    return GateDecision(DELIVER)


def notice_image(width: int, height: int) -> Image.Image:
    """A grey RGB image of this size that says that an image was withheld."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width, height), BACKGROUND)
    font = ImageFont.load_default(size=max(8, min(width, height) // 16))
    centre = (width / 2, height / 2)
    ImageDraw.Draw(image).multiline_text(centre, NOTICE, INK, font, anchor="mm", align="center")
    return image
