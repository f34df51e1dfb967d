"""Text from clients, made safe to repeat: in logs, the audit and answers it is escaped and cut."""

from __future__ import annotations

import unicodedata
from typing import Any

MOST_CHARACTERS = 200
TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # right to left and back


def shown(value: Any, most: int = MOST_CHARACTERS) -> str:
    """`value` as one line of at most `most` characters; control characters are escaped."""
    kinds = {list: "a list", dict: "an object"}
    text = value if isinstance(value, str) else kinds.get(type(value)) or repr(value)
    cut = text[:most]
    line = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cut)
    return line[:most] + ("..." if len(text) > most or len(line) > most else "")


def is_plain_name(name: str) -> bool:
    """Whether a file's name has no control characters, none that turn the writing direction, and no half characters."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") or letter in TURNING for letter in name)


def trimmed(data: Any, most: int = MOST_CHARACTERS, depth: int = 8) -> Any:
    """Plain data with every text in it `shown`, and nothing nested deeper than `depth`."""
    if isinstance(data, str):
        return shown(data, most)
    if depth == 0:
        return "..."
    if isinstance(data, dict):
        return {shown(key, most): trimmed(value, most, depth - 1) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [trimmed(value, most, depth - 1) for value in data]
    return data


def node_name(node_id: str, node: Any) -> str:
    """A node of a graph as sentences name it: its id, its title if it has one, and its class."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    quoted = f" '{shown(title, 60)}'" if isinstance(title, str) and title else ""
    return f"Node {shown(node_id, 60)}{quoted}, {shown(node.get('class_type', ''), 100)}"
