"""Safety steering: directions from unsafe to safe, their files, and what they do to hidden states.

The verbs, each with an example in its docstring:

    fit_vector       a native vector, from activations of the model that it will steer
    extract_vector   a portable vector, from a language model's states of paired prompts
    fit_alignment    the map from that language model to another model, from harmless captions alone
    transfer         a portable vector's directions, carried over such a map
    sharpen          carried directions, corrected by the target's benign states
    load_vector, save_vector   the file of a vector
    intervene        hidden states, moved along the directions

The package needs torch and safetensors, never ComfyUI. Importing it costs nothing: a name loads its module when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .alignment.fit import fit_alignment
    from .alignment.sharpen import sharpen
    from .alignment.transfer import transfer
    from .directions.native import fit_vector
    from .directions.portable import extract_vector
    from .errors import MismatchError, NotSteeredError, SafetySteeringError, VectorFileError
    from .steering.interventions import intervene
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
    "extract_vector": ".directions.portable",
    "fit_alignment": ".alignment.fit",
    "fit_vector": ".directions.native",
    "intervene": ".steering.interventions",
    "load_vector": ".vectors.file",
    "save_vector": ".vectors.file",
    "sharpen": ".alignment.sharpen",
    "transfer": ".alignment.transfer",
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
    "extract_vector",
    "fit_alignment",
    "fit_vector",
    "intervene",
    "load_vector",
    "save_vector",
    "sharpen",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
