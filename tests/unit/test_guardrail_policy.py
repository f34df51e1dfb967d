"""A host's policy: what it says is what is enforced, and what cannot be meant is refused in one sentence."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_files import rule, vector, write_policy
from safety_steering_pack.guardrail.errors import PolicyError
from safety_steering_pack.guardrail.policy import ModelIdentity, doubts, find_policy, load_policy
from safety_steering_pack.guardrail.policy_settings import parse_policy
from safety_steering_pack.guardrail.public_folders import PublicFolders
from safety_steering_pack.safety_steering.files import file_sha256
from safety_steering_pack.safety_steering.steering.interventions import Intervention
from safety_steering_pack.safety_steering.vectors.detector import Detectors, make_detector
from safety_steering_pack.safety_steering.vectors.file import save_vector
from safety_steering_pack.safety_steering.vectors.vector import CALIBRATED, Suggestion
from tiny.vectors import random_vector

WAN = ModelIdentity("wan", frozenset({"umt5xxl.last", "wan2.1-1.3b/block.blocks.2.image"}), "0123456789abcdef")
A, B = "a" * 64, "b" * 64


def refusal(path, public=None) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy(path, public)
    message = str(caught.value)
    assert str(path.parent) not in message  # clients are shown it
    return message


def test_a_policy_carries_its_vectors_ready_to_use(tmp_path):
    how = "mix='violence=1, sexual=0.5'\nstrength=2\nintervention='add'\nnorm='none'\ngate='token'\nthreshold=0"
    path = write_policy(tmp_path, rules=rule(tmp_path, more=how))
    policy = load_policy(path)
    [loaded] = policy.rules
    assert policy.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert dict(loaded.vector.mix) == {"violence": 1.0, "sexual": 0.5}
    assert loaded.vector.sha256 == vector().sha256
    assert (loaded.settings.strength, loaded.hook_points, loaded.name) == (2.0, ("conditioning",), "rule 1")
    assert loaded.intervention == Intervention("add", "none", "token", 0.0)


def test_a_rule_inside_the_text_encoder_cannot_wait_for_what_comes_behind_it(tmp_path):
    spaces = {"encoder.2": ("umt5xxl/encoder.2", 8)}
    made = random_vector(spaces, categories=("violence",))
    detector = make_detector(torch.ones(8), torch.randn(20, 8, generator=torch.Generator().manual_seed(0)))
    found = Detectors("conditioning", "umt5xxl.last", {"violence": detector}, benign=20)
    save_vector(replace(made, detectors=found), tmp_path / "inside.safetensors")
    path = write_policy(tmp_path, rules=rule(tmp_path, file="inside.safetensors", more="gate='prompt'\nstrength=6"))
    assert "the gate prompt is decided behind the text encoder, and the rule steers inside it" in refusal(path)
    path = write_policy(tmp_path, rules=rule(tmp_path, file="inside.safetensors", more="gate='pooled'\nstrength=6"))
    assert load_policy(path).rules[0].hook_points == ("encoder.2",)


def test_left_out_everything_is_on_the_safe_side(tmp_path):
    policy = load_policy(write_policy(tmp_path))
    decided = policy.settings
    assert (decided.without_rule, decided.unsampled, decided.evidence.sign) == ("refuse", "refuse", True)
    assert not any(permitted for _, permitted in decided.permits)
    assert decided.audit.log_prompt_text is False
    assert policy.audit_folder == tmp_path / "audit"
    assert policy.rules[0].intervention.kind == "clamp"


def test_nothing_of_a_policy_can_be_changed(tmp_path):
    policy = load_policy(write_policy(tmp_path))
    with pytest.raises(FrozenInstanceError):
        policy.rules = ()
    with pytest.raises(ValueError, match="frozen"):
        policy.settings.permits.negative_strength = True
    with pytest.raises(TypeError):
        policy.rules[0].vector.mix["violence"] = -1


def test_a_rule_steers_as_its_vector_recommends_unless_it_is_set_by_hand(tmp_path):
    where = {"hook_points": ("conditioning",), "strengths": {"conditioning": 3.0}}
    suggestion = Suggestion(5.0, **where, intervention="ablate", norm="none", gate="off", basis=CALIBRATED)
    made = vector()
    save_vector(made.with_info(suggestion=suggestion), tmp_path / "wan.safetensors")
    [plain] = load_policy(write_policy(tmp_path)).rules
    assert (plain.intervention, plain.hook_points) == (Intervention("ablate", "none", "off", 0.0), ("conditioning",))
    assert (plain.strength, plain.strengths["conditioning"], plain.level, plain.basis) == (5, 3, 1, CALIBRATED)
    assert doubts(plain) == []
    [twice] = load_policy(write_policy(tmp_path, rules=rule(tmp_path, more="level = 2.0"))).rules
    assert (twice.strength, twice.strengths["conditioning"]) == (10, 6)
    [by_hand] = load_policy(write_policy(tmp_path, rules=rule(tmp_path, more='strength = 2.0\ngate = "token"'))).rules
    assert (by_hand.strength, by_hand.level, by_hand.intervention.kind) == (2, None, "clamp")
    assert ["lower" in doubts(by_hand)[0], "opens less often" in doubts(by_hand)[1]] == [True, True]
    for both in ('settings = "recommended"\nstrength = 2.0', "level = 1.5\nstrength = 2.0"):
        assert "recommended settings" in refusal(write_policy(tmp_path, rules=rule(tmp_path, more=both)))


def test_every_rule_that_matches_applies_in_the_files_order(tmp_path):
    matches = ['space = "umt5xxl.last"', 'family = "flux"', 'fingerprint = "0123456789abcdef"', 'family = "wan"']
    path = write_policy(
        tmp_path, rules="\n".join(rule(tmp_path, match=match, more=f"name = '{match}'") for match in matches)
    )
    policy = load_policy(path)
    assert [found.name for found in policy.rules_for(WAN)] == [matches[0], matches[2], matches[3]]
    assert [found.name for found in policy.rules_for(replace(WAN, family="sd3"))] == [matches[0], matches[2]]
    assert policy.rules_for(ModelIdentity("", frozenset(), "")) == ()


def test_lists_absent_empty_and_filled(tmp_path):
    free, none = (
        load_policy(write_policy(tmp_path)),
        load_policy(write_policy(tmp_path, tables="[allow]\nnodes=[]\nloras=[]")),
    )
    assert (free.allows_node("KSampler"), free.allows_lora(A)) == (True, True)
    assert (none.allows_node("KSampler"), none.allows_lora(A)) == (False, False)
    some = load_policy(write_policy(tmp_path, tables=f'[allow]\nnodes=["KSampler"]\nloras=["{A}"]\nvectors=["{A}"]'))
    assert (some.allows_node("KSampler"), some.allows_node("KSamplerAdvanced")) == (True, False)
    assert (some.allows_lora(A), some.allows_lora(B)) == (True, False)
    of_the_rule = some.rules[0].settings.sha256
    assert [some.allows_vector(sha256) for sha256 in (A, B, of_the_rule)] == [True, False, True]
    assert [free.allows_vector(sha256) for sha256 in (A, of_the_rule)] == [False, True]
    assert load_policy(write_policy(tmp_path, tables="[permits]\nunlisted_vectors=true")).allows_vector(B)


@pytest.mark.parametrize(
    ("top", "more", "tables", "told"),
    [
        ("without_role = 'flag'", "", "", "without_role: there is no such key"),
        ("without_rule = 'allow'", "", "", "without_rule: input should be 'refuse' or 'flag'"),
        ("version = 2", "", "", "is not valid TOML"),
        ("", "strenght = 1", "", "rules 1, strenght: there is no such key"),
        ("", "window = [0, 0.5]", "", "rules 1, window: there is no such key"),
        ("", "branch = 'positive'", "", "rules 1, branch: there is no such key"),
        ("", "strength = -1", "", "rules 1, strength: input should be greater than 0"),
        ("", "strength = 0", "", "rules 1, strength: input should be greater than 0"),
        ("", "strength = inf", "", "rules 1, strength: input should be a finite number"),
        ("", "strength = nan", "", "rules 1, strength: input should be a finite number"),
        ("", "strength = '1'", "", "rules 1, strength: input should be a valid number"),
        ("", "strength = true", "", "rules 1, strength: input should be a valid number"),
        ("", "intervention = 'push'", "", "rules 1, intervention: input should be 'add', 'ablate' or 'clamp'"),
        ("", "mix = 'violence'", "", "does not read as category=number"),
        ("", "mix = 'violence=-1, sexual=1'", "", "needs a weight above 0 and none below"),
        ("", "mix = 'violence=0, sexual=0'", "", "needs a weight above 0 and none below"),
        ("", "mix = 'cruelty=1'", "", "which this vector lacks"),
        ("", "hook_points = 'block.blocks.9.image'", "", "no hook point 'block.blocks.9.image'"),
        ("", "", "[permits]\napi_nodes = 1", "permits, api_nodes: input should be a valid boolean"),
        ("", "", "[allow]\nloras = ['cat.safetensors']", "allow, loras 1: string should match"),
        ("", "", "[output_gate]\nmode = 'notice'", "output_gate: a gate that is not off needs a judge"),
        ("", "", "[status]\ntoken_environment = 'a token'", "status, token_environment: string should match"),
        ("", "", "[audit]\nrotate_megabytes = 0", "audit, rotate_megabytes: input should be greater than 0"),
        ("", "", "[steering]\nstrength = 1", "steering: there is no such key"),
        ("", "[[", "", "is not valid TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, top, more, tables, told):
    assert told in refusal(write_policy(tmp_path, top=top, rules=rule(tmp_path, more=more), tables=tables))


@pytest.mark.parametrize(
    "match", ["", 'family = "wan", space = "x"', 'family = ""', 'fingerprint = "12"', 'model = "x"']
)
def test_a_rule_is_for_exactly_one_thing(tmp_path, match):
    assert "rules 1, match" in refusal(write_policy(tmp_path, rules=rule(tmp_path, match=match)))


def test_a_missing_version_or_missing_rules_are_named(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text("without_rule = 'flag'")
    assert "version: field required; rules: field required" in refusal(path)


def test_a_file_that_is_no_policy_at_all(tmp_path):
    path = tmp_path / "policy.toml"
    assert "cannot be read: No such file" in refusal(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not valid TOML" in refusal(path)
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    assert "more than 1048576 bytes" in refusal(path)


@given(st.binary(max_size=200) | st.text("[]{}=\"'.,#\n abv1", max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_a_policy_error(data):
    with suppress(PolicyError):
        parse_policy(data)


def test_another_vector_under_the_same_name_is_refused(tmp_path):
    path = write_policy(tmp_path)
    save_vector(vector(seed=1), tmp_path / "wan.safetensors")
    found = file_sha256(tmp_path / "wan.safetensors")
    assert f"the vector wan.safetensors has the sha256 {found}, the policy names" in refusal(path)


def test_a_missing_or_damaged_vector_is_refused(tmp_path):
    path = write_policy(tmp_path)
    (tmp_path / "wan.safetensors").unlink()
    assert "rule 1: the vector wan.safetensors cannot be read: No such file" in refusal(path)
    (tmp_path / "wan.safetensors").mkdir()
    assert "rule 1: the vector wan.safetensors cannot be read: Is a directory" in refusal(path)
    (tmp_path / "wan.safetensors").rmdir()
    whole = path.read_text()
    path.write_text(whole.replace("wan.safetensors", "wan\\u0000"))
    assert (told := refusal(path)).startswith("The policy policy.toml: rule 1: ")
    assert "embedded null" in told
    path.write_text(whole)
    (tmp_path / "wan.safetensors").write_bytes(b"no vector")
    path = write_policy(tmp_path, rules=rule(tmp_path))
    assert "not a whole safetensors file" in refusal(path)


def test_a_source_vector_is_refused(tmp_path):
    save_vector(vector().with_info(kind="source"), tmp_path / "source.safetensors")
    assert "a source vector" in refusal(write_policy(tmp_path, rules=rule(tmp_path, file="source.safetensors")))


def test_a_vector_that_would_move_nothing_is_refused(tmp_path):
    save_vector(vector(gap=0.0), tmp_path / "still.safetensors")
    still = rule(tmp_path, file="still.safetensors", more="intervention = 'add'")
    assert "the gap of 'violence' is 0, so that 'add' moves nothing" in refusal(write_policy(tmp_path, rules=still))
    assert load_policy(write_policy(tmp_path, rules=still.replace("'add'", "'clamp'")))


def test_a_vectors_own_mix_must_steer_to_the_safe_side_too(tmp_path):
    suggestion = replace(vector().info.suggestion, mix={"violence": -1.0})
    save_vector(vector().with_info(suggestion=suggestion), tmp_path / "turned.safetensors")
    assert "needs a weight above 0" in refusal(write_policy(tmp_path, rules=rule(tmp_path, file="turned.safetensors")))


class TestPublicFolders:
    """Nothing that decides safety may lie where clients can write."""

    @pytest.fixture
    def public(self, tmp_path):
        for name in ("input", "user/default", "user/__safety_steering", "private"):
            (tmp_path / name).mkdir(parents=True)
        return PublicFolders((tmp_path / "input",), users=tmp_path / "user")

    @pytest.mark.parametrize(
        "folder", ["input", "input/deep/er", "user/default", "user/a_new_user", "private/../input", "user"]
    )
    def test_a_policy_there_is_refused(self, tmp_path, public, folder):
        assert "where clients can write over HTTP" in refusal(write_policy(tmp_path / folder), public)

    @pytest.mark.parametrize("folder", ["private", "user/__safety_steering", "user/__safety_steering/default"])
    def test_a_policy_elsewhere_is_not(self, tmp_path, public, folder):
        assert load_policy(write_policy(tmp_path / folder), public).rules

    @pytest.mark.parametrize("linked", ["policy.toml", "wan.safetensors", "audit"])
    def test_a_link_into_a_public_folder_is_followed(self, tmp_path, public, linked):
        path = write_policy(tmp_path / "private")
        hidden = tmp_path / "input" / "innocent"
        if linked == "audit":
            hidden.mkdir()
        else:
            (tmp_path / "private" / linked).rename(hidden)
        (tmp_path / "private" / linked).symlink_to(hidden)
        assert "lies in the folder 'input'" in refusal(path, public)

    def test_a_link_that_clients_could_replace_is_refused(self, tmp_path, public):
        write_policy(tmp_path / "private")
        link = tmp_path / "user" / "default" / "policy.toml"
        link.symlink_to(tmp_path / "private" / "policy.toml")
        assert "where clients can write over HTTP" in refusal(link, public)

    def test_a_vector_in_a_public_folder_is_refused(self, tmp_path, public):
        save_vector(vector(), tmp_path / "input" / "wan.safetensors")
        text = rule(tmp_path / "input").replace('"wan.safe', '"../input/wan.safe')
        told = refusal(write_policy(tmp_path / "private", rules=text), public)
        assert "rule 1: The vector wan.safetensors lies in the folder 'input'" in told

    def test_an_audit_log_in_a_public_folder_is_refused(self, tmp_path, public):
        tables = f'[audit]\nfolder = "{tmp_path}/input/audit"'
        assert "Its audit folder lies in" in refusal(write_policy(tmp_path / "private", tables=tables), public)


def test_servers_that_share_a_policy_have_audit_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVER", "gpu-1")
    path = write_policy(tmp_path, tables="[audit]\nfolder = 'audit/${SERVER}'")
    assert load_policy(path).audit_folder == tmp_path / "audit" / "gpu-1"
    monkeypatch.delenv("SERVER")
    assert "names a variable that is not set" in refusal(path)


def test_where_a_policy_is_looked_for(tmp_path):
    assert find_policy(tmp_path, {}) is None
    inside = write_policy(tmp_path)
    assert find_policy(tmp_path, {}) == inside
    missing = tmp_path / "elsewhere.toml"  # named and missing must not mean: not guarded
    assert find_policy(tmp_path, {"SAFETY_STEERING_POLICY": str(missing)}) == missing
    assert find_policy(tmp_path, {"SAFETY_STEERING_POLICY": ""}) == inside


@pytest.mark.parametrize("version", ["true", "1.0", '"1"', "2"])
def test_only_the_whole_number_1_is_a_version(tmp_path, version):
    path = write_policy(tmp_path)
    path.write_text(path.read_text().replace("version = 1\n", f"version = {version}\n"))
    assert "version" in refusal(path)
