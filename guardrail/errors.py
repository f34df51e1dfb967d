"""The errors of a guarded server. Each message says what was expected, what came and what to do."""

from __future__ import annotations

from ..safety_steering.errors import SafetySteeringError


class PolicyError(SafetySteeringError):
    """The policy is missing, unreadable or invalid. The server must not sample meanwhile."""


class Refused(SafetySteeringError):
    """The policy refuses a node of a graph. node_id: which one, or empty for the whole graph."""

    def __init__(self, sentence: str, node_id: str = "") -> None:
        super().__init__(sentence)
        self.node_id = node_id


class AuditError(SafetySteeringError):
    """A job could not be written to the audit log. Its outputs must not be delivered."""


class EvidenceError(SafetySteeringError):
    """A file could not be signed, or its evidence is not valid."""


class MetricsError(SafetySteeringError):
    """Metrics cannot be rendered here."""
