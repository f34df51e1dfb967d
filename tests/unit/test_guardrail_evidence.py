"""Evidence: it holds for the file it was made for, and for nothing else."""

from __future__ import annotations

import base64
import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safety_steering_pack.guardrail.errors import EvidenceError, PolicyError
from safety_steering_pack.guardrail.evidence import FIELDS_1, Statement, sidecar_of, sign_file, verify_file
from safety_steering_pack.guardrail.keys import ENVIRONMENT, Signer, load_signer, load_verifier, new_key_file
from safety_steering_pack.guardrail.public_folders import PublicFolders

STATEMENT = Statement("prompt", "0" * 64, ("1" * 64, "2" * 64), "steered", "delivered")


@pytest.fixture(scope="module")
def signer(tmp_path_factory) -> Signer:
    return new_key_file(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture
def signed(tmp_path, signer):
    file = tmp_path / "video_00001_.webm"
    file.write_bytes(bytes(range(256)) * 8192)  # 2 MiB: more than one chunk
    sign_file(file, STATEMENT, signer)
    return file


def refusal(file, *trusted) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify_file(file, trusted)
    return str(caught.value)


def test_what_was_signed_is_what_is_read(signed, signer):
    record = verify_file(signed, [signer.public_key])
    assert record == json.loads(sidecar_of(signed).read_text())
    assert (record["file"], record["file_bytes"], record["key_id"]) == (signed.name, 256 * 8192, signer.key_id)
    told = (
        record["prompt_id"],
        record["policy_sha256"],
        tuple(record["vectors"]),
        record["verdict"],
        record["decision"],
    )
    assert Statement(*told) == STATEMENT


def test_anybody_can_check_it_without_this_pack(signed, signer):
    """As docs/hosting.md describes the format, with nothing of ours."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    record = json.loads(signed.with_name(signed.name + ".safety.json").read_text())
    signature = base64.b64decode(record.pop("signature"))
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(signer.public_key))
    public.verify(signature, b"safety_steering_evidence 2\n" + text.encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(place=st.integers(0, 256 * 8192 - 1), flip=st.integers(1, 255))
def test_a_file_altered_anywhere_is_refused(signed, signer, place, flip):
    data = bytearray(signed.read_bytes())
    data[place] ^= flip
    altered = signed.with_name("altered.webm")
    altered.write_bytes(data)
    with pytest.raises(EvidenceError, match="not the file that was signed"):
        verify_file(altered, [signer.public_key], sidecar_of(signed))


@pytest.mark.parametrize("change", [lambda data: data + b"\0", lambda data: data[:-1], lambda data: b""])
def test_a_longer_or_shorter_file_is_refused(signed, signer, change):
    signed.write_bytes(change(signed.read_bytes()))
    assert "not the file that was signed" in refusal(signed, signer.public_key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_id", "another"),
        ("policy_sha256", "f" * 64),
        ("vectors", []),
        ("verdict", "contains other content"),
        ("share", 0.5),
        ("client_inputs", ["3 (LoadImage)"]),
        ("decision", "replaced"),
        ("time", "2000-01-01T00:00:00.000Z"),
        ("file", "another.webm"),
        ("file_bytes", 1),
        ("signature", base64.b64encode(bytes(64)).decode()),
        ("signature", "no base64"),
        ("signature", ""),
    ],
)
def test_an_altered_record_is_refused(signed, signer, field, value):
    sidecar = sidecar_of(signed)
    record = json.loads(sidecar.read_text())
    assert record[field] != value
    sidecar.write_text(json.dumps({**record, field: value}))
    assert "the record was altered, or the signature is another file's" in refusal(signed, signer.public_key)


def test_a_record_altered_to_fit_another_file_is_refused(signed, signer):
    """The attack that matters: take a steered file's evidence, and write an unsteered file's hash into it."""
    import hashlib

    signed.write_bytes(b"unsteered")
    record = json.loads(sidecar_of(signed).read_text())
    record |= {"file_sha256": hashlib.sha256(b"unsteered").hexdigest(), "file_bytes": 9}
    sidecar_of(signed).write_text(json.dumps(record))
    assert "the record was altered" in refusal(signed, signer.public_key)


@pytest.mark.parametrize("what", ["record", "signature"])
def test_evidence_transplanted_from_another_file_is_refused(signed, signer, what):
    other = signed.with_name("other.webm")
    other.write_bytes(b"other")
    sign_file(other, STATEMENT, signer)
    stolen, own = (json.loads(sidecar_of(file).read_text()) for file in (signed, other))
    own = stolen if what == "record" else {**own, "signature": stolen["signature"]}
    sidecar_of(other).write_text(json.dumps(own))
    expected = "not the file that was signed" if what == "record" else "the signature is another file's"
    assert expected in refusal(other, signer.public_key)


def test_an_unknown_key_is_refused_by_name(signed, signer, tmp_path):
    stranger = new_key_file(tmp_path / "stranger.pem")
    assert f"signed with the key {signer.key_id}, which is not among those trusted" in refusal(
        signed, stranger.public_key
    )
    assert verify_file(signed, [stranger.public_key, signer.public_key])  # a new key beside the old one
    claimed = json.loads(sidecar_of(signed).read_text()) | {"key_id": stranger.key_id}
    sidecar_of(signed).write_text(json.dumps(claimed))
    assert "does not fit its record" in refusal(signed, stranger.public_key)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "safety_steering_evidence"}', "\xff", "[" * 100_000, "null", '{"signature": 1}'],
)
def test_a_sidecar_that_is_none_is_refused(signed, signer, content):
    sidecar_of(signed).write_text(content)
    assert "evidence" in refusal(signed, signer.public_key)


def test_missing_evidence_and_a_missing_file_are_told_apart(signed, signer):
    kept = sidecar_of(signed).rename(signed.with_name("kept.json"))
    assert "There is no evidence" in refusal(signed, signer.public_key)
    kept.rename(sidecar_of(signed))
    signed.unlink()
    assert "is missing; only its evidence is here" in refusal(signed, signer.public_key)


def test_what_cannot_be_signed_is_said(tmp_path, signer):
    with pytest.raises(EvidenceError, match=r"The evidence of gone\.png cannot be written"):
        sign_file(tmp_path / "gone.png", STATEMENT, signer)


class TestKeys:
    def test_a_key_comes_from_a_pem_file_or_as_base64(self, tmp_path):
        made = new_key_file(tmp_path / "key.pem")
        assert load_signer({ENVIRONMENT: str(tmp_path / "key.pem")}).public_key == made.public_key
        raw = base64.b64encode(made._private.private_bytes_raw()).decode()
        assert load_signer({ENVIRONMENT: raw}).key_id == made.key_id

    def test_a_private_key_is_its_owners_and_is_never_overwritten(self, tmp_path):
        path = tmp_path / "key.pem"
        new_key_file(path)
        if os.name == "posix":
            assert path.stat().st_mode & 0o777 == 0o600
        before = path.read_bytes()
        with pytest.raises(FileExistsError):
            new_key_file(path)
        assert path.read_bytes() == before

    def test_a_public_key_comes_from_a_pem_file_or_as_base64(self, tmp_path, signer):
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        pem = signer._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "public.pem").write_bytes(pem)
        assert load_verifier(str(tmp_path / "public.pem")).key_id == load_verifier(signer.public_key).key_id

    @pytest.mark.parametrize("key", ["", "x", base64.b64encode(bytes(31)).decode(), "missing.pem", "\0"])
    def test_no_public_key(self, key):
        with pytest.raises(EvidenceError, match="is not an Ed25519 public key"):
            load_verifier(key)

    def test_without_a_key_it_says_how_to_make_one(self):
        with pytest.raises(EvidenceError, match="python -m safety_steering keygen"):
            load_signer({})

    def test_a_wrong_key_is_refused_and_never_repeated(self, tmp_path):
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        other = tmp_path / "x25519.pem"
        other.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        mistyped = base64.b64encode(b"secret" * 5).decode()
        for value in (str(other), mistyped, "/no/such/key.pem", "\0", str(tmp_path)):
            with pytest.raises(EvidenceError, match="holds no Ed25519 private key") as caught:
                load_signer({ENVIRONMENT: value})
            assert value not in str(caught.value)
            assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nor in a traceback

    def test_a_key_that_clients_could_read_is_refused(self, tmp_path):
        new_key_file(tmp_path / "key.pem")
        environment = {ENVIRONMENT: str(tmp_path / "key.pem")}
        with pytest.raises(PolicyError, match="The signing key lies in the folder"):
            load_signer(environment, PublicFolders((tmp_path,)))
        assert load_signer(environment, PublicFolders((tmp_path / "elsewhere",)))

    def test_a_signer_does_not_show_its_key(self, signer):
        raw = signer._private.private_bytes_raw()
        assert raw.hex() not in repr(signer)
        assert base64.b64encode(raw).decode() not in repr(signer)

    def test_without_cryptography_it_says_what_to_install(self, monkeypatch, signer):
        monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
        for ask in (lambda: load_signer({ENVIRONMENT: "x"}), lambda: load_verifier(signer.public_key)):
            with pytest.raises(EvidenceError, match="pip install cryptography"):
                ask()


def test_evidence_of_the_first_format_is_still_read(tmp_path, signer):
    """Records that were signed before shares and inputs of the client were in them."""
    file = tmp_path / "old.png"
    file.write_bytes(b"a picture of last year")
    record = sign_file(file, STATEMENT, signer)
    old = {name: value for name, value in record.items() if name in FIELDS_1} | {"format_version": 1}
    del old["signature"]
    text = json.dumps(old, sort_keys=True, separators=(",", ":"))
    signature = signer.sign(b"safety_steering_evidence 1\n" + text.encode())
    sidecar_of(file).write_text(json.dumps(old | {"signature": base64.b64encode(signature).decode()}))
    assert verify_file(file, [signer.public_key])["format_version"] == 1
    sidecar_of(file).write_text(json.dumps(record | {"format_version": 4}))
    assert "format version 4; this reads 1 to 3" in refusal(file, signer.public_key)


UNKNOWN_KIND = """-----BEGIN PRIVATE KEY-----
MCUCAQAwDQYJKoZIhvcNAQkBBQAEEQQPbm90IGEga2V5IGF0IGFsbA==
-----END PRIVATE KEY-----
"""


def test_a_key_of_an_unknown_kind_is_named(tmp_path):
    (tmp_path / "key.pem").write_text(UNKNOWN_KIND)
    with pytest.raises(EvidenceError, match="holds no Ed25519 private key"):
        load_signer({ENVIRONMENT: str(tmp_path / "key.pem")})
    (tmp_path / "key.pem").write_text(UNKNOWN_KIND.replace("PRIVATE", "PUBLIC"))
    with pytest.raises(EvidenceError, match="is not an Ed25519 public key"):
        load_verifier(str(tmp_path / "key.pem"))
