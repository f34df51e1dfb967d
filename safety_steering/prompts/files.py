"""Prompt files and dataset folders, read into a `PromptSet`.

Control characters never reach a prompt. Equal rows are kept once, rows without a prompt are left out, and both are
counted in the set's notes. A row without an id is named by its prompts' hash, so that it keeps its split when rows are
added or moved.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ..errors import PromptFileError, SafetySteeringError
from .columns import (
    GUESSES,
    SPLIT_NAMES,
    Reading,
    category_name,
    choose_reading,
    parse_columns,
    side_of_label,
    split_of,
)
from .prompt_set import BENIGN, SIDES, UNSAFE, PromptRow, PromptSet
from .records import open_json, open_parquet
from .separated import open_separated
from .table import GZIP, MAX_COLUMNS, MAX_FILE_BYTES, Row, Table, check_count, open_lines, suffix_of

MAX_CHARACTERS = 4_000
MAX_LISTED = 5
READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": open_separated,
    ".tsv": open_separated,
    ".jsonl": open_json,
    ".json": open_json,
    ".txt": open_lines,
    ".parquet": open_parquet,
}
SUFFIXES = (*READERS, *(f"{suffix}{GZIP}" for suffix in READERS if suffix != ".parquet"))
# Hugging Face: train-00000-of-00002.parquet, and with a hash behind; other programs: other digits and underscores
SHARD = re.compile(r"(.+?[-_])([0-9]{3,6})([-_]of[-_])([0-9]{3,6})([-_.].*)")
FLAG = re.compile(r"[-+\d.,\s]+|true|false|yes|no", re.IGNORECASE)


def load_prompts(path: str | os.PathLike[str], *, columns: str = "", unpaired: str = "") -> PromptSet:
    """Read a prompt file (parquet, csv, tsv, jsonl, json or txt, or gzip of one), or a folder of a dataset.

    Rows have the splits that the file gives, or none. The set's notes say how the file was read.

    Args:
        path: a file, or a folder as Hugging Face datasets are stored: shards in it, or in its `data` or split folders.
        columns: `field=column` pairs as in `parse_columns`.
        unpaired: "unsafe" or "safe", the side of prompts without a label; "" refuses such prompts.

    Raises:
        PromptFileError: the file is missing, too large, of another kind or damaged, or its columns are not recognised.
    """
    path = Path(path)
    try:
        table = _open_folder(path) if path.is_dir() else open_table(path)
        if len(table.columns) > MAX_COLUMNS:
            raise PromptFileError(f"It has {len(table.columns)} columns; at most {MAX_COLUMNS} are read.")
        reading = choose_reading(path, table.columns, parse_columns(columns), unpaired)
        _refuse_files_without_prompts(table, reading)
        needed = {*reading.columns.values(), reading.one_per} & set(table.columns)
        rows = _Rows(reading)
        kept = tuple(rows.of(table.read(sorted(needed))))
        _refuse_flags(kept, reading, table.columns)
        notes = (*table.notes, *rows.notes, *_notes_on_columns(table, reading))
        return PromptSet(kept, path.name, reading.source_format, notes)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        said = str(error) if isinstance(error, SafetySteeringError) else f"It cannot be read: {str(error)[:200]}."
        raise PromptFileError(said if said.startswith(path.name) else f"{path.name}: {said}") from error


def open_table(path: Path) -> Table:
    """The table in a file.

    Raises:
        PromptFileError: the file is missing, too large, of another kind, damaged or ambiguous.
    """
    if suffix_of(path) not in READERS:
        raise PromptFileError(f"Its kind is none of {', '.join(READERS)}. Save it as one of them.")
    if not path.is_file():
        raise PromptFileError("The file is missing. Check its name and its folder; nodes read models/safety_prompts.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES and suffix_of(path) != ".parquet":  # of parquet files only some columns are read
        raise PromptFileError(f"It has {size} bytes; at most {MAX_FILE_BYTES} are read. Keep the rows you need.")
    return READERS[suffix_of(path)](path)


def data_files(path: Path) -> list[Path]:
    """The file itself, or the tables of a dataset's folder: those in it, in its `data` and in its split folders.

    Raises:
        PromptFileError: the folder holds no tables, tables of several kinds, or lacks shards.
    """
    if not path.is_dir():
        return [path]
    found = _tables_in(path)
    kinds = {suffix_of(file) for file in found}
    if ".parquet" in kinds:
        found = [file for file in found if suffix_of(file) == ".parquet"]
    elif len(kinds) != 1:
        what = (
            f"tables of several kinds ({', '.join(sorted(kinds))})" if kinds else "no parquet, csv, tsv or json files"
        )
        raise PromptFileError(
            f"The folder has {what} in itself, in data or in train, validation and test. Choose a file."
        )
    _refuse_missing_shards(found)
    return found


def _tables_in(path: Path) -> list[Path]:
    """The tables in a dataset's folder, in its `data` and in its split folders."""
    folders = [path, *(inner for inner in sorted(path.iterdir()) if inner.is_dir() and _is_data_folder(inner.name))]
    folders += [inner for folder in folders[1:] for inner in sorted(folder.iterdir()) if split_of(inner.name)]
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if _is_table(file)]


