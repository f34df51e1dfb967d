"""Safety steering: directions from unsafe to safe, their files, and what they do to hidden states.

A package of its own: it needs torch and safetensors, and never ComfyUI. Names load what they need when they are asked
for, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import MismatchError, NotSteeredError, SafetySteeringError, VectorFileError
    from .vectors.file import load_vector, save_vector
    from .vectors.vector import Direction, HookPointDirections, SafetyVector, Suggestion, VectorInfo

_HOME = {
    "Direction": ".vectors.vector",
    "HookPointDirections": ".vectors.vector",
    "MismatchError": ".errors",
    "NotSteeredError": ".errors",
    "SafetySteeringError": ".errors",
    "SafetyVector": ".vectors.vector",
    "Suggestion": ".vectors.vector",
    "VectorFileError": ".errors",
    "VectorInfo": ".vectors.vector",
    "load_vector": ".vectors.file",
    "save_vector": ".vectors.file",
}

__all__ = [
    "Direction",
    "HookPointDirections",
    "MismatchError",
    "NotSteeredError",
    "SafetySteeringError",
    "SafetyVector",
    "Suggestion",
    "VectorFileError",
    "VectorInfo",
    "load_vector",
    "save_vector",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
