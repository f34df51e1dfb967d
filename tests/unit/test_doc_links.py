"""The documents' links and pictures lead somewhere, and what CONTRIBUTING.md quotes is what the code says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from doc_snippets import documents

LINK = re.compile(r"(?:!?\[[^\]]*\]\(|<img src=\")([^)\s\"]+)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
REPO_ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPO_ROOT / name for name in documents()]
HELP_PAGES = REPO_ROOT / "js" / "docs"  # the frontend resolves their pictures against it, in any language


def anchors(text: str) -> set[str]:
    """The anchors that a forge gives a document's headings."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in HEADING.findall(text)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(REPO_ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    folder = HELP_PAGES if HELP_PAGES in path.parents else path.parent
    for address in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", address):
            continue
        file, _, anchor = address.partition("#")
        target = (folder / file).resolve() if file else path
        assert target.exists(), f"{path.name}: {address}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{path.name}: {address}"


def test_the_documents_that_readers_begin_with_are_checked() -> None:
    names = {path.relative_to(REPO_ROOT).as_posix() for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "docs/contract.md", "vectors/README.md"} <= names


def test_the_model_row_in_contributing_is_a_real_one() -> None:
    (row,) = re.findall(r"```python\n(.+?)```", (REPO_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert textwrap.indent(row.rstrip(), "    ") in (
        REPO_ROOT / "bridge" / "models" / "families" / "video.py"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((REPO_ROOT / "js" / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_help_pages_link_to_the_glossary(path: Path) -> None:
    (repository,) = re.findall(r'^Repository = "(.+)"', (REPO_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    addresses = [address for address in LINK.findall(path.read_text(encoding="utf-8")) if "://" in address]
    assert addresses == [f"{repository}/blob/main/docs/glossary.md"]
    assert (REPO_ROOT / "docs" / "glossary.md").exists()


def test_the_paths_that_contributing_names_exist() -> None:
    paths = re.findall(r"`([\w.]+/[\w./]*)`", (REPO_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(paths) > 30
    assert [path for path in paths if not (REPO_ROOT / path).exists()] == []
