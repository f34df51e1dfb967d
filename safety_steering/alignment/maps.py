"""A fitted map between two spaces, in standardised and centred coordinates of both.

    linear   z -> z W
    mlp      z -> gelu(z A + a) B + b

z is (n, D_s); the result (n, D_t). Only differences of what a map gives are used to carry a direction.
"""

from __future__ import annotations

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
