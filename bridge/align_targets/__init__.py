"""Places that a direction can be carried to, one a file; `choose_target` makes one of a node's choice."""

from .choose import TARGETS, Connected, choose_target
from .target import Target, TargetStates

__all__ = ["TARGETS", "Connected", "Target", "TargetStates", "choose_target"]
