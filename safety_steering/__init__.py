"""Safety steering: directions from unsafe to safe, their files, and what they do to hidden states.

A package of its own: it needs torch and safetensors, and never ComfyUI.
"""

from .errors import MismatchError, NotSteeredError, SafetySteeringError, VectorFileError
from .vector import Direction, HookPointDirections, SafetyVector, Suggestion, VectorInfo
from .vector_file import load_vector, save_vector

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
