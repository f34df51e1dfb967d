"""Prompt files: parquet, csv, tsv, jsonl, json and txt (one prompt a line), read into a `PromptSet`.

A file may come from anywhere: what it can make the reader allocate is bounded before it is parsed, and control
characters never reach a prompt. Rows that are alike are kept once, rows without a prompt are left out. A row without an
id is named by its prompts' hash, so that it keeps its split wherever it stands in the file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PromptFileError, SafetySteeringError
from .columns import SPLIT_NAMES, Reading, category_name, choose_reading, parse_columns, side_of_label
from .prompt_set import BENIGN, SIDES, UNSAFE, PromptRow, PromptSet

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 4 * MAX_FILE_BYTES
MAX_JSON_ITEMS = 2_000_000
MAX_ROWS = 200_000
MAX_COLUMNS = 200
MAX_SEPARATORS = 10_000  # in one line: prompts hold commas too
MAX_CHARACTERS = 4_000

Records = Iterator[Mapping[str, Any]]
Opened = tuple[Sequence[str], Callable[[list[str]], Records]]  # the columns found, and what reads some of them


def load_prompts(path: str | os.PathLike[str], *, columns: str = "", unpaired: str = "") -> PromptSet:
    """Read a prompt file. Rows have the splits that the file gives, or none.

    columns: `field=column` pairs as in `parse_columns`. unpaired: "unsafe" or "safe", what a file with one prompt a row
    holds; "" lets the file say it.

    Raises:
        PromptFileError: the file is missing, too large, of another kind or damaged, or its columns are not recognised.
    """
    path = Path(path)
    try:
        check_size(path)
        found, read = _READERS[path.suffix.casefold()](path)
        if len(found) > MAX_COLUMNS:
            raise PromptFileError(f"It has {len(found)} columns; at most {MAX_COLUMNS} are read.")
        reading = choose_reading(path, found, parse_columns(columns), unpaired)
        needed = {*reading.columns.values(), reading.one_per} & set(found)
        return PromptSet(tuple(_rows(read(sorted(needed)), reading)), path.name, reading.source_format)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        said = str(error) if isinstance(error, SafetySteeringError) else f"It cannot be read: {str(error)[:200]}."
        raise PromptFileError(said if said.startswith(path.name) else f"{path.name}: {said}") from error


def check_size(path: Path) -> None:
    """Raise PromptFileError for a file that is missing, of another kind, or larger than is ever read."""
    if path.suffix.casefold() not in _READERS:
        raise PromptFileError(f"It is none of {', '.join(SUFFIXES)}. Save it as one of them.")
    if not path.is_file():
        raise PromptFileError("The file is missing. Put it into models/safety_prompts.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise PromptFileError(f"It has {size} bytes; at most {MAX_FILE_BYTES} are read. Keep the rows you need.")


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptFileError(f"It is not UTF-8 text (at byte {error.start}). Save it as UTF-8.") from error


def _open_separated(path: Path) -> Opened:
    separator = "\t" if path.suffix.casefold() == ".tsv" else ","
    text = _text(path)
    if max(line.count(separator) for line in io.StringIO(text or separator)) > MAX_SEPARATORS:
        raise PromptFileError(f"A line has more than {MAX_SEPARATORS} columns. It is no table of prompts.")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = next(lines, [])
    return header, lambda columns: (dict(zip(header, line, strict=False)) for line in lines)


def _open_lines(path: Path) -> Opened:
    lines = io.StringIO(_text(path))
    return ("prompt",), lambda columns: ({"prompt": line} for line in lines)


def _open_jsonl(path: Path) -> Opened:
    lines = (line for line in io.StringIO(_text(path)) if line.strip())
    first = _object(next(lines, "{}"))
    return tuple(first), lambda columns: itertools.chain([first], map(_object, lines))


def _object(line: str) -> Mapping[str, Any]:
    value = _json(line)
    if not isinstance(value, dict):
        raise PromptFileError("A line is not a JSON object. Write one object, {...}, a line.")
    return value


def _open_json(path: Path) -> Opened:
    """A list of objects; or an object whose `annotations` is one, as COCO's captions are."""
    value = _json(_text(path))
    rows = value.get("annotations") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PromptFileError("It is neither a list of JSON objects nor COCO's captions. Write a list, [{...}, ...].")
    return tuple(rows[0]) if rows else (), lambda columns: iter(rows)


