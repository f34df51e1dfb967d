"""The keys of a policy file (TOML) with their types, ranges and defaults. docs/hosting.md lists them.

There are no keys for the window and the branch: they are always 0 to 1 and both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..safety_steering.vectors.mix import parse_mix
from .errors import PolicyError
from .job_record import CLIENT_BASED, MIXED, NO_RULE, NOT_SAMPLED, STEERED

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[import-not-found, no-redef]  # the same by its older name

VERSION = 1
MAX_COMPLAINTS = 3

Verdict = Literal["steered", "steered from client content", "no rule", "contains other content", "not sampled here"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Name = Annotated[str, Field(min_length=1)]
# TOML has arrays only; a frozen model holds tuples
Names = Annotated[tuple[Name, ...], Field(strict=False)]
Sha256s = Annotated[tuple[Sha256, ...], Field(strict=False)]


class Section(BaseModel):
    """A table of the file. Unknown keys, other types (`1` for `true`) and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Match(Section):
    """Which models a rule is for: exactly one of the three keys."""

    family: Name | None = None
    space: Name | None = None
    fingerprint: Fingerprint | None = None

    @model_validator(mode="after")
    def _one(self) -> Match:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of family, space and fingerprint")
        return self


MANUAL = (
    "strength",
    "intervention",
    "norm",
    "gate",
    "threshold",
    "false_alarm",
    "token_threshold",
    "hook_points",
)


class RuleSettings(Section):
    """One rule. `vector` is relative to the policy's folder.

    settings: "recommended" takes what the vector suggests, its strength times `level`; "manual" takes the keys of
    MANUAL. Without it, a rule that has one of those keys is manual. false_alarm and token_threshold belong to the gate
    prompt, threshold to the others.
    """

    match: Match
    vector: Name
    sha256: Sha256
    name: str = ""
    mix: str = ""
    settings: Literal["recommended", "manual"] | None = None
    level: float = Field(default=1.0, gt=0, le=2)
    strength: float = Field(default=1.0, gt=0, le=50)
    intervention: Literal["add", "ablate", "clamp"] = "clamp"
    norm: Literal["none", "token", "channel"] = "token"
    gate: Literal["off", "pooled", "token", "prompt"] = "off"
    threshold: float = Field(default=-1.0, ge=-10, le=10)
    false_alarm: float = Field(default=0.01, gt=0, le=0.5)
    token_threshold: float = Field(default=-2.0, ge=-10, le=10)
    hook_points: Name = "auto"

    @model_validator(mode="after")
    def _one_kind(self) -> RuleSettings:
        given = [key for key in MANUAL if key in self.model_fields_set]
        if self.settings == "recommended" and given:
            raise ValueError(f"recommended settings leave no choice of {given[0]}. Remove it, or write manual")
        if self.is_manual and "level" in self.model_fields_set:
            raise ValueError("level belongs to recommended settings. Remove it, or what is set by hand")
        return self

    @property
    def is_manual(self) -> bool:
        """Whether the rule's own keys say how to steer."""
        return self.settings == "manual" or (self.settings is None and not self.model_fields_set.isdisjoint(MANUAL))

    @field_validator("mix")
    @classmethod
    def _readable(cls, mix: str) -> str:
        parse_mix(mix)
        return mix


class Allow(Section):
    """Allow-lists. Without a list all nodes and LoRAs are allowed; an empty list allows none.

    vectors: sha256 of vector files that graphs may use, beyond those of the rules.
    """

    nodes: Names | None = None
    loras: Sha256s | None = None
    vectors: Sha256s = ()


class Permits(Section):
    """What a guarded server refuses unless it is permitted here."""

    negative_strength: bool = False
    unlisted_vectors: bool = False
    merge_and_save_models: bool = False
    fit_and_save_nodes: bool = False
    free_paths: bool = False
    api_nodes: bool = False
    jump_queue: bool = False


class Limits(Section):
    """What one client may ask for. queue: jobs that wait; per_tenant: of one tenant, if `tenant_header` names them.

    tenant_header: the HTTP header by which the reverse proxy tells who a request is from.
    """

    prompt_megabytes: float = Field(default=8, gt=0)
    nodes: int = Field(default=2000, gt=0)
    queue: int = Field(default=500, gt=0)
    per_tenant: int = Field(default=50, gt=0)
    tenant_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = None


