"""Tables of separated values, csv and tsv: any of the usual separators, Excel's dialects, and quotes read strictly."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import PromptFileError
from .table import Table, check_count, numbered_lines, read_text, suffix_of

MAX_SEPARATORS = 10_000  # in one line: prompts hold commas too
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MISSING = frozenset({"na", "n/a", "#n/a", "<na>", "nan", "null", "none", "\\n"})  # as R, pandas and databases write it
SEP_LINE = re.compile(r'[ \t]*"?sep=([^\w\s"]|\t)"?[ \t]*(\r\n|\r|\n|$)', re.IGNORECASE)  # Excel's own first line
# tried in turn where the rows are not all as long as the header: what is noted, a sign of it, and csv's options
DIALECTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("quotes inside of texts are escaped by backslashes", '\\"', {"escapechar": "\\", "doublequote": False}),
    ("spaces before quotes are left out", ' "', {"skipinitialspace": True}),
)

Rows = list[tuple[int, list[str]]]  # the number of the line that each row starts in, and its values


def open_separated(path: Path) -> Table:
    """A csv or tsv file. The separator is the one that splits the first line into the most columns.

    Raises:
        PromptFileError: quotes or separators do not add up; the message gives the line's number.
    """
    text, notes = read_text(path)
    usual = "\t" if suffix_of(path) == ".tsv" else ","
    told, skipped = "", 0
    if excel := SEP_LINE.match(text):
        told, skipped, text = excel[1], 1, text[excel.end() :]
    first = next((line for _, line in numbered_lines(text)), "")
    if max(map(first.count, SEPARATORS)) > MAX_SEPARATORS:
        raise PromptFileError(f"A line has more than {MAX_SEPARATORS} columns. It is not a table of prompts.")
    separator = told or max((usual, *SEPARATORS), key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
    rows, quotes = _read(text, separator, skipped)
    header = [name.strip() for name in rows[0][1]] if rows else []
    short = sum(len(values) < len(header) for _, values in rows)
    if separator != usual:
        notes += (f"separated by {SEPARATORS.get(separator, separator)}",)
    if short:
        notes += (f"{short} rows have fewer values than the first line",)
    own = [row for row in rows[1:] if [value.strip() for value in row[1]] != header]
    if again := len(rows) - 1 - len(own):
        notes += (f"the first line stands {again + 1} times, as in joined files",)
    if missing := sum(value.strip().casefold() in MISSING for _, values in own for value in values):
        notes += (f"{missing} values such as NA or null are taken for missing",)
    records = [(f"line {number}", _named(header, number, values)) for number, values in own]
    return Table(tuple(header), lambda columns: iter(records), notes + quotes)


def _read(text: str, separator: str, skipped: int) -> tuple[Rows, tuple[str, ...]]:
    """All rows, the header first, and a note on quotes.

    A quote that is never closed, or is closed lines later, swallows rows. Then quotes are plain characters if every row
    then has as many values as the header; otherwise the file is refused.
    """
    complaint, rows = "", Rows()
    try:
        rows = _parse(text, separator, skipped)
    except PromptFileError as error:
        complaint = str(error)
    width = len(rows[0][1]) if rows else 0
    whole = not complaint and all(len(values) == width for _, values in rows)
    spanning = [row for row in rows if any("\n" in value or "\r" in value for value in row[1])]
    if whole and not spanning:
        return rows, ()
    for note, sign, dialect in DIALECTS:
        if not whole and sign in text and (regular := _regular(text, separator, skipped, **dialect)):
            return regular, (note,)
    plain = _regular(text, separator, skipped, quoting=csv.QUOTE_NONE)
    if plain and not any(_is_quoted(value) for _, values in plain for value in values):
        if not whole or (separator == "\t" and width > 1):
            return plain, ("quotes are plain characters",)
        if width > 1:
            raise PromptFileError(
                f"Line {spanning[0][0]}: a quote opens here and closes lines below: one text, or several rows? Double "
                "the quote, or remove it."
            )
    swallowed = next((number for number, values in spanning if len(values) < width), 0)
    if complaint or swallowed:
        raise PromptFileError(complaint or f"Line {swallowed}: a quote swallows the lines below. Double or remove it.")
    return rows, ()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] == '"'


def _parse(text: str, separator: str, skipped: int, **dialect: Any) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, **dialect)
    rows: Rows = []
    start = 1
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise PromptFileError(
                f"Line {start + skipped}: a quote is not closed, or stands inside of a quoted text ({error}). Double "
                "or remove it."
            ) from error
        if values is None:
            return rows
        if any(value.strip() for value in values):
            rows.append((start + skipped, values))
            check_count(len(rows) - 1)
        start = reader.line_num + 1


def _regular(text: str, separator: str, skipped: int, **dialect: Any) -> Rows | None:
    """The rows in another dialect, if every row has as many values as the header."""
    try:
        rows = _parse(text, separator, skipped, **dialect)
    except PromptFileError:
        return None
    return rows if rows and all(len(values) == len(rows[0][1]) for _, values in rows) else None


def _named(header: Sequence[str], number: int, values: Sequence[str]) -> dict[str, str]:
    if any(value.strip() for value in values[len(header) :]):
        raise PromptFileError(
            f"Line {number} has {len(values)} values, and the first line names {len(header)} columns. Put texts that "
            "hold the separator into quotes."
        )
    own = ("" if value.strip().casefold() in MISSING else value for value in values)
    return dict(zip(header, own, strict=False))