def _json(text: str) -> Any:
    if sum(map(text.count, "[{,")) > MAX_JSON_ITEMS:
        raise PromptFileError(f"It holds more than {MAX_JSON_ITEMS} JSON values. Keep the rows you need.")
    return json.loads(text)


def _open_parquet(path: Path) -> Opened:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise PromptFileError(
            "Parquet files need the package pyarrow. Install it (pip install pyarrow), or save the set as csv."
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowException as error:
        raise PromptFileError(f"It is no whole parquet file: {str(error)[:200]}. Download it again.") from error
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    if file.metadata.num_rows > MAX_ROWS or unpacked > MAX_UNPACKED_BYTES:
        raise PromptFileError(
            f"It unpacks to {file.metadata.num_rows} rows and {unpacked} bytes; at most {MAX_ROWS} rows and "
            f"{MAX_UNPACKED_BYTES} bytes are read."
        )

    def records(columns: list[str]) -> Records:
        try:
            for batch in file.iter_batches(batch_size=256, columns=columns):
                if batch.nbytes > MAX_UNPACKED_BYTES:
                    raise PromptFileError(f"256 of its rows take {batch.nbytes} bytes. It is no set of prompts.")
                yield from batch.to_pylist()
        except arrow.ArrowException as error:
            raise PromptFileError(f"It is damaged: {str(error)[:200]}. Download it again.") from error

    return file.schema_arrow.names, records


_READERS: dict[str, Callable[[Path], Opened]] = {
    ".csv": _open_separated,
    ".tsv": _open_separated,
    ".jsonl": _open_jsonl,
    ".json": _open_json,
    ".txt": _open_lines,
    ".parquet": _open_parquet,
}
SUFFIXES = tuple(_READERS)


def _rows(records: Records, reading: Reading) -> Iterator[PromptRow]:
    seen: set[object] = set()
    for number, record in enumerate(records):
        if number >= MAX_ROWS:
            raise PromptFileError(f"It has more than {MAX_ROWS} rows. Keep the rows you need.")
        row = _row(record, reading)
        if row is None:
            continue
        texts = (row.unsafe, row.safe, row.negative)
        key = str(record.get(reading.one_per)) if reading.one_per else (row.id, *texts)
        if key not in seen:
            seen.add(key)
            yield row


def _row(record: Mapping[str, Any], reading: Reading) -> PromptRow | None:
    values = {field: record.get(column) for field, column in reading.columns.items()}
    texts = {side: _prompt(values.get(side)) for side in SIDES}
    if prompt := _prompt(values.get("prompt")):
        texts[side_of_label(_clean(values["label"])) if "label" in values else reading.side] = prompt
    if not any(texts.values()):
        return None
    split = _clean(values.get("split")).casefold()
    return PromptRow(
        id=_clean(values.get("id")) or hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16],
        category=_categories(values.get("category")) or (reading.category or UNSAFE if texts["unsafe"] else BENIGN),
        **texts,
        split=SPLIT_NAMES.get(split, split),
    )


def _prompt(value: Any) -> str:
    if not isinstance(value, str | None):
        raise PromptFileError(f"A prompt is a {type(value).__name__}, {str(value)[:40]}. Map the columns to texts.")
    text = _clean(value)
    if len(text) > MAX_CHARACTERS:
        raise PromptFileError(f"A prompt has {len(text)} characters; at most {MAX_CHARACTERS} are read. Shorten it.")
    return text


def _categories(value: Any) -> str:
    """The names in a cell: one, several with commas, a list, or an object of booleans as SafeSora's labels are."""
    if isinstance(value, dict):
        value = [name for name, holds in value.items() if holds]
    names = value if isinstance(value, list) else _clean(value).split(",")
    return ", ".join(dict.fromkeys(filter(None, (category_name(_clean(name)) for name in names))))


def _clean(value: Any) -> str:
    """A cell as text: control characters and runs of white space are one space each."""
    if value is None:
        return ""
    kept = "".join(" " if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in str(value))
    return " ".join(kept.split())
