"""The quality of an alignment on held-out anchors, and the rule for one that is too poor to trust.

    R^2          1 - ||Y - T(X)||^2 / ||Y - mean||^2 in standardised channels; the mean is that of the fitted anchors,
                 so 0 is no better than predicting the mean
    retrieval@1  share of the held-out anchors whose predicted state is nearer (centred cosine) to their own state than
                 to any other held-out anchor's; chance is 1 / n

Poor is R^2 < 0.05 or retrieval@1 < max(0.1, 5 / n). Anchors paired at random give R^2 <= 0 and a retrieval near chance,
and a map below these values can hardly be told from that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

LEAST_R2 = 0.05
LEAST_RETRIEVAL = 0.1
TIMES_CHANCE = 5


@dataclass(frozen=True, eq=False)
class Quality:
    """own: (m,) float32 cosine of each held-out anchor's predicted state with its own state.

    other: (m,) float32, the highest cosine with another anchor's state. fitted: number of anchors that were fitted on.
    """

    r2: float
    own: torch.Tensor
    other: torch.Tensor
    fitted: int

    @property
    def held_out(self) -> int:
        """m, the number of held-out anchors."""
        return len(self.own)

    @property
    def retrieval(self) -> float:
        """Retrieval@1, 0 to 1."""
        return float((self.own > self.other).float().mean())

    @property
    def needed(self) -> float:
        """The retrieval@1 below which a fit is poor."""
        return min(1.0, max(LEAST_RETRIEVAL, TIMES_CHANCE / self.held_out))

    @property
    def complaint(self) -> str:
        """Why the fit is too poor to trust, or an empty string."""
        reasons = []
        if self.r2 < LEAST_R2:
            reasons.append(f"R2 {self.r2:.3f} is below {LEAST_R2:g}")
        if self.retrieval < self.needed:
            reasons.append(
                f"only {self.retrieval:.0%} of the held-out captions were recognised, {self.needed:.0%} needed"
            )
        return " and ".join(reasons)


def judge(predicted: torch.Tensor, true: torch.Tensor, fitted: int) -> Quality:
    """The quality of predicted states (m, D_t) against the true ones (m, D_t), both relative to the fit's mean."""
    predicted, true = predicted.double(), true.double()
    r2 = 1 - float((true - predicted).square().sum() / true.square().sum())
    cosines = torch.nn.functional.normalize(predicted, dim=1) @ torch.nn.functional.normalize(true, dim=1).T
    own = cosines.diagonal().clone()
    others = cosines.fill_diagonal_(-1.0).max(dim=1).values
    return Quality(r2, own.float(), others.float(), fitted)