class AuditSettings(Section):
    """The audit log. folder: relative to the policy's folder; variables such as $HOSTNAME are expanded. keep_files: how
    many full files are kept; 0 keeps all."""

    folder: Name = "audit"
    rotate_megabytes: float = Field(default=64, gt=0)
    keep_files: int = Field(default=0, ge=0)
    log_prompt_text: bool = False


class EvidenceSettings(Section):
    """Whether output files are signed. With `sign` the server needs a signing key."""

    sign: bool = True


class OutputGateSettings(Section):
    """The judgement of finished frames. thresholds: category -> score from which a frame is held back.

    judge: `module:function`. It takes frames (N, H, W, 3) in 0..1 and returns category -> score for each frame.
    unjudged: for outputs with something in them that no judge of frames can see, such as sound.
    """

    mode: Literal["off", "notice", "fail"] = "off"
    unjudged: Literal["refuse", "flag"] = "refuse"
    judge: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    thresholds: dict[Name, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> OutputGateSettings:
        if self.mode != "off" and not (self.judge and self.thresholds):
            raise ValueError("a gate that is not off needs a judge and at least one threshold")
        return self


class StatusSettings(Section):
    """Access to status and metrics. token_environment: the variable that holds the token for other machines."""

    token_environment: EnvironmentName | None = None


class PolicySettings(Section):
    """A whole policy file.

    without_rule: for models without a rule. unsampled: for outputs that were not sampled, or
    have other content. deliver: verdicts of outputs that are delivered, beside those that are flagged. least_share: of
    the noise range, that runs must have removed from an output that began with the client's pictures. other_weights:
    for models whose weights differ from those that a rule's block directions were fitted on. own_apply: whether the
    policy's steering replaces that of graphs, or follows it. lost_apply: for graphs whose own Apply no run belongs to.
    """

    version: Literal[1]
    without_rule: Literal["refuse", "flag"] = "refuse"
    unsampled: Literal["refuse", "flag"] = "refuse"
    deliver: Annotated[tuple[Verdict, ...], Field(strict=False)] = (STEERED, CLIENT_BASED)
    least_share: float = Field(default=0.0, ge=0, le=1)
    other_weights: Literal["refuse", "flag"] = "flag"
    own_apply: Literal["replace", "allow"] = "replace"
    lost_apply: Literal["refuse", "flag"] = "flag"
    rules: Annotated[tuple[RuleSettings, ...], Field(strict=False)]
    allow: Allow = Allow()
    permits: Permits = Permits()
    limits: Limits = Limits()
    audit: AuditSettings = AuditSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    output_gate: OutputGateSettings = OutputGateSettings()
    status: StatusSettings = StatusSettings()

    @field_validator("version", mode="before")
    @classmethod
    def _whole_number(cls, version: Any) -> Any:
        if type(version) is not int:
            raise ValueError(f"must be the number {VERSION}, not {version!r}")
        return version

    def delivers(self, verdict: str) -> bool:
        """Whether outputs of this verdict leave the server."""
        flagged = (NO_RULE,) if self.without_rule == "flag" else ()
        flagged += (MIXED, NOT_SAMPLED) if self.unsampled == "flag" else ()
        return verdict in (*self.deliver, *flagged)


def parse_policy(data: bytes) -> PolicySettings:
    """Parse and check a policy file's bytes.

    Raises:
        PolicyError: not TOML, an unknown or missing key, or a value of a wrong type or range; it names the key.
    """
    try:
        return PolicySettings.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"it is not valid TOML: {error}.") from error
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f"; and {len(problems) - MAX_COMPLAINTS} more" if len(problems) > MAX_COMPLAINTS else ""
        told = "; ".join(_complaint(problem) for problem in problems[:MAX_COMPLAINTS])
        raise PolicyError(f"{told}{more}. docs/hosting.md lists every key.") from error


def _complaint(problem: Any) -> str:
    """One of pydantic's errors as `rules 2, strength: ...`."""
    parts = [f" {part + 1}" if isinstance(part, int) else f", {part}" for part in problem["loc"]]
    where = "".join(parts).removeprefix(", ") or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no such key"
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{where}: {message[:1].lower()}{message[1:]}"
