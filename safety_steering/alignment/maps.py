"""A fitted map between two spaces, in standardised and centred coordinates of both.

    linear   z -> z W
    mlp      z -> gelu(z A + a) B + b

z is (n, D_s); the result (n, D_t). Only differences of what a map gives are used to carry a direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..errors import SafetySteeringError

# kind -> its tensors and their dims: s and t are the widths of the two spaces, h that of the hidden layer
LAYOUTS: Mapping[str, Mapping[str, str]] = {
    "linear": {"matrix": "st"},
    "mlp": {"first": "sh", "first_bias": "h", "second": "ht", "second_bias": "t"},
}


@dataclass(frozen=True, eq=False)
class SpaceMap:
    """kind: a key of `LAYOUTS`. tensors: float32, as named there. chosen: what the fit chose (penalty, rank, ...).

    Raises:
        SafetySteeringError: on construction, if names, shapes or values are not as documented.
    """

    kind: str
    tensors: Mapping[str, torch.Tensor]
    chosen: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layout = LAYOUTS.get(self.kind, {})
        if not layout or set(layout) != set(self.tensors):
            raise SafetySteeringError(f"'{self.kind}' with {', '.join(self.tensors) or 'nothing'} is no map.")
        sizes: dict[str, int] = {}
        for name, dims in layout.items():
            tensor = self.tensors[name]
            if tensor.dtype != torch.float32 or tensor.ndim != len(dims) or not bool(torch.isfinite(tensor).all()):
                raise SafetySteeringError(
                    f"The map's {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected finite float32 in "
                    f"{len(dims)} dimensions."
                )
            for letter, size in zip(dims, tensor.shape, strict=True):
                if sizes.setdefault(letter, size) != size or size == 0:
                    raise SafetySteeringError(f"The map's {name} has shape {tuple(tensor.shape)}, which does not fit.")

    @property
    def widths(self) -> tuple[int, int]:
        """(D_s, D_t)."""
        tensors = list(self.tensors.values())
        return int(tensors[0].shape[0]), int(tensors[-1].shape[-1])

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """(n, D_s) -> (n, D_t), float64."""
        t = {name: tensor.double() for name, tensor in self.tensors.items()}
        z = z.double()
        if self.kind == "linear":
            return z @ t["matrix"]
        hidden = torch.nn.functional.gelu(z @ t["first"] + t["first_bias"])
        return hidden @ t["second"] + t["second_bias"]


# --- The ways to fit a map between two spaces, one a file. Rows are anchors, channels are centred and standardised.


METHODS = ("ridge", "orthogonal", "mlp", "reduced_rank")


__all__ = ["METHODS"]


# --- A split inside the fit's own rows, for what a method has to choose by itself.


SHARE = 0.2


def inner_split(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the rows to fit on and of those to choose by (a fifth, at least one), drawn by `seed`."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    count = max(1, round(SHARE * rows))
    return order[count:], order[:count]


# --- How an alignment is fitted. Plain data.


MIN_ANCHORS = 16


@dataclass(frozen=True)
class AlignmentSettings:
    """method: one of `METHODS`. rank belongs to reduced_rank (0: chosen), hidden to mlp.

    held_out: share of the anchors that the fit is judged on. seed: which of them, and the mlp's first weights.

    Raises:
        SafetySteeringError: on construction, for an unknown method or a value out of range.
    """

    method: str = "ridge"
    rank: int = 0
    hidden: int = 256
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SafetySteeringError(
                f"The method '{self.method}' is none of {', '.join(METHODS)}. Choose one of them."
            )
        if not (math.isfinite(self.held_out) and 0 < self.held_out <= 0.5):
            raise SafetySteeringError(
                f"held_out is {self.held_out}; give a share above 0 and at most 0.5, such as 0.2."
            )
        if self.rank < 0 or self.hidden < 1:
            raise SafetySteeringError(
                f"rank is {self.rank} and hidden {self.hidden}; rank must be 0 (chosen) or more, hidden 1 or more."
            )
