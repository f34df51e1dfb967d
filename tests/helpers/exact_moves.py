"""What contract line 7 means by exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def ulp(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance between neighbouring numbers of `dtype` at each of `values`."""
    info = torch.finfo(dtype)
    return torch.exp2(values.abs().clamp_min(info.tiny).log2().floor()) * info.eps


def check_moved(before: torch.Tensor, after: torch.Tensor, moved: Sequence[int], shift: torch.Tensor) -> None:
    """`after` is `before` + shift at the tokens `moved`, within 2 ulp of the larger summand, and bit-equal else.

    moved: ascending. shift: (D,) or one row a moved token.
    """
    here = torch.zeros(before.shape[1], dtype=torch.bool)
    here[list(moved)] = True
    assert torch.equal(after[:, ~here], before[:, ~here]), "a token moved that should not"
    old, new = before[:, here].double(), after[:, here].double()
    larger = torch.maximum(old.abs(), shift.abs().expand_as(old))
    assert ((new - (old + shift)).abs() <= 2 * ulp(larger, before.dtype)).all()
    assert not (new == old).all(dim=-1).any(), "a token that should have moved did not"
