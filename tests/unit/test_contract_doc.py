"""docs/contract.md links every line of the contract to tests that exist."""

from __future__ import annotations

import ast
import re

import pytest

LINK = re.compile(r"\[`(?P<file>[\w/]+\.py)::(?P<test>test_\w+)`\]\((?P<address>[^)]+)\)")


@pytest.fixture(scope="module")
def contract(repo_root):
    return (repo_root / "docs" / "contract.md").read_text(encoding="utf-8")


def test_every_line_has_a_test(contract):
    sections = re.split(r"^## ", contract, flags=re.MULTILINE)[1:]
    lines = [section for section in sections if section[0].isdigit()]
    assert [int(line.split(".")[0]) for line in lines] == list(range(1, 11))
    assert all(LINK.search(line) for line in lines)


def test_every_linked_test_exists(contract, repo_root):
    links = list(LINK.finditer(contract))
    assert links
    for link in links:
        path = repo_root / "tests" / link["file"]
        assert (repo_root / "docs" / link["address"]).resolve() == path.resolve()
        functions = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert link["test"] in functions, f"{link['file']} has no {link['test']}"


def test_every_contract_test_is_linked(contract, repo_root):
    """A test named after a line of the contract is told about."""
    linked = {link["test"] for link in LINK.finditer(contract)}
    for path in (repo_root / "tests" / "comfy").glob("test_contract*.py"):
        named = set(re.findall(r"^def (test_\d+_\w+)\(", path.read_text(), flags=re.MULTILINE))
        assert named <= linked, f"docs/contract.md misses {sorted(named - linked)} of {path.name}"
