"""The choices that a fit has."""

from __future__ import annotations

from dataclasses import dataclass

from .directions.methods import KERNELS
from .errors import SafetySteeringError

METHODS = ("mean_difference", "supervised_pca", "shrunk_lda", "logistic_probe")
LABELS = ("binary", "categories")


@dataclass(frozen=True)
class FitSettings:
    """How to fit. Fields beside `method`, `standardise`, `regress_length` belong to one method or to the evidence.

    kernel, labels, components: supervised_pca. labels "binary" is safe against unsafe, one component at most;
        "categories" tells the categories apart. components 0 keeps all.
    shrinkage: shrunk_lda. inverse_penalty: logistic_probe.
    halves, permutations: how many of each the evidence takes, 0 for none. seed: of both.

    Raises:
        SafetySteeringError: a choice is not one of those listed.
    """

    method: str = "mean_difference"
    standardise: bool = False
    regress_length: bool = False
    kernel: str = "delta"
    labels: str = "categories"
    components: int = 0
    shrinkage: float = 1.0
    inverse_penalty: float = 1.0
    halves: int = 0
    permutations: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("kernel", KERNELS), ("labels", LABELS)):
            if getattr(self, name) not in known:
                raise SafetySteeringError(f"The {name} is '{getattr(self, name)}', expected one of {', '.join(known)}.")
