"""A host's policy: which models are steered with which vectors, how, and what a submitted graph may do.

A Policy is frozen, and its vectors are loaded and checked against their sha256. A job keeps the policy that it began
with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..safety_steering.files import file_sha256
from ..safety_steering.hook_point import HookPoint, select_hook_points
from ..safety_steering.steering.interventions import Intervention, suggested
from ..safety_steering.steering.prompt_gate import detectors_for
from ..safety_steering.vectors.file import load_vector
from ..safety_steering.vectors.mix import format_mix, parse_mix
from ..safety_steering.vectors.suggestion import recommended
from ..safety_steering.vectors.vector import CALIBRATED, SafetyVector, Suggestion
from .errors import PolicyError
from .policy_settings import PolicySettings, RuleSettings, parse_policy
from .public_folders import PublicFolders

ENVIRONMENT = "SAFETY_STEERING_POLICY"
FILE_NAME = "policy.toml"
MAX_BYTES = 1024 * 1024
WINDOW = (0.0, 1.0)
BRANCH = "both"


@dataclass(frozen=True)
class ModelIdentity:
    """What rules match of a model. spaces: all of its spaces; fingerprint: of its weights, 16 hex digits."""

    family: str
    spaces: frozenset[str]
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule with its vector loaded. The vector has the rule's mix; window and branch are WINDOW and BRANCH.

    strength, strengths: in gaps, and by hook point where it differs. level, basis: of recommended settings; None and
    empty if the rule's own keys say how to steer.
    """

    name: str
    settings: RuleSettings
    vector: SafetyVector
    hook_points: tuple[str, ...]
    intervention: Intervention
    strength: float
    strengths: Mapping[str, float] = field(default_factory=dict)
    level: float | None = None
    basis: str = ""

    def matches(self, model: ModelIdentity) -> bool:
        """Whether this rule is for `model`."""
        match = self.settings.match
        return (
            match.family == model.family or match.space in model.spaces or match.fingerprint == model.fingerprint
        )  # of the three only one is not None


@dataclass(frozen=True, eq=False)
class Policy:
    """A checked policy. sha256: of the file's bytes. audit_folder: an absolute path."""

    path: Path
    sha256: str
    settings: PolicySettings
    rules: tuple[Rule, ...]
    audit_folder: Path

    def rules_for(self, model: ModelIdentity) -> tuple[Rule, ...]:
        """Every rule for `model`, in the file's order. If there is none, `settings.without_rule` applies."""
        return tuple(rule for rule in self.rules if rule.matches(model))

    def allows_node(self, class_type: str) -> bool:
        """Whether `class_type` is in the allow-list of node classes, or there is no list."""
        return self.settings.allow.nodes is None or class_type in self.settings.allow.nodes

    def allows_lora(self, sha256: str) -> bool:
        """Whether the LoRA file with this sha256 is in the allow-list, or there is no list."""
        return self.settings.allow.loras is None or sha256 in self.settings.allow.loras

    def allows_vector(self, sha256: str) -> bool:
        """Whether a graph may use the vector file with this sha256: a rule's, a listed one, or any if permitted."""
        listed = {*self.settings.allow.vectors, *(rule.settings.sha256 for rule in self.rules)}
        return self.settings.permits.unlisted_vectors or sha256 in listed


