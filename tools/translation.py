"""The locale in other languages: locales/en with every text replaced by what tools/translations/<language>.json says.

A table has the English text as its key: a text that changes in a node lacks its translation until somebody writes one.
`names` holds names of nodes, inputs, outputs and categories; `texts` holds sentences; `panels` what js/ says. Ids and
keys stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TABLES = Path(__file__).resolve().parent / "translations"
NAMES, TEXTS, PANELS = "names", "texts", "panels"
SECTION_OF = {"description": TEXTS, "tooltip": TEXTS, "safetySteering": PANELS}  # of what stands under a key


class TranslationError(ValueError):
    """A table lacks texts, or translates some that nobody says."""


def languages() -> list[str]:
    """The languages that have a table, such as zh."""
    return sorted(path.stem for path in TABLES.glob("*.json"))


def table_of(language: str) -> dict[str, dict[str, str]]:
    """Section -> English -> the language's words."""
    return json.loads((TABLES / f"{language}.json").read_text(encoding="utf-8"))


def said_in(files: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The section and the text of every text in the English files, file name -> content."""
    for name, content in files.items():
        yield from _said(content, TEXTS if name == "settings.json" else NAMES)


def translated(files: Mapping[str, Any], table: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The English files, file name -> content, in the table's language.

    Raises TranslationError that lists the texts which the table lacks, and those which no file has.
    """
    said = dict.fromkeys(said_in(files))
    lacking = [text for section, text in said if not table[section].get(text, "").strip()]
    unsaid = [text for section, entries in table.items() for text in entries if (section, text) not in said]
    if lacking or unsaid:
        raise TranslationError(
            "The translation does not fit the English texts. Translate or remove in tools/translations:\n"
            + "\n".join([f"lacks: {text}" for text in lacking] + [f"nobody says: {text}" for text in unsaid])
        )
    return {
        name: _replaced(content, TEXTS if name == "settings.json" else NAMES, table) for name, content in files.items()
    }


def _said(content: Any, section: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield section, content
        return
    for key, value in content.items():
        yield from _said(value, SECTION_OF.get(key, section))


def _replaced(content: Any, section: str, table: Mapping[str, Mapping[str, str]]) -> Any:
    if isinstance(content, str):
        return table[section][content]
    return {key: _replaced(value, SECTION_OF.get(key, section), table) for key, value in content.items()}
