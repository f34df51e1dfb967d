"""Evidence: a signed record beside each output file, `<file>.safety.json`, about how these bytes were made.

The signature (Ed25519, RFC 8032) is over the line `safety_steering_evidence <format_version>`, a line end, and the
record without its signature as JSON with sorted keys, no spaces and ASCII only. It can be checked without this pack.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..safety_steering.files import write_atomically
from .errors import EvidenceError
from .job_record import utc_now
from .keys import Signer, load_verifier
from .plain_text import shown

FORMAT = "safety_steering_evidence"
FORMAT_VERSION, WITH_UNJUDGED = 2, 3  # who reads 2 only can check every record that does not need more
SUFFIX = ".safety.json"
MAX_BYTES = 1024 * 1024
CHUNK = 1024 * 1024
FIELDS_1 = {
    "format": str,
    "format_version": int,
    "file": str,
    "file_sha256": str,
    "file_bytes": int,
    "prompt_id": str,
    "policy_sha256": str,
    "vectors": list,
    "verdict": str,
    "decision": str,
    "time": str,
    "key_id": str,
    "signature": str,
}
FIELDS_2 = FIELDS_1 | {"share": float, "client_inputs": list, "calls": int, "steered_calls": int, "cached_calls": int}
FIELDS = FIELDS_2 | {"unjudged": list}
FIELDS_OF = {1: FIELDS_1, FORMAT_VERSION: FIELDS_2, WITH_UNJUDGED: FIELDS}


@dataclass(frozen=True)
class Statement:
    """What is recorded of an output. verdict, decision: as in `job_record`; vectors: content sha256.

    share: of the noise that guarded runs removed. client_inputs: the client's pictures in it, as `node (class)`. calls,
    steered_calls, cached_calls: of the model, over all runs that it comes from. unjudged: what is in it that the output
    gate, if it is on, could not see.
    """

    prompt_id: str
    policy_sha256: str
    vectors: tuple[str, ...]
    verdict: str
    decision: str
    share: float = 1.0
    client_inputs: tuple[str, ...] = ()
    calls: int = 0
    steered_calls: int = 0
    cached_calls: int = 0
    unjudged: tuple[str, ...] = ()


def sidecar_of(file: Path) -> Path:
    """The path of the evidence of `file`."""
    return file.with_name(file.name + SUFFIX)


def sign_file(file: Path, statement: Statement, signer: Signer) -> dict[str, Any]:
    """Hash `file`, sign the statement about it, write the evidence beside it, and return it.

    Raises:
        EvidenceError: the file cannot be read, or the evidence cannot be written.
    """
    try:
        sha256, size = _hash(file)
        record = {
            "format": FORMAT,
            "format_version": WITH_UNJUDGED if statement.unjudged else FORMAT_VERSION,
            "file": file.name,
            "file_sha256": sha256,
            "file_bytes": size,
            "prompt_id": statement.prompt_id,
            "policy_sha256": statement.policy_sha256,
            "vectors": list(statement.vectors),
            "verdict": statement.verdict,
            "share": round(statement.share, 6),
            "client_inputs": list(statement.client_inputs),
            "calls": statement.calls,
            "steered_calls": statement.steered_calls,
            "cached_calls": statement.cached_calls,
            "decision": statement.decision,
            "time": utc_now(),
            "key_id": signer.key_id,
        }
        if statement.unjudged:
            record["unjudged"] = list(statement.unjudged)
        record["signature"] = base64.b64encode(signer.sign(_signed_bytes(record))).decode()
        write_atomically(sidecar_of(file), json.dumps(record, indent=1).encode())
    except OSError as error:
        raise EvidenceError(f"The evidence of {file.name} cannot be written: {error.strerror}.") from error
    return record


def verify_file(file: Path, keys: Sequence[str], evidence: Path | None = None) -> dict[str, Any]:
    """Check a file against its evidence, and return the evidence.

    Args:
        keys: the trusted public keys, each as base64 or the path of a PEM file.
        evidence: its path, if it is not beside the file.

    Raises:
        EvidenceError: the evidence is missing, was altered, or is signed with a key that is not in `keys`; or the file
            is not the one that was signed.
    """
    record = _read(evidence or sidecar_of(file))
    verifiers = {verifier.key_id: verifier for verifier in map(load_verifier, keys)}
    verifier = verifiers.get(record["key_id"])
    if verifier is None:
        raise EvidenceError(
            f"The evidence of {file.name} is signed with the key {record['key_id']}, which is not among those trusted: "
            f"{', '.join(verifiers)}. Trust the file only if that key is its maker's."
        )
    if not verifier.holds(_signature(record), _signed_bytes(record)):
        raise EvidenceError(
            f"The signature of {file.name} does not fit its record: the record was altered, or the signature is "
            "another file's. Do not trust it."
        )
    if not file.is_file():
        raise EvidenceError(f"{file.name} is missing; only its evidence is here.")
    if _hash(file) != (record["file_sha256"], record["file_bytes"]):
        raise EvidenceError(
            f"{file.name} is not the file that was signed ('{record['file']}' of prompt {record['prompt_id']}): it was "
            "altered, or the evidence is another file's. Do not trust it."
        )
    return record


def is_known(file: Path) -> bool:
    """Whether there is evidence beside a file that names its size. The signature is not checked."""
    try:
        return bool(_read(sidecar_of(file))["file_bytes"] == file.stat().st_size)
    except (EvidenceError, OSError):
        return False


def matches(file: Path) -> bool:
    """Whether a file has the bytes that its record names. The signature is not checked.

    Raises:
        EvidenceError: there is no record.
    """
    record = _read(sidecar_of(file))
    try:
        return _hash(file) == (record["file_sha256"], record["file_bytes"])
    except OSError:
        return False


def _signed_bytes(record: Mapping[str, Any]) -> bytes:
    plain = {name: value for name, value in record.items() if name != "signature"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{FORMAT} {record['format_version']}\n{text}".encode()


def _signature(record: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(record["signature"], validate=True)
    except (binascii.Error, ValueError):
        return b""


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES)
        record = json.loads(data)
    except OSError as error:
        raise EvidenceError(f"There is no evidence: {path.name} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{path.name} is not valid JSON, so it is not evidence.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise EvidenceError(f"{path.name} is not evidence: it has other fields.")
    version = record.get("format_version")
    if not isinstance(version, int) or version not in FIELDS_OF:
        raise EvidenceError(f"{path.name} is evidence of format version {shown(version)}; this reads 1 to 3.")
    if {name: type(value) for name, value in record.items()} != FIELDS_OF[version]:
        raise EvidenceError(f"{path.name} is not evidence of format version {version}: it has other fields.")
    return record


def _hash(file: Path) -> tuple[str, int]:
    """The sha256 and size of a file of any length."""
    digest, size = hashlib.sha256(), 0
    with open(file, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