def _refuse_missing_shards(files: Iterable[Path]) -> None:
    """Raise PromptFileError with the name of a shard that is not there. Numbers begin at 0 or at 1."""
    there: dict[tuple[Path, str, str, str], set[int]] = {}
    for file in files:
        if shard := SHARD.fullmatch(file.name):
            there.setdefault((file.parent, shard[1], shard[3], shard[4]), set()).add(int(shard[2]))
    for (_, name, of, count), numbers in there.items():
        first = int(0 not in numbers and int(count) in numbers)
        wanted = range(first, first + min(int(count), len(numbers) + 1))
        for number in (number for number in wanted if number not in numbers):
            raise PromptFileError(f"The shard {name}{number:0{len(count)}}{of}{count} is missing. Download it.")


def dataset_folders(names: Iterable[str]) -> list[str]:
    """The folders, among the files' relative paths, that hold a dataset's tables as `data_files` finds them."""
    found = set()
    for path in map(PurePath, names):
        parts = list(path.parent.parts)
        while parts and _is_data_folder(parts[-1]):
            parts.pop()
        if parts and _is_table(path) and (len(parts) < len(path.parts) - 1 or _split_of_file(path)):
            found.add(str(PurePath(*parts)))
    return sorted(found)


def _is_data_folder(name: str) -> bool:
    return name.casefold() == "data" or bool(split_of(name))


def _is_table(path: PurePath) -> bool:
    described = path.stem.casefold() in ("dataset_info", "dataset_infos", "dataset_dict", "state", "config")
    suffix = suffix_of(Path(path))
    return suffix in READERS and suffix != ".txt" and not described and not path.name.startswith(".")


def _split_of_file(path: PurePath) -> str:
    """The split in a file's name, or else its folder's."""
    words = re.split(r"[^a-z]+", path.name.casefold())
    return next(filter(None, map(split_of, [*words, path.parent.name])), "")


def _open_folder(path: Path) -> Table:
    files = data_files(path)
    tables = {file: open_table(file) for file in files}
    splits = {file: _split_of_file(file) for file in files}

    def read(columns: Sequence[str]) -> Iterator[Row]:
        for file, table in tables.items():
            for where, row in table.read([name for name in columns if name in table.columns]):
                yield f"{file.name}, {where}", {**row, "split": row.get("split") or splits[file]}

    own = dict.fromkeys(name for table in tables.values() for name in table.columns)
    if any(splits.values()):
        own.setdefault("split")
    left = [file.name for file in _tables_in(path) if file not in tables]
    notes = [f"{len(files)} files of a dataset's folder", *(note for table in tables.values() for note in table.notes)]
    notes += [f"files not read beside the parquet files: {', '.join(left[:MAX_LISTED])}"] if left else []
    parts = {file.name: table.columns for file, table in tables.items()}
    return Table(tuple(own), read, tuple(dict.fromkeys(notes)), parts)


