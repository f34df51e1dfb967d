"""A fitted map between two spaces, in centred and standardised coordinates of both, and the settings of its fit.

    linear   z -> z W
    mlp      z -> gelu(z A + a) B + b

z is (n, D_s), the result (n, D_t). A direction is carried by differences of the map's values only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..errors import SafetySteeringError

METHODS = ("ridge", "orthogonal", "mlp", "reduced_rank")
MIN_ANCHORS = 16
INNER_SHARE = 0.2  # of the rows of a fit, kept aside for what the method has to choose
# kind -> its tensors and their dims: s and t are the widths of the two spaces, h that of the hidden layer
LAYOUTS: Mapping[str, Mapping[str, str]] = {
    "linear": {"matrix": "st"},
    "mlp": {"first": "sh", "first_bias": "h", "second": "ht", "second_bias": "t"},
}


@dataclass(frozen=True)
class AlignmentSettings:
    """How an alignment is fitted.

    method: one of METHODS. rank: of reduced_rank, 0 to have it chosen. hidden: width of mlp's hidden layer.
    held_out: share of the anchors that the fit is judged on. seed: which of them, and mlp's first weights.

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


@dataclass(frozen=True, eq=False)
class SpaceMap:
    """A map. kind: a key of LAYOUTS. tensors: float32, as named there. chosen: what the fit chose (penalty, rank, ...).

    Raises:
        SafetySteeringError: on construction, if names, shapes or values are not as documented.
    """

    kind: str
    tensors: Mapping[str, torch.Tensor]
    chosen: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layout = LAYOUTS.get(self.kind, {})
        if not layout or set(layout) != set(self.tensors):
            raise SafetySteeringError(
                f"A map of kind '{self.kind}' with the tensors {', '.join(self.tensors) or 'none'} is not valid; the "
                f"kinds are {', '.join(LAYOUTS)}."
            )
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
                    raise SafetySteeringError(
                        f"The map's {name} has shape {tuple(tensor.shape)}, which does not match its other tensors."
                    )

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


def inner_split(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the rows to fit on and of the rows to choose by (a fifth, at least one), drawn with `seed`."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    count = max(1, round(INNER_SHARE * rows))
    return order[count:], order[:count]
