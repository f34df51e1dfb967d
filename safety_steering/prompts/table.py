"""A file of prompts as a table, its limits, and text files in any Unicode encoding, with or without gzip.

A file may come from anywhere: what it can make the reader allocate is bounded before it is parsed. What was assumed
(encoding, separator, quotes) is noted.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PromptFileError
from ..files import unicode_encoding

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 4 * MAX_FILE_BYTES
MAX_ROWS = 200_000
MAX_COLUMNS = 200

GZIP = ".gz"
BYTE_ORDER_MARK = "\ufeff"  # within a text, where files were joined or saved twice, it means nothing

Row = tuple[str, Mapping[str, Any]]  # where in the file it is ("line 3"), and its values by column


@dataclass(frozen=True)
class Table:
    """A file as a table. read: yields the rows, with the asked columns at least. notes: how the file was read.

    parts: of a folder, the columns of each of its files.
    """

    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[Row]]
    notes: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def suffix_of(path: Path) -> str:
    """The suffix that tells a file's kind, in lower case: of `set.jsonl.gz`, .jsonl."""
    return Path(path.name.casefold().removesuffix(GZIP)).suffix


def check_count(rows: int) -> None:
    """Raise PromptFileError for more rows than are read."""
    if rows > MAX_ROWS:
        raise PromptFileError(f"It has more than {MAX_ROWS} rows. Keep the rows you need.")


def read_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """A file's text without byte order marks, and a note on an encoding other than UTF-8.

    Raises:
        PromptFileError: it is not text in a Unicode encoding, or not a whole gzip file.
    """
    content = path.read_bytes()
    if path.name.casefold().endswith(GZIP):
        content = _unpacked(content)
    encoding = unicode_encoding(content)
    name = "UTF-8" if encoding.startswith("utf-8") else encoding[:6].upper()
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise PromptFileError(f"It is not {name} text (at byte {error.start}). Save it as UTF-8.") from error
    return text.replace(BYTE_ORDER_MARK, ""), () if name == "UTF-8" else (f"{name} text",)


def _unpacked(content: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise PromptFileError(f"It is not a whole gzip file: {error}. Download it again.") from error
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise PromptFileError(f"It unpacks to more than {MAX_UNPACKED_BYTES} bytes. Keep the rows you need.")
    return unpacked


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers. Only \\n and \\r end one: JSON texts may hold other breaks."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    return ((number, line) for number, line in enumerate(unified.split("\n"), 1) if line.strip())


def open_lines(path: Path) -> Table:
    """A text file with one prompt a line."""
    text, notes = read_text(path)
    rows = ((f"line {number}", {"prompt": line}) for number, line in numbered_lines(text))
    return Table(("prompt",), lambda columns: rows, notes)
