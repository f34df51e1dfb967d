"""The Chinese help pages of the artist's nodes say what the English ones say: same parts, names, links and messages.

The frontend looks for js/docs/<NodeId>/<language>.md first, and resolves pictures against js/docs in either case.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from glossary_zh import lacking_terms

REPO_ROOT = Path(__file__).resolve().parents[2]
PAGES = REPO_ROOT / "js" / "docs"
NODE_ID = re.compile(r'node_id="(SafetySteering_\w+)"')
HEADINGS = {"When to use it": "何时使用", "Inputs": "输入", "Outputs": "输出", "Common mistakes": "常见错误"}
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ENTRY = re.compile(r"^( *)- `([^`]+)`", re.MULTILINE)
LABELLED = re.compile(r"`([a-z_.]+)`（([^）]+)）")
LINK = re.compile(r"\]\(([^)]+)\)")
PICTURE = re.compile(r"!\[([^]]+)\]")
CODE = re.compile(r"`([^`]+)`")
MESSAGE = re.compile(r'\*\*"([^"]+)"')
SAID = re.compile(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)")  # a sentence of the program, as it is
NODE = re.compile(r"(?<!\*)\*\*([^*\"]+)\*\*(?!\*)")
WRAPPED = re.compile(r"(?<=\S)\n *(?=[^\s|#!-])")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH_SENTENCE = re.compile(r"(?:[A-Za-z]+ ){3,}[A-Za-z]+")


def artists_nodes() -> list[str]:
    found = [NODE_ID.findall(path.read_text(encoding="utf-8")) for path in sorted((REPO_ROOT / "nodes").glob("*.py"))]
    return [kind for kinds in found for kind in kinds]


def english(kind: str) -> str:
    return unwrapped((PAGES / f"{kind}.md").read_text(encoding="utf-8"))


def chinese(kind: str) -> str:
    return (PAGES / kind / "zh.md").read_text(encoding="utf-8")


def unwrapped(page: str) -> str:
    """With each paragraph and list entry in one line, so that what a line's end parts is found."""
    return WRAPPED.sub(" ", page)


def nodes(language: str) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    return json.loads((REPO_ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def names() -> dict[str, str]:
    """English name of each node -> its Chinese one."""
    ours = nodes("zh")
    return {node["display_name"]: ours[kind]["display_name"] for kind, node in nodes("en").items()}


def test_every_artists_node_has_a_page_and_no_page_is_for_nothing() -> None:
    assert len(artists_nodes()) >= 12
    pages = {path.parent.name for path in PAGES.glob("*/zh.md")}
    assert set(artists_nodes()) <= pages <= set(nodes("en"))


@pytest.mark.parametrize("kind", artists_nodes())
def test_a_page_has_the_same_parts_names_links_and_messages(kind: str) -> None:
    ours, theirs = chinese(kind), english(kind)
    assert HEADING.findall(ours) == [HEADINGS[heading] for heading in HEADING.findall(theirs)]
    assert ENTRY.findall(ours) == ENTRY.findall(theirs)
    assert LINK.findall(ours) == LINK.findall(theirs)
    assert [row.count("|") for row in ours.splitlines() if "|" in row] == [
        row.count("|") for row in theirs.splitlines() if "|" in row
    ]
    assert MESSAGE.findall(ours) == MESSAGE.findall(theirs)
    assert SAID.findall(ours) == SAID.findall(theirs)
    assert set(CODE.findall(ours)) == set(CODE.findall(theirs))
    assert ours.count("\n- **") == theirs.count("\n- **")


@pytest.mark.parametrize("kind", artists_nodes())
def test_a_page_calls_things_as_the_node_does(kind: str) -> None:
    node, labels = nodes("zh")[kind], {}
    for part in ("outputs", "inputs"):
        originals = nodes("en")[kind][part]
        for key, entry in node[part].items():
            labels[key.replace("_", "") if part == "inputs" else originals[key]["name"]] = entry["name"]
    page = chinese(kind)
    for name, label in LABELLED.findall(page):
        known = labels.get(name.replace(".", "").replace("_", ""), labels.get(name))
        assert known in (label, None), (name, label, known)
    for _, name in ENTRY.findall(page):
        assert f"`{name}`（" in page, name
    (picture,) = PICTURE.findall(page)
    assert picture.startswith(node["display_name"])


@pytest.mark.parametrize("kind", artists_nodes())
def test_a_page_names_the_same_nodes(kind: str) -> None:
    known = names()
    theirs = Counter(known[name] for name in NODE.findall(english(kind)) if name in known)
    ours = Counter(name for name in NODE.findall(chinese(kind)) if name in known.values())
    assert theirs == ours


@pytest.mark.parametrize("kind", artists_nodes())
def test_a_page_is_in_chinese_and_has_one_word_a_thing(kind: str) -> None:
    page, theirs = chinese(kind), english(kind)
    for name in names():
        theirs = theirs.replace(name, "")
    for ours in (CODE, MESSAGE, SAID):
        page = ours.sub("", page)
    assert ENGLISH_SENTENCE.findall(page) == []
    assert [line for line in page.splitlines() if re.search(r"[\u4e00-\u9fff][,;:?!]", line)] == []
    prose = [block for block in page.split("\n\n") if re.search(r"\w", block)]
    assert [block for block in prose if not CHINESE.search(block)] == []
    assert lacking_terms(SAID.sub("", CODE.sub("", theirs)), page) == []
    assert not WRAPPED.search(chinese(kind))  # a line's end is drawn as a gap between the characters
