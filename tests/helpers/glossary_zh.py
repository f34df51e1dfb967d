"""docs/glossary_zh.md as a table: which Chinese word a sentence must have for an English one."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

GLOSSARY = Path(__file__).resolve().parents[2] / "docs" / "glossary_zh.md"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


@cache
def terms() -> tuple[tuple[str, str], ...]:
    """English and Chinese, the longest English first: a noise level is not a level."""
    (_, *rows) = ROW.findall(GLOSSARY.read_text(encoding="utf-8"))
    return tuple(sorted(((one.strip(), other.strip()) for one, other in rows), key=lambda row: -len(row[0])))


def lacking_terms(english: str, chinese: str) -> list[str]:
    """The terms of the English text whose Chinese word is not in the Chinese one, nor the English word as it is."""
    rest, lacking = english, []
    for term, word in terms():
        found = re.findall(pattern(term), rest, re.IGNORECASE)
        if found and word not in chinese and not any(one in chinese for one in found):
            lacking.append(f"{term}: {word}")
        rest = re.sub(pattern(term), "·", rest, flags=re.IGNORECASE)
    return lacking


def pattern(term: str) -> str:
    """A term or its plural, but not within a name in code such as models/safety_vectors or encoder.<layer>."""
    plural = f"{re.escape(term[:-1])}(?:y|ies)" if term.endswith("y") else f"{re.escape(term)}(?:s|es)?"
    return rf"(?<![\w./<-]){plural}(?![\w/>-]|\.\w)"
