"""Every text of locales/en has its words in each other language, and they keep what a translation must keep."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import translation
from glossary_zh import lacking_terms, terms

import locales

REPO_ROOT = Path(__file__).resolve().parents[2]
LOCALES = REPO_ROOT / "locales"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH_SENTENCE = re.compile(r"(?:[A-Za-z]+ ){3,}[A-Za-z]+")
SAME_IN_CHINESE = {"CLIP", "VAE", "CFG", "CSV", "Sigmas", "token"}
MESSAGE_SYNTAX = set("@{}|")  # vue-i18n does not show these as they are, in names and descriptions
# names in code, paths, file endings, numbers; words with capitals inside, such as KSampler and JSON; signs of a pattern
KEPT = re.compile(r"[\w/.-]*\w[_/.]\w[\w/.<>]*|\.\w+|\d+(?:\.\d+)?|\b\w*[A-Z]\w*[A-Z]\w*\b|\{[^}]*\}|\|")
HOLE = re.compile(r"\{\w+\}")
OPTIONS = re.compile(r"(?:^|[.!] |\n)([a-z][a-z0-9_]*(?:, [a-z][a-z0-9_]*)*): ")  # sentences begin with a capital
NAMED_WIDGET = re.compile(r"(\w+)（([a-z_]+)）")


@pytest.fixture(scope="module")
def english() -> dict[str, Any]:
    return files_of("en")


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    return translation.table_of("zh")


@pytest.fixture(scope="module")
def node_names(english: Mapping[str, Any], table: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    names = [node["display_name"] for node in english["nodeDefs.json"].values()]
    return {name: table["names"][name] for name in sorted(names, key=len, reverse=True)}


def files_of(language: str) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted((LOCALES / language).iterdir())}


def keys_of(content: Any, at: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from keys_of(value, f"{at}/{key}")
    else:
        yield at


def texts_of(table: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    return [pair for section, entries in table.items() if section != translation.NAMES for pair in entries.items()]


def test_chinese_is_there() -> None:
    assert "zh" in translation.languages()
    assert {path.name for path in LOCALES.iterdir()} == {"en", *translation.languages()}


@pytest.mark.parametrize("language", translation.languages())
def test_each_locale_is_what_its_table_makes(language: str, english: Mapping[str, Any]) -> None:
    made = translation.translated(english, translation.table_of(language))
    for name, content in made.items():
        assert (LOCALES / language / name).read_text(encoding="utf-8") == locales.written(content), "run `make locales`"
    assert list(keys_of(files_of(language))) == list(keys_of(english))


ONE_NODE = {"nodeDefs.json": {"Node": {"display_name": "A Node", "inputs": {"it": {"name": "it", "tooltip": "It."}}}}}


def test_a_table_translates_names_and_sentences_apart() -> None:
    table = {"names": {"A Node": "甲", "it": "乙"}, "texts": {"It.": "丙。"}}
    made = translation.translated(ONE_NODE, table)
    assert made["nodeDefs.json"]["Node"] == {"display_name": "甲", "inputs": {"it": {"name": "乙", "tooltip": "丙。"}}}


@pytest.mark.parametrize(
    ("texts", "said"),
    [({}, "lacks: It."), ({"It.": " "}, "lacks: It."), ({"It.": "丙。", "Old.": "丁。"}, "nobody says: Old.")],
)
def test_a_text_without_translation_and_one_that_nobody_says_are_told(texts: dict[str, str], said: str) -> None:
    with pytest.raises(translation.TranslationError, match=re.escape(said)):
        translation.translated(ONE_NODE, {"names": {"A Node": "甲", "it": "乙"}, "texts": texts})


def test_names_are_chinese_and_shown_as_they_are(table: Mapping[str, Mapping[str, str]]) -> None:
    for name in table["names"].values():
        assert CHINESE.search(name) or name in SAME_IN_CHINESE, name
        assert not MESSAGE_SYNTAX & set(name), name


def test_what_the_frontend_reads_as_messages_has_none_of_their_signs() -> None:
    chinese = files_of("zh")
    shown = [node["description"] for node in chinese["nodeDefs.json"].values()]
    shown += [text for setting in chinese["settings.json"].values() for text in setting.values()]
    assert [text for text in shown if MESSAGE_SYNTAX & set(text)] == []


def test_no_two_inputs_of_a_node_have_the_same_label() -> None:
    for kind, node in files_of("zh")["nodeDefs.json"].items():
        for part in ("inputs", "outputs"):
            labels = [entry["name"] for entry in node[part].values()]
            assert len(set(labels)) == len(labels), (kind, labels)


def test_sentences_are_chinese(table: Mapping[str, Mapping[str, str]]) -> None:
    for text, chinese in texts_of(table):
        assert CHINESE.search(chinese) or not HOLE.sub("", chinese).strip("、"), text
        assert not ENGLISH_SENTENCE.search(chinese), chinese
        assert chinese.endswith("。") == text.endswith("."), chinese
        assert not re.search(r"[\u4e00-\u9fff][,;:?!]", chinese), chinese  # Chinese words have Chinese stops


def test_sentences_keep_names_in_code_numbers_and_options(
    table: Mapping[str, Mapping[str, str]], node_names: Mapping[str, str]
) -> None:
    for text, chinese in texts_of(table):
        plain = text
        for name in node_names:
            plain = plain.replace(name, "")
        assert [kept for kept in KEPT.findall(plain) if kept.rstrip(".") not in chinese] == [], chinese
    for text, chinese in table[translation.TEXTS].items():
        options = [option for named in OPTIONS.findall(text) for option in named.split(", ")]
        assert [option for option in options if option not in chinese] == [], chinese


def test_sentences_call_nodes_and_widgets_by_their_labels(
    table: Mapping[str, Mapping[str, str]], node_names: Mapping[str, str]
) -> None:
    for text, chinese in texts_of(table):
        rest = text
        for name, label in node_names.items():
            assert name not in rest or f"“{label}”" in chinese, (name, chinese)
            assert name not in chinese, chinese
            rest = rest.replace(name, "")  # Load Safety Vector is not also a safety vector
        for before, name in NAMED_WIDGET.findall(chinese):
            assert name not in table["names"] or before.endswith(table["names"][name]), chinese


def test_each_thing_has_one_word(table: Mapping[str, Mapping[str, str]], node_names: Mapping[str, str]) -> None:
    assert len(terms()) > 60
    for text, chinese in texts_of(table):
        plain = text
        for name in node_names:
            plain = plain.replace(name, "")
        assert lacking_terms(plain, chinese) == [], chinese


def test_a_sentence_with_another_word_is_found() -> None:
    assert lacking_terms("The safety vectors.", "安全矢量。") == ["safety vector: 安全向量"]
    assert lacking_terms("Its noise level.", "它的噪声水平。") == []  # not a level
    assert lacking_terms("off: no token.", "off：没有 token。") == []
