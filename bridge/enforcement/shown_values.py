"""What a node shows in the browser: which files it names, and texts that are a picture's numbers and no words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .jobs.flow import input_file
from .jobs.values import DEEPEST_PLAIN, DRAWN, LONGEST_TOKEN, MOST_DIGITS, leaves, many_numbers, spells_picture

ENTRY = ("filename", "subfolder", "type", "format", "frame_rate")  # of a file that a node shows


def entries_of(shown: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every entry of what a node shows that names a file."""
    for entries in shown.values():
        for entry in entries if isinstance(entries, list | tuple) else ():
            if isinstance(entry, dict) and entry.get("filename") and isinstance(entry.get("type"), str):
                yield entry


def is_lost(entry: Any, published: set[tuple[str, str]]) -> bool:
    """Whether an entry names a file that is not shown. published: folder's kind and file name of those that are."""
    named = isinstance(entry, dict) and entry.get("type") in ("output", "temp") and "filename" in entry
    return named and (entry["type"], entry["filename"]) not in published


def without_names(value: Any, names: Collection[str]) -> Any:
    """What a node shows with an empty text in the place of each that names one of these files."""
    if isinstance(value, str):
        return "" if Path(value).name in names else value
    return [without_names(item, names) for item in value] if names and isinstance(value, list | tuple) else value


def without_numbers(value: Any, numbers: bool, files: Collection[str]) -> tuple[Any, bool]:
    """What a node shows without what spells out a picture: texts, bytes, many numbers; whether something is gone.

    numbers: no text is shown, since one that spells out a picture went into it. files: names of files that are shown.
    """
    if many_numbers(_beside_files(value)):
        return [], True
    if isinstance(value, str):
        if not numbers and (_names_a_file(value, files) or not spells_picture(value)):
            return value, False
        return "", True
    if isinstance(value, bytes | bytearray):
        return "", True
    if isinstance(value, list | tuple):
        parts = [without_numbers(item, numbers, files) for item in value]
        return [item for item, _ in parts], any(gone for _, gone in parts)
    if isinstance(value, Mapping):
        kept = {name: item for name, item in value.items() if not spells_picture(name)}
        entry = {name: kept[name] for name in ENTRY if "filename" in kept and name in kept}  # of a file
        found = {name: without_numbers(item, numbers, files) for name, item in kept.items() if name not in entry}
        gone = len(kept) < len(value) or any(gone for _, gone in found.values())
        return {name: entry[name] if name in entry else found[name][0] for name in kept}, gone
    return value, False


def _beside_files(value: Any) -> Any:
    """A plain value without what names its files: a film of many frames has many numbers there."""
    if isinstance(value, Mapping):
        named = ENTRY if "filename" in value else ()
        return {name: _beside_files(item) for name, item in value.items() if name not in named}
    return [_beside_files(item) for item in value] if isinstance(value, list | tuple) else value


def carries_picture(value: Any) -> bool:
    """Whether a message of a pack has a picture in it: bytes, its encoding as text, or its numbers."""
    texts = [leaf for leaf in leaves(value, DEEPEST_PLAIN) if isinstance(leaf, str)]
    held = any(isinstance(leaf, bytes | bytearray) for leaf in leaves(value, DEEPEST_PLAIN))
    return held or many_numbers(value, in_texts=False) or any(map(_is_encoded, texts))


def _is_encoded(text: str) -> bool:
    digits = sum(letter.isdigit() for letter in text)
    long = any(len(token) > LONGEST_TOKEN for token in text.split())
    return long or bool(DRAWN.search(text)) or (len(text) > LONGEST_TOKEN and digits > MOST_DIGITS * len(text))


def _names_a_file(text: str, files: Collection[str]) -> bool:
    """Whether a text is the name of a file that the node shows, or of one that is served: such names are numbers."""
    path = Path(text)
    return (path.name in files and not spells_picture(str(path.parent))) or input_file(text) is not None
