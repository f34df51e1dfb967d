"""What can go wrong in a guarded server, each with a sentence that says what was expected, what came and what to do."""

from __future__ import annotations

from ..safety_steering.errors import SafetySteeringError


class PolicyError(SafetySteeringError):
    """The policy is missing, unreadable or invalid. While that is so, the server must not sample."""


class AuditError(SafetySteeringError):
    """A job could not be written to the audit log. Its outputs must not be delivered."""


class EvidenceError(SafetySteeringError):
    """A file could not be signed, or its evidence does not hold."""


class MetricsError(SafetySteeringError):
    """Metrics cannot be rendered here."""
