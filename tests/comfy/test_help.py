"""No node, input or output lacks its help: tooltip, words to find it by, help page, picture, locale."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import locales

REPO_ROOT = Path(__file__).resolve().parents[2]
PAGES = REPO_ROOT / "js" / "docs"
SECTIONS = ["When to use it", "Inputs", "Outputs", "Common mistakes"]
LARGEST, LARGEST_SUM = 60_000, 1_000_000  # bytes of a picture, and of all
ENTRY = re.compile(r"^ *- `([^`]+)`: (\S.+)", re.MULTILINE)
PICTURE = re.compile(r"!\[([^]]+)\]\(([^)]+)\)")
QUOTED_ERROR = re.compile(r'\*\*"([^"]+)"')
SNAKE_CASE = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
OF_ALL, OF_FIRST = (
    {"safety", "steering"},
    {"nsfw", "guardrail", "censor", "safe", "block unsafe", "moderation", "filter"},
)
FIRST = {f"SafetySteering_{name}" for name in ("ApplySafetySteering", "LoadSafetyVector", "CategoryMixer")}


@pytest.fixture(scope="module")
def nodes(comfy_in_process) -> dict[str, Any]:
    with ThreadPoolExecutor(1) as pool:  # in this thread Playwright may have an event loop running
        return pool.submit(locales.definitions).result()


def page_of(kind: str) -> str:
    return (PAGES / f"{kind}.md").read_text(encoding="utf-8")


def sections_of(page: str) -> dict[str, str]:
    """Heading -> text below it; what stands above the first heading is under an empty one."""
    return dict(zip(*[iter(["", *re.split(r"^## (.+)\n", page, flags=re.MULTILINE)])] * 2, strict=True))


def test_every_node_has_a_description_and_the_words_that_people_type(nodes):
    for kind, node in nodes.items():
        assert node["description"], kind
        words = set(node["search_aliases"])
        assert words >= (OF_ALL | OF_FIRST if kind in FIRST else OF_ALL), kind
        assert len(node["search_aliases"]) == len(words), kind


def test_every_input_and_output_has_a_tooltip(nodes):
    for kind, node in nodes.items():
        inputs = locales.inputs_of(node["input"])
        assert [name for name, tooltip in inputs.items() if not tooltip.strip()] == [], kind
        assert all(node["output_tooltips"]), kind
        assert len(node["output_tooltips"]) == len(node["output_name"]), kind
    assert "gate.threshold" in locales.inputs_of(nodes["SafetySteering_ApplySafetySteering"]["input"])


def test_every_node_has_a_page_and_every_page_a_node(nodes):
    assert {path.stem for path in PAGES.glob("*.md")} == set(nodes)


def test_every_page_says_what_when_and_what_goes_wrong(nodes):
    for kind in nodes:
        sections = sections_of(page_of(kind))
        assert list(sections) == ["", *SECTIONS], kind
        assert all(text.strip() for text in sections.values()), kind
        lead = sections[""].strip().split("\n\n")[0]
        assert lead.endswith("."), kind
        assert sections["Common mistakes"].count("\n- **") >= 2, kind


def test_every_page_names_each_input_and_output_once_and_no_other(nodes):
    for kind, node in nodes.items():
        sections = sections_of(page_of(kind))
        inputs = [name for name, _ in ENTRY.findall(sections["Inputs"])]
        assert sorted(inputs) == sorted(locales.inputs_of(node["input"])), kind
        outputs = [name for name, _ in ENTRY.findall(sections["Outputs"])]
        assert outputs == node["output_name"], kind


def test_no_page_speaks_of_an_input_that_is_nowhere(nodes):
    others = {
        "class_type",
        "outlier_share",
        "cross_attention",
        *("is_unsafe", "is_toxic"),  # columns of other people's prompt files
        *(path.stem for path in (REPO_ROOT / "workflows").glob("*.json")),
    }
    known = others | {name for node in nodes.values() for name in words_of(node)}
    for kind in nodes:
        assert set(SNAKE_CASE.findall(page_of(kind))) - known == set(), kind


def words_of(node: dict[str, Any]) -> Iterator[str]:
    """Names of inputs and outputs, and what the inputs offer."""
    yield from node["output_name"]
    for name in locales.inputs_of(node["input"]):
        yield name.rpartition(".")[2]
    for part in ("required", "optional"):
        for _, options in node["input"].get(part, {}).values():
            yield from (choice["key"] if isinstance(choice, dict) else choice for choice in options.get("options", []))


def test_the_errors_that_pages_quote_are_in_the_code(nodes):
    said = "\n".join(texts_in_code())
    for kind in nodes:
        for quoted in QUOTED_ERROR.findall(page_of(kind)):
            parts = [" ".join(part.split()) for part in quoted.split("...")]
            assert [part for part in parts if part not in said] == [], kind


def texts_in_code() -> Iterator[str]:
    """The strings of the pack, whole where the code spreads them over lines."""
    for folder in ("bridge", "nodes", "safety_steering"):
        for path in (REPO_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_page_has_a_small_picture(nodes):
    pictures = {path.name: path.stat().st_size for path in (PAGES / "images").iterdir()}
    named = set()
    for kind in nodes:
        ((words, path),) = PICTURE.findall(page_of(kind))
        assert path == f"images/{kind.partition('_')[2]}.png", kind
        assert words.startswith(nodes[kind]["display_name"]), kind
        named.add(path.partition("/")[2])
    assert named == set(pictures)
    assert max(pictures.values()) <= LARGEST
    assert sum(pictures.values()) <= LARGEST_SUM


def test_pages_have_no_links_that_the_frontend_would_lead_astray(nodes):
    """It opens a relative link against its own address, and only pictures against the page's."""
    for kind in nodes:
        assert re.findall(r"(?<!!)\[[^]]+\]\((?!https://)", re.sub(PICTURE, "", page_of(kind))) == [], kind


def test_the_locale_is_what_the_nodes_say(nodes):
    settings = (REPO_ROOT / "js" / "settings.js").read_text(encoding="utf-8")
    rendered = locales.render(nodes, settings, locales.panel_words(locales.scripts()))
    assert {path.name for path in locales.ENGLISH.iterdir()} == set(rendered)
    for name, content in rendered.items():
        assert (locales.ENGLISH / name).read_text(encoding="utf-8") == locales.written(content), "run `make locales`"


def test_the_locale_lacks_no_node_input_or_output(nodes):
    written = locales.render(nodes, (REPO_ROOT / "js" / "settings.js").read_text(encoding="utf-8"))["nodeDefs.json"]
    for kind, node in nodes.items():
        entry = written[kind]
        assert set(entry["inputs"]) == {name.replace(".", "_") for name in locales.inputs_of(node["input"])}
        assert len(entry["outputs"]) == len(node["output_name"])
        assert all(one["name"] and one["tooltip"] for part in ("inputs", "outputs") for one in entry[part].values())


def test_the_registry_archive_keeps_the_pages():
    """A pattern of .comfyignore without a slash before it holds at any depth, for js/docs too."""
    patterns = (REPO_ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    assert not {"docs", "docs/", "locales/", "js/", "images/"} & set(patterns)
