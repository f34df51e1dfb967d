"""Ed25519 keys: loading, making, and the id by which a key is named."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import EvidenceError, PolicyError
from .public_folders import PublicFolders

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ENVIRONMENT = "SAFETY_STEERING_SIGNING_KEY"
KEY_BYTES = 32


@dataclass(frozen=True, eq=False, repr=False)
class Signer:
    """Signs with one private key. public_key: base64 of its 32 bytes; key_id: first 16 hex digits of their sha256."""

    public_key: str
    key_id: str
    _private: Ed25519PrivateKey

    def sign(self, data: bytes) -> bytes:
        """The signature of `data` (64 bytes)."""
        return self._private.sign(data)


@dataclass(frozen=True, eq=False)
class Verifier:
    """Checks signatures with one public key."""

    key_id: str
    _public: Ed25519PublicKey

    def holds(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` was made with this key for exactly this `data`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def load_signer(environment: Mapping[str, str] = os.environ, public: PublicFolders | None = None) -> Signer:
    """The server's signer, from SAFETY_STEERING_SIGNING_KEY: a private key's 32 bytes as base64, or a PEM file's path.

    Raises:
        PolicyError: the PEM file lies in one of the `public` folders, where clients could read it.
        EvidenceError: the variable is not set or holds no Ed25519 key, or `cryptography` is not installed. The message
            never quotes the variable: it may be a mistyped key.
    """
    text = environment.get(ENVIRONMENT, "")
    if not text:
        raise EvidenceError(
            f"Outputs cannot be signed: {ENVIRONMENT} is not set. Make a key with 'python -m safety_steering keygen', "
            "or set 'sign = false' under [evidence] in the policy."
        )
    ed25519, serialization = _cryptography()
    try:
        if (raw := _raw(text)) is not None:
            return _signer(ed25519.Ed25519PrivateKey.from_private_bytes(raw))
        path = Path(text)
        (public or PublicFolders()).refuse(path, "The signing key")
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except PolicyError:  # a ValueError too
        raise
    except (OSError, TypeError, ValueError, *_unreadable()):
        private = None
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise EvidenceError(
            f"{ENVIRONMENT} holds no Ed25519 private key: expected base64 of {KEY_BYTES} bytes, or the path of a PEM "
            "file without a password."
        )
    return _signer(private)


def new_key_file(path: Path) -> Signer:
    """Make a key and write the private key as PEM to a new file that only its owner can read.

    Raises:
        FileExistsError: the file exists.
        EvidenceError: `cryptography` is not installed.
    """
    ed25519, form = _cryptography()
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return _signer(private)


def load_verifier(key: str) -> Verifier:
    """The verifier of a public key: its 32 bytes as base64, or the path of a PEM file.

    Raises:
        EvidenceError: it is neither, or `cryptography` is not installed.
    """
    ed25519, serialization = _cryptography()
    public: Any = None
    try:
        if (raw := _raw(key)) is not None:
            public = ed25519.Ed25519PublicKey.from_public_bytes(raw)
        else:
            public = serialization.load_pem_public_key(Path(key).read_bytes())
    except (OSError, ValueError, *_unreadable()):
        public = None
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise EvidenceError(
            f"'{key}' is not an Ed25519 public key: expected base64 of {KEY_BYTES} bytes, or the path of a PEM file "
            "with a public key."
        )
    return Verifier(_key_id(public.public_bytes_raw()), public)


def _signer(private: Ed25519PrivateKey) -> Signer:
    public = private.public_key().public_bytes_raw()
    return Signer(base64.b64encode(public).decode(), _key_id(public), private)


def _key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def _raw(text: str) -> bytes | None:
    """`text` decoded from base64 to 32 bytes, or None."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == KEY_BYTES else None


def _unreadable() -> tuple[type[Exception], ...]:
    """What the optional package raises for keys of kinds that it does not know."""
    from cryptography.exceptions import UnsupportedAlgorithm

    return (UnsupportedAlgorithm,)


def _cryptography() -> tuple[Any, Any]:
    """The modules ed25519 and serialization of the optional package."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise EvidenceError(
            "Signing and verifying need the package cryptography. Install it: pip install cryptography"
        ) from error
    return ed25519, serialization
