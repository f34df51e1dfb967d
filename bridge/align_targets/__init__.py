"""Places that a direction can be carried to, one a file; `choose_target` makes one of a node's choice."""

from ..alignment.target import Target, TargetStates
from .choose import TARGETS, Connected, choose_target

__all__ = ["TARGETS", "Connected", "Target", "TargetStates", "choose_target"]