@dataclass
class _Rows:
    """Makes rows of records and counts what it leaves out."""

    reading: Reading
    read: int = 0
    empty: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def of(self, records: Iterator[Row]) -> Iterator[PromptRow]:
        """The rows, each once. Raises PromptFileError with the line or row."""
        seen: set[object] = set()
        for where, record in records:
            self.read += 1
            check_count(self.read)
            try:
                row = _row(record, self.reading)
            except SafetySteeringError as error:
                raise PromptFileError(f"{where[:1].upper()}{where[1:]}: {error}") from error
            if row is None:
                self.empty.append(where)
                continue
            texts = (row.unsafe, row.safe, row.negative)
            key = str(record.get(self.reading.one_per)) if self.reading.one_per else (row.id, *texts)
            if key in seen:
                self.repeated.append(where)
                continue
            seen.add(key)
            yield row

    @property
    def notes(self) -> Iterator[str]:
        """How many rows were read and left out, and which."""
        left_out = len(self.empty) + len(self.repeated)
        yield f"{self.read} rows read" + (f", {left_out} left out" if left_out else "")
        again = f"another caption of one {self.reading.one_per}" if self.reading.one_per else "repeated"
        for kind, places in (("without a prompt", self.empty), (again, self.repeated)):
            if places:
                more = ", ..." if len(places) > MAX_LISTED else ""
                yield f"left out, {kind}: {len(places)} ({', '.join(places[:MAX_LISTED])}{more})"


def _notes_on_columns(table: Table, reading: Reading) -> Iterator[str]:
    yield "columns: " + ", ".join(f"{name} from '{column[:40]}'" for name, column in reading.columns.items())
    ignored = [name for name in table.columns if name and name not in (*reading.columns.values(), reading.one_per)]
    if ignored:
        more = f" and {len(ignored) - 12} more" if len(ignored) > 12 else ""
        yield f"columns not read: {', '.join(name[:40] for name in ignored[:12])}{more}"
    if "prompt" in reading.columns and reading.side:
        yield f"prompts without a label are taken for {reading.side}"


def _refuse_files_without_prompts(table: Table, reading: Reading) -> None:
    """Raise PromptFileError for a file of a folder that has its prompts in another column than the others."""
    prompts = {column for name, column in reading.columns.items() if name in (*SIDES, "prompt")}
    for name, columns in table.parts.items():
        if columns and not prompts & set(columns):
            raise PromptFileError(
                f"{name} has the columns {', '.join(columns)[:200]}, and other files have prompts in "
                f"{', '.join(sorted(prompts))[:80]}. Rename its columns, or take it out."
            )


def _refuse_flags(rows: Sequence[PromptRow], reading: Reading, columns: Sequence[str]) -> None:
    """Raise PromptFileError for a column of flags or numbers, such as `unsafe` = 0 or 1, that was taken for prompts."""
    unread = any(name.strip().casefold() in GUESSES["prompt"] for name in columns) and "prompt" not in reading.columns
    for side in SIDES:
        texts = [text for row in rows if (text := row.prompts.get(side))]
        two_words = unread and len(set(texts)) <= 2 and not any(" " in text for text in texts)  # in any language
        if texts and (two_words or all(map(FLAG.fullmatch, texts))):
            column = reading.columns.get(side) or reading.columns["prompt"]
            raise PromptFileError(
                f"The column '{column[:80]}' holds only flags or numbers such as {texts[0][:40]}, no prompts. Map the "
                "columns: prompt=column_a, label=column_b"
            )


def _row(record: Mapping[str, Any], reading: Reading) -> PromptRow | None:
    values = {field: record.get(column) for field, column in reading.columns.items()}
    texts = {side: _prompt(values.get(side)) for side in SIDES}
    if prompt := _prompt(values.get("prompt")):
        texts[_side(_clean(values.get("label")), reading)] = prompt
    if not any(texts.values()):
        return None
    split = _clean(values.get("split")).casefold()
    return PromptRow(
        id=_clean(values.get("id")) or hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16],
        category=_categories(values.get("category")) or (reading.category or UNSAFE if texts["unsafe"] else BENIGN),
        **texts,
        split=SPLIT_NAMES.get(split, split),
    )


def _side(label: str, reading: Reading) -> str:
    """The side of a prompt: its label's, or of all prompts without one."""
    if not label and not reading.side:
        raise PromptFileError("A prompt has no label, so it could be safe or unsafe. Add it, or set unpaired.")
    return side_of_label(label, reading.columns["label"]) if label else reading.side


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
