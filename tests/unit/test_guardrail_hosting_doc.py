"""docs/hosting.md is the operator's only guide: every key is in it with its default, and its examples work."""

from __future__ import annotations

import json
import re
import typing

import pytest
from policy_files import rule
from pydantic import BaseModel
from safety_steering_pack.guardrail.evidence import FIELDS
from safety_steering_pack.guardrail.job_record import DECISIONS, VERDICTS, JobRecord
from safety_steering_pack.guardrail.metrics import COUNTERS
from safety_steering_pack.guardrail.policy import load_policy
from safety_steering_pack.guardrail.policy_settings import PolicySettings


@pytest.fixture(scope="module")
def guide(repo_root) -> str:
    return (repo_root / "docs" / "hosting.md").read_text(encoding="utf-8")


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and every model among its fields."""
    found = [model]
    for field in model.model_fields.values():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += sections(kind)
    return found


def test_every_key_is_listed_with_its_default(guide):
    keys = [(section, *item) for section in sections(PolicySettings) for item in section.model_fields.items()]
    assert len(keys) > 30
    rows = [line for line in guide.splitlines() if line.startswith("|")]
    for section, name, field in keys:
        if name == "match" or section.__name__ == "Match" or isinstance(field.default, BaseModel):
            assert name in guide
            continue
        listed = [row for row in rows if re.search(rf"`(\w+\.)?{name}`", row.split("|")[1])]
        assert listed or name == "rules", f"{section.__name__}.{name} is not in docs/hosting.md"
        if section.__name__ != "Permits" and isinstance(field.default, str | int | float) and field.default != "":
            assert any(f"`{json.dumps(field.default)}`" in row for row in listed), f"{name} = {field.default}"


def test_the_first_policy_works(guide, tmp_path):
    text = re.search(r"```toml\n(.*?)```", guide, re.DOTALL)[1]
    sha256 = re.search('sha256 = "(.*)"', rule(tmp_path))[1]
    (tmp_path / "policy.toml").write_text(re.sub("^   ", "", text, flags=re.MULTILINE).replace("0" * 64, sha256))
    [loaded] = load_policy(tmp_path / "policy.toml").rules
    assert loaded.name == "wan"


def test_every_field_word_and_counter_is_explained(guide):
    evidence, audit = guide.split("## Evidence")[1].split("## The audit log")
    assert all(f"`{name}`" in evidence for name in FIELDS if not name.startswith("format"))
    assert all(f"`{name}`" in audit for name in JobRecord.__dataclass_fields__)
    assert all(f"`{word}`" in audit for word in (*VERDICTS, *DECISIONS))
    assert all(f"_{name}_total`" in guide for name in COUNTERS)


def test_start_commands_name_the_packs_folder_as_every_installer_does(repo_root):
    """git's name and the registry's; a pack under another name is skipped, and nobody is guarded."""
    project = re.search(r'^name = "(.+)"', (repo_root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    for name in ("README.md", "docs/hosting.md"):
        text = (repo_root / name).read_text(encoding="utf-8")
        (command,) = re.findall(r"^ *python main.py .*--whitelist-custom-nodes ([^\n]+)", text, re.MULTILINE)
        assert command.split()[:2] == ["ComfyUI-Safety-Steering", project]
        assert "/safety_steering/status | grep -q '\"serving\": true'" in text
