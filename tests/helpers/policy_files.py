"""Policy files for tests: a whole, valid one, and the same with some of it changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safety_steering_pack.safety_steering.files import file_sha256
from safety_steering_pack.safety_steering.vectors.file import save_vector
from safety_steering_pack.safety_steering.vectors.vector import SafetyVector
from tiny.vectors import random_vector

SPACES = {"conditioning": ("umt5xxl.last", 8), "block.blocks.2.image": ("tiny/block.blocks.2.image", 6)}


def vector(**options: Any) -> SafetyVector:
    return random_vector(SPACES, categories=("violence", "sexual"), **options)


def rule(folder: Path, *, file: str = "wan.safetensors", match: str = 'family = "wan"', more: str = "") -> str:
    """One rule whose vector is in `folder`; the vector is made if it is not there. `more`: further lines."""
    path = folder / file
    if not path.exists():
        save_vector(vector(), path)
    return f'[[rules]]\nmatch = {{ {match} }}\nvector = "{file}"\nsha256 = "{file_sha256(path)}"\n{more}\n'


def write_policy(folder: Path, *, top: str = "", rules: str | None = None, tables: str = "") -> Path:
    """Write policy.toml: `top` are keys of the file itself, `rules` replaces its one rule, `tables` follow."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "policy.toml"
    path.write_text(f"version = 1\n{top}\n{rule(folder) if rules is None else rules}\n{tables}\n")
    return path
