"""How a policy's rule steers: its settings for the model, and those for the model's text encoder."""

from __future__ import annotations

from ...guardrail.policy import BRANCH, WINDOW, Rule
from ..steering.encoder import split_settings
from ..steering.settings import SteeringSettings


def model_settings(rule: Rule) -> SteeringSettings | None:
    """How a rule steers the model; None if it steers inside the text encoder alone."""
    return split_settings(_settings_of(rule))[0]


def encoder_settings(rule: Rule) -> SteeringSettings | None:
    """How a rule steers inside the text encoder; None if it does not."""
    return split_settings(_settings_of(rule))[1]


def _settings_of(rule: Rule) -> SteeringSettings:
    how, strengths = rule.intervention, rule.strengths
    return SteeringSettings(
        rule.strength, rule.hook_points, how, WINDOW, BRANCH, strengths, level=rule.level, basis=rule.basis
    )