def find_policy(private_folder: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The policy's path: from SAFETY_STEERING_POLICY, else policy.toml in `private_folder` if it exists.

    None means that this server is not guarded. A path from the environment is returned even if it does not exist, so
    that a missing policy refuses jobs.
    """
    if named := environment.get(ENVIRONMENT):
        return Path(named).absolute()
    path = private_folder / FILE_NAME
    return path if path.exists() else None


def read_policy(path: Path) -> bytes:
    """The bytes of a policy file.

    Raises:
        PolicyError: it is missing, unreadable or too large.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"The policy {path.name} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise PolicyError(f"The policy {path.name} has more than {MAX_BYTES} bytes, which is too large for a policy.")
    return data


def load_policy(path: Path, public: PublicFolders | None = None, data: bytes | None = None) -> Policy:
    """Load a policy and its vectors. data: the file's bytes, if they were read already.

    Raises:
        PolicyError: the policy or one of its vectors is missing, invalid or in one of the `public` folders, or a
            vector has another sha256.
    """
    public = public or PublicFolders()
    public.refuse(path, f"The policy {path.name}")
    data = read_policy(path) if data is None else data
    try:
        settings = parse_policy(data)
        folder = path.absolute().parent
        audit_folder = folder / _expanded(settings.audit.folder)
        public.refuse(audit_folder, "Its audit folder")
        rules = tuple(_load_rule(rule, n, folder, public) for n, rule in enumerate(settings.rules, start=1))
    except ValueError as error:  # ours, or a path that no file system takes
        raise PolicyError(f"The policy {path.name}: {error}") from error
    return Policy(path, hashlib.sha256(data).hexdigest(), settings, rules, audit_folder)


def _expanded(folder: str) -> Path:
    """The audit folder with variables such as $HOSTNAME expanded, so that servers can share a policy."""
    expanded = os.path.expandvars(folder)
    if "$" in expanded:
        raise PolicyError(f"the audit folder '{folder}' names a variable that is not set. Set it, or write the folder.")
    return Path(expanded)


def _load_rule(settings: RuleSettings, number: int, folder: Path, public: PublicFolders) -> Rule:
    name = settings.name or f"rule {number}"
    path = folder / settings.vector
    try:
        public.refuse(path, f"The vector {path.name}")
        vector = _load_pinned(path, settings.sha256)
        if settings.mix:
            vector = vector.with_mix(parse_mix(settings.mix))
        rule = (_manual if settings.is_manual else _recommended)(name, settings, vector)
        _check_steers_to_safe(vector, rule.hook_points, rule.intervention.kind)
        detectors_for(vector, rule.intervention)
        if rule.intervention.gate == "prompt" and any(HookPoint(point).in_encoder for point in rule.hook_points):
            raise PolicyError(
                "the gate prompt is decided behind the text encoder, and the rule steers inside it. Choose pooled."
            )
    except ValueError as error:
        raise PolicyError(f"{name}: {error}") from error
    return rule


def _manual(name: str, settings: RuleSettings, vector: SafetyVector) -> Rule:
    info = vector.info
    hook_points = select_hook_points(
        settings.hook_points, vector.hook_points, info.block_counts, info.suggestion.hook_points
    )
    if not hook_points:
        raise PolicyError("the vector suggests hook points that it does not have. Name them in hook_points.")
    intervention = Intervention(
        settings.intervention,
        settings.norm,
        settings.gate,
        settings.threshold,
        settings.false_alarm if settings.gate == "prompt" else 0.0,
        settings.token_threshold if settings.gate == "prompt" else None,
    )
    return Rule(name, settings, vector, hook_points, intervention, settings.strength)


def _recommended(name: str, settings: RuleSettings, vector: SafetyVector) -> Rule:
    found, level = recommended(vector), settings.level
    strengths = {point: strength * level for point, strength in found.strengths.items()}
    hook_points = tuple(map(HookPoint, found.hook_points))
    return Rule(
        name, settings, vector, hook_points, suggested(found), found.strength * level, strengths, level, found.basis
    )


def doubts(rule: Rule) -> list[str]:
    """What a host should know before relying on a rule, in sentences; empty if its settings were calibrated."""
    found = recommended(rule.vector)
    told = []
    if rule.level is not None and rule.basis != CALIBRATED:
        told.append(f"its settings are not calibrated ({rule.basis}): measure them with Evaluate before you open.")
    if rule.level is None:
        told += [f"its {weak}, which is weaker than the vector's suggestion." for weak in _weaker(rule, found)]
    return told


def _weaker(rule: Rule, found: Suggestion) -> Iterator[str]:
    how = rule.intervention
    if rule.strength < found.strength:
        yield f"strength {rule.strength:g} is lower (suggested: {found.strength:g})"
    usual = suggested(found)
    seldom = (how.threshold, how.false_alarm) < (usual.threshold, usual.false_alarm)
    if how.gate != "off" and (usual.gate == "off" or (how.gate == usual.gate and seldom)):
        yield f"{how.gate_in_words} opens less often"


def _load_pinned(path: Path, sha256: str) -> SafetyVector:
    """The vector in `path`; the file must have this sha256 before and after it is read."""
    try:
        _check_sha256(path, sha256)
        vector = load_vector(path)
        _check_sha256(path, sha256)
    except OSError as error:
        raise PolicyError(
            f"the vector {path.name} cannot be read: {error.strerror}. Put it beside the policy, or correct 'vector'."
        ) from error
    return vector


def _check_sha256(path: Path, sha256: str) -> None:
    found = file_sha256(path)
    if found != sha256:
        raise PolicyError(
            f"the vector {path.name} has the sha256 {found}, the policy names {sha256}. "
            "Restore the file, or name its sha256 if you trust it."
        )


def _check_steers_to_safe(vector: SafetyVector, hook_points: tuple[str, ...], intervention: str) -> None:
    if vector.info.kind == "source":
        raise PolicyError("the vector is a source vector, made for a language model. Name a transferred or native one.")
    acting = [category for category, weight in vector.mix.items() if weight > 0]
    if not acting or min(vector.mix.values()) < 0:
        raise PolicyError(f"the mix '{format_mix(vector.mix)}' needs a weight above 0 and none below.")
    for name in hook_points:
        gaps = vector.at(name).categories
        still = [category for category in acting if not gaps[category].gap.all()]
        if intervention == "add" and still:
            raise PolicyError(f"at {name} the gap of '{still[0]}' is 0, so that 'add' moves nothing. Use 'clamp'.")
