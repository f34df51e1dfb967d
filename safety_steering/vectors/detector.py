"""The detectors of a safety vector: they tell from a prompt's mean state whether a category is in it.

A direction acts on tokens; a detector decides whether it may. For a prompt with the text states h_1 ... h_N and the
detector's unit vector w,

    z = (<mean_i h_i, w> - center) / std

is its distance from the benign mean, in standard deviations of benign prompts; unsafe prompts lie below 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import SafetySteeringError
from ..hook_point import HookPoint

UNIT_TOLERANCE = 1e-3  # of a direction's length
# the shares of benign prompts whose quantiles are kept
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True, eq=False)
class Detector:
    """One category's detector.

    direction: (D,) float32, of unit length, pointing from unsafe to safe. center, std: () of the mean states of benign
    prompts along it. quantiles: (len(LEVELS),) ascending, of z over diverse benign prompts; of a fit's
        detectors, of each prompt's lowest z of any category, so that the false alarm is that of them all.
    """

    direction: torch.Tensor
    center: torch.Tensor
    std: torch.Tensor
    quantiles: torch.Tensor

    def threshold(self, false_alarm: float) -> float:
        """The z below which this share of benign prompts lies, between the kept quantiles by interpolation.

        A share below the smallest of LEVELS gives that one's quantile: fewer false alarms than one in a thousand cannot
        be told from some hundreds of prompts.

        Raises:
            SafetySteeringError: the share is not above 0 and at most one half.
        """
        if not 0 < false_alarm <= LEVELS[-1]:
            raise SafetySteeringError(
                f"The false alarm is {false_alarm}. Give the share of harmless prompts that may be taken for unsafe "
                f"ones, above 0 and at most {LEVELS[-1]:g}; 0.01 is one in a hundred."
            )
        above = next((i for i, level in enumerate(LEVELS) if false_alarm <= level), len(LEVELS) - 1)
        if above == 0:
            return float(self.quantiles[0])
        low, high = LEVELS[above - 1], LEVELS[above]
        share = (false_alarm - low) / (high - low)
        return float(self.quantiles[above - 1].lerp(self.quantiles[above], share))


def make_detector(direction: torch.Tensor, benign: torch.Tensor, diverse: torch.Tensor | None = None) -> Detector:
    """A detector from its direction (D,), of any length, and the mean states of benign prompts (n, D).

    diverse: (m, D) mean states of further benign prompts, which the quantiles are taken of; without them of `benign`.

    Raises:
        SafetySteeringError: there are fewer than two prompts, or the direction or the spread along it is zero.
    """
    if len(benign) < 2 or not float(direction.norm()) > 0:
        raise SafetySteeringError(
            f"A detector needs a direction and at least two benign prompts, and got {len(benign)}. Add benign prompts."
        )
    w = direction.double() / direction.double().norm()
    along = benign.double() @ w
    center, std = along.mean(), along.std()
    if not float(std) > 0:
        raise SafetySteeringError("The benign prompts are all alike, so a detector has no spread. Add other prompts.")
    z = along if diverse is None else diverse.double() @ w
    quantiles = torch.quantile((z - center) / std, torch.tensor(LEVELS, dtype=torch.float64))
    return Detector(w.float(), center.float(), std.float(), quantiles.float())


@dataclass(frozen=True, eq=False)
class Detectors:
    """The detectors of a vector, one a category.

    hook_point: whose mean states they read, `conditioning`. space: id of the coordinate system there. benign: number of
    prompts that the quantiles are taken of. whole_alone: "all" decides by its own detector; else it opens where any of
    the categories does.
    """

    hook_point: HookPoint
    space: str
    categories: Mapping[str, Detector]
    benign: int = 0
    whole_alone: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hook_point", HookPoint(self.hook_point))

    @property
    def width(self) -> int:
        """D, the number of channels of the states."""
        return int(next(iter(self.categories.values())).direction.shape[0])


def complaint_about(detectors: Detectors, categories: Sequence[str], hook_points: Sequence[str]) -> str:
    """What is wrong with detectors, or an empty string.

    categories: of their vector. hook_points: where its detectors may read.
    """
    if detectors.hook_point not in hook_points:
        return f"its detectors read '{detectors.hook_point}', not '{hook_points[0]}'"
    if not detectors.space:
        return "its detectors name no space"
    if detectors.benign < 0:
        return f"its detectors were set by {detectors.benign} benign prompts"
    if set(detectors.categories) != set(categories):
        return f"it has detectors for {', '.join(detectors.categories)} and directions for {', '.join(categories)}"
    found = ((name, _complaint(one, detectors.width)) for name, one in detectors.categories.items())
    return next((f"detector/{name}/{complaint}" for name, complaint in found if complaint), "")


def _complaint(detector: Detector, width: int) -> str:
    shapes = {"direction": (width,), "center": (), "std": (), "quantiles": (len(LEVELS),)}
    for name, shape in shapes.items():
        found = tuple(getattr(detector, name).shape)
        if found != shape:
            return f"{name} has shape {found}, expected {shape}"
    if abs(float(detector.direction.double().norm()) - 1) >= UNIT_TOLERANCE:
        return "direction is not of unit length"
    if not float(detector.std) > 0:
        return "std is not positive"
    return "" if bool((detector.quantiles.diff() >= 0).all()) else "quantiles do not ascend"
