"""What the benign rows of a hook point say: where they lie along a direction, how far they spread, a token's norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .activations import States
from .products import norms, projections
from .standardise import channel_scales


@dataclass(frozen=True, eq=False)
class Benign:
    """The benign rows of a hook point: their places in `states`, which are not copied. seen: (N, K) bool, of all."""

    states: States
    rows: torch.Tensor
    seen: torch.Tensor

    def count(self, k: int) -> int:
        """How many of them sigma bin k has seen."""
        return int(self.seen[self.rows, k].sum())

    def along(self, u: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """<h, u> in float64 of the pooled states, and of the tokens, that sigma bin k has seen; u (D,) float64."""
        found = (projections(states[:, k], self.rows, u) for states in (self.states.pooled, self.states.token))
        pooled, token = (values[~values.isnan()] for values in found)
        return pooled, token

    def scales(self, k: int) -> torch.Tensor:
        """The channels' standard deviations in sigma bin k, see `channel_scales`."""
        return channel_scales(self.states.pooled[self.rows[self.seen[self.rows, k]], k])

    def token_norm(self) -> torch.Tensor:
        """The median norm of a token, (K,) float32."""
        median: torch.Tensor = norms(self.states.token, self.rows).nanmedian(dim=0).values
        return median.float()
