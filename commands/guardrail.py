"""The guardrail's commands of `python -m safety_steering`: verify, keygen, policy check and audit verify."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..guardrail.audit import verify_log
from ..guardrail.errors import EvidenceError
from ..guardrail.evidence import verify_file
from ..guardrail.keys import ENVIRONMENT, load_signer, new_key_file

if TYPE_CHECKING:
    from ..guardrail.policy import Policy


def add_commands(commands: Any) -> None:
    """Add them to argparse's subparsers. Each sets `run`: options -> the text to print."""
    verify = commands.add_parser("verify", help="check an output file against its signed evidence")
    verify.add_argument("file", type=Path, help="the output file; its evidence lies beside it as FILE.safety.json")
    verify.add_argument(
        "--key",
        action="append",
        metavar="PUBLIC",
        help="a public key that you trust: base64, or a PEM file; may be given several times "
        f"(default: that of the key in {ENVIRONMENT})",
    )
    verify.add_argument("--evidence", type=Path, help="the evidence, if it lies elsewhere")
    verify.set_defaults(run=_verify)

    keygen = commands.add_parser("keygen", help="make a signing key")
    keygen.add_argument("file", type=Path, help="where the private key goes (PEM); must not exist")
    keygen.set_defaults(run=_keygen)

    policy = commands.add_parser("policy", help="look at a host's policy").add_subparsers(dest="action", required=True)
    check = policy.add_parser("check", help="load a policy with its vectors, and say what it does")
    check.add_argument("file", type=Path, help="the policy, *.toml")
    check.set_defaults(run=_check)

    audit = commands.add_parser("audit", help="look at a host's audit log").add_subparsers(dest="action", required=True)
    chain = audit.add_parser("verify", help="check that no line of an audit log was altered, taken out or put in")
    chain.add_argument("folder", type=Path, help="the audit folder")
    chain.set_defaults(run=lambda options: verify_log(options.folder))


def _verify(options: argparse.Namespace) -> str:
    record = verify_file(options.file, options.key or _own_key(), options.evidence)
    facts = ("verdict", "share", "client_inputs", "unjudged", "decision", "time", "prompt_id", "policy_sha256")
    facts += ("vectors", "calls", "steered_calls", "cached_calls", "file_sha256", "key_id")
    told = {name: record[name] for name in facts if record.get(name, []) != []}
    lines = (f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in told.items())
    return "\n".join(["The file is as it was signed.", *lines])


def _own_key() -> list[str]:
    """The public key of this server's signing key."""
    if not os.environ.get(ENVIRONMENT):
        raise EvidenceError("Whose signature do you trust? Give the maker's public key: --key PUBLIC.")
    return [load_signer().public_key]


def _keygen(options: argparse.Namespace) -> str:
    try:
        signer = new_key_file(options.file)
    except FileExistsError as error:
        raise EvidenceError(
            f"{options.file} exists, and no key is written over. Name another file, or move that one away."
        ) from error
    return (
        f"public key: {signer.public_key}\nkey id: {signer.key_id}\n"
        f"Give {ENVIRONMENT} the path of the private key, {options.file}. Publish the public one."
    )


def _check(options: argparse.Namespace) -> str:
    from ..guardrail.policy import load_policy

    return describe(load_policy(options.file))


def describe(policy: Policy) -> str:
    """A policy as text, one fact on each line."""
    from ..guardrail.policy import doubts

    settings = policy.settings
    permitted = [name for name, permitted in settings.permits if permitted]
    lines = [f"sha256: {policy.sha256}"]
    for rule in policy.rules:
        (kind, value), *_ = rule.settings.match.model_dump(exclude_none=True).items()
        how = f"strength {rule.strength:g}, {rule.intervention.kind}, norm {rule.intervention.norm}"
        how += "" if rule.level is None else f", recommended ({rule.basis}) at level {rule.level:g}"
        lines.append(f"{rule.name}: {kind} {value} is steered at {', '.join(rule.hook_points)} ({how})")
        lines += [f"warning: {rule.name}: {doubt}" for doubt in doubts(rule)]
    lines += [
        f"a model without a rule: {settings.without_rule}",
        f"outputs that were not sampled: {settings.unsampled}",
        f"permitted: {', '.join(permitted) or 'nothing that a guarded server refuses'}",
        f"audit folder: {policy.audit_folder}",
        f"outputs are signed: {'yes' if settings.evidence.sign else 'no'}",
        f"output gate: {settings.output_gate.mode}",
    ]
    return "\n".join(lines)
