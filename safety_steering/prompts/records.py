"""Tables of records: json, jsonl and parquet. Rows may lack keys; the columns are all keys that any row has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PromptFileError
from .columns import split_of
from .table import MAX_COLUMNS, MAX_UNPACKED_BYTES, Row, Table, check_count, numbered_lines, read_text, suffix_of

MAX_JSON_ITEMS = 2_000_000
MAX_NESTING = 8


def open_json(path: Path) -> Table:
    """A list of objects, one object a line, or an object that holds such a list or lists of columns."""
    text, notes = read_text(path)
    if sum(map(text.count, "[{,")) > MAX_JSON_ITEMS:
        raise PromptFileError(f"It holds more than {MAX_JSON_ITEMS} JSON values. Keep the rows you need.")
    rows: list[Row]
    as_lines = suffix_of(path) == ".jsonl" and not text.lstrip().startswith("[")
    if not as_lines:
        try:
            rows, more = _json_rows(_json(text))
            notes += more
        except json.JSONDecodeError as error:
            as_lines = error.msg == "Extra data"
            if not as_lines:
                raise PromptFileError(f"Line {error.lineno} is not JSON: {error.msg}. Save it again.") from error
    if as_lines:
        rows = [(f"line {number}", _object(f"line {number}", line)) for number, line in numbered_lines(text)]
    check_count(len(rows))
    flat = [(where, _flat(row)) for where, row in rows]
    own = dict.fromkeys(name for _, row in rows for name in row)
    if len(own) > MAX_COLUMNS:
        raise PromptFileError(f"It has {len(own)} columns; at most {MAX_COLUMNS} are read.")
    columns = own | dict.fromkeys(name for _, row in flat for name in row)  # nested ones last
    return Table(tuple(columns)[:MAX_COLUMNS], lambda columns: iter(flat), notes)


def _json(text: str) -> Any:
    # pandas writes NaN for a missing value
    return json.loads(text, parse_constant=lambda name: None, object_pairs_hook=_pairs)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise PromptFileError(f"A JSON object names a key twice: {', '.join(name for name, _ in pairs)[:80]}.")
    return found


def _object(where: str, line: str) -> Mapping[str, Any]:
    try:
        value = _json(line)
    except json.JSONDecodeError as error:
        raise PromptFileError(f"{where.capitalize()} is not JSON: {error.msg}. Save it again.") from error
    if not isinstance(value, dict):
        raise PromptFileError(f"{where.capitalize()} is not a JSON object. Write one object, {{...}}, a line.")
    return value


def _json_rows(value: Any) -> tuple[list[Row], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if isinstance(value, dict):
        value, notes = _listed(value)
    if not isinstance(value, list):
        raise PromptFileError("It is neither a list of JSON objects nor COCO's captions. Write a list, [{...}, ...].")
    wrong = next((number for number, row in enumerate(value, 1) if not isinstance(row, dict)), 0)
    if wrong:
        raise PromptFileError(f"Row {wrong} is not a JSON object. Write a list of objects, [{{...}}, ...].")
    return [(f"row {number}", row) for number, row in enumerate(value, 1)], notes


def _listed(value: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The rows inside of an object: a list for each split, COCO's annotations, its only list, or lists of columns."""
    lists = {
        name: rows for name, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)
    }
    if lists and all(map(split_of, lists)):
        rows = [{"split": split_of(name), **row} for name, rows in lists.items() for row in rows]
        return rows, (f"splits from the lists {', '.join(lists)}",)
    if "annotations" in lists:
        return lists["annotations"], ()
    if len(lists) == 1:
        (name,) = lists
        return lists[name], (f"rows from the list '{name[:40]}'",)
    columns = list(value.values())
    if columns and all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
        rows = [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
        return rows, ("one list a column",)
    if (
        columns
        and all(isinstance(column, dict) for column in columns)
        and len({tuple(column) for column in columns}) == 1
    ):
        return [{name: column[key] for name, column in value.items()} for key in columns[0]], ("one object a column",)
    return None, ()


def _flat(row: Mapping[str, Any], depth: int = MAX_NESTING) -> dict[str, Any]:
    """The row, with the texts inside of nested objects as columns of their own: `meta.category`."""
    found = {name: None if value != value else value for name, value in row.items()}  # NaN is a missing value
    for name, value in row.items():
        if isinstance(value, dict) and depth:
            inner = _flat(value, depth - 1)
            found |= {f"{name}.{key}": text for key, text in inner.items() if isinstance(text, str)}
    return found


def open_parquet(path: Path) -> Table:
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
        raise PromptFileError(f"It is not a whole parquet file: {str(error)[:200]}. Download it again.") from error
    check_count(file.metadata.num_rows)
    labels = _class_labels(file.schema_arrow.metadata or {})

    def read(columns: Sequence[str]) -> Iterator[Row]:
        own = [name for name in file.schema_arrow.names if any(c == name or c.startswith(f"{name}.") for c in columns)]
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        parts = [group.column(i) for group in groups for i in range(group.num_columns)]
        unpacked = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in own)
        if unpacked > MAX_UNPACKED_BYTES:
            raise PromptFileError(f"Its columns unpack to {unpacked} bytes; at most {MAX_UNPACKED_BYTES} are read.")
        number = 0
        try:
            for batch in file.iter_batches(batch_size=256, columns=own):
                if batch.nbytes > MAX_UNPACKED_BYTES:
                    raise PromptFileError(f"256 of its rows take {batch.nbytes} bytes. It is not a set of prompts.")
                for row in batch.to_pylist():
                    number += 1
                    named = {name: _label(labels[name], row[name]) for name in row if name in labels}
                    yield f"row {number}", _flat({**row, **named})
        except arrow.ArrowException as error:
            raise PromptFileError(f"It is damaged: {str(error)[:200]}. Download it again.") from error

    return Table(tuple(_schema_names(file.schema_arrow)), read)


def _schema_names(fields: Any, prefix: str = "", depth: int = MAX_NESTING) -> Iterator[str]:
    import pyarrow as arrow

    for field in fields:
        name = f"{prefix}{field.name}"
        text = arrow.types.is_string(field.type) or arrow.types.is_large_string(field.type)
        if not prefix or text:
            yield name
        if arrow.types.is_struct(field.type) and depth:
            yield from _schema_names(list(field.type), f"{name}.", depth - 1)


def _class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> names of its numbers, as Hugging Face datasets write their ClassLabel columns."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: list(map(str, f["names"])) for name, f in features.items() if f.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _label(names: Sequence[str], value: Any) -> Any:
    """The name of a number; -1 stands for a missing one."""
    if value == -1:
        return None
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
