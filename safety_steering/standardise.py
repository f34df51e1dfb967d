"""Channel standardisation: every channel weighs the same before the direction is sought.

With scale_d the benign standard deviation of channel d, the direction is fitted on z = h / scale. What is stored is the
axis in the model's own channels along which z is measured: <z, u_z> = <h, u_z / scale>, so u = (u_z / scale) / ||...||.
A mean difference that is standardised so is (mu_safe - mu_unsafe) / scale^2, the diagonal discriminant. Carrying u_z
over as a displacement (scale x u_z) would give the plain mean difference back.
"""

from __future__ import annotations

import torch

SMALLEST_SHARE = 0.1
OUTLIERS = 3


def channel_scales(benign: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each channel over benign states (b, D); (D,) float64.

    It is never below a tenth of the median channel's, so that no channel counts for its silence.
    """
    scales: torch.Tensor = benign.double().std(dim=0)
    floor = SMALLEST_SHARE * scales.median()
    return scales.clamp_min(float(floor) if float(floor) > 0 else 1.0)


def outlier_share(direction: torch.Tensor) -> float:
    """Share of ||u||^2 in a direction's (D,) largest channels, 3 of them: near 1, a few outliers are the direction."""
    squares = direction.double().square()
    return float(squares.topk(min(OUTLIERS, len(squares))).values.sum() / squares.sum())
