"""Results as tables: the JSON files that evaluations, calibrations, fits and the demo write, as a pandas DataFrame.

A file is `{"command", "commit", "seeds", "rows"}`. Its rows become the lines of one flat table: an interval or another
pair of numbers becomes two columns (`asr_ci` gives `asr_low` and `asr_high`), an evaluation's categories become a line
each, and what is nested deeper becomes JSON text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ResultsError, shortened
from .files import replace_file

if TYPE_CHECKING:
    import pandas

ORIGIN = ("file", "command", "commit")
# of a row with categories: what holds for each of them too
SHARED = ("setting", "task", "split", "direction", "hook_point", "intervention", "strength", "judge")
POOLED = "all"
SUFFIXES = (".csv", ".parquet")


def load(*paths: str | os.PathLike[str]) -> pandas.DataFrame:
    """The rows of results files as one table. Columns that a file lacks are empty in its lines.

    The first columns say where a line is from: `file` (its name), `command` and `commit`. Columns with numbers are
    numbers; a column in which numbers and words meet is text.

    Args:
        paths: one or more results files, such as `results.json`, `calibration.json` or `demo/results/reins.json`.

    Raises:
        ResultsError: a file is missing or holds no results, or pandas is not installed.

    Example:
        >>> from safety_steering import results
        >>> frame = results.load("vectors/smollm2_135m_portable.json")  # how the bundled vector was found
        >>> list(frame.columns[:5]), bool(frame["auc"].between(0, 1).all())
        (['file', 'command', 'commit', 'layer', 'category'], True)
    """
    frame: pandas.DataFrame = _pandas().DataFrame(flat_rows(*paths))
    return frame


def save(frame: pandas.DataFrame, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a table as *.csv or *.parquet, whole or not at all; returns the path.

    Raises:
        ResultsError: the name ends otherwise, or pyarrow is not installed, which parquet needs.
        FileExistsError: the file is there, and `overwrite` is not set.
    """
    path = Path(path)
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": lambda file: frame.to_csv(file, index=False),
        ".parquet": lambda file: frame.to_parquet(file, index=False),
    }
    if path.suffix not in writers:
        raise ResultsError(f"{path.name} ends with neither of {', '.join(SUFFIXES)}. Name it so.")
    try:
        return replace_file(path, writers[path.suffix], overwrite=overwrite)
    except ImportError as error:
        raise ResultsError("Parquet files need the package pyarrow. Install it: pip install pyarrow") from error


def flat_rows(*paths: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of `load`, as plain values: text, numbers, truth values and None. Every line has every column.

    Raises:
        ResultsError: a file is missing or holds no results.
    """
    lines = [line for path in paths for line in _lines(Path(path))]
    columns = dict.fromkeys(name for line in lines for name in line)
    mixed = [name for name in columns if len({_kind(line[name]) for line in lines if line.get(name) is not None}) > 1]
    for line in lines:
        line |= {name: _text(line[name]) for name in mixed if line.get(name) is not None}
    return [{name: line.get(name) for name in columns} for line in lines]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    found = _read(path)
    for row in found["rows"]:
        origin = {"file": path.name, **{name: row.get(name, found.get(name, "")) for name in ORIGIN[1:]}}
        own = {name: value for name, value in row.items() if name not in ORIGIN}
        if not isinstance(own.get("categories"), Mapping):
            yield origin | _flat(own)
            continue
        categories = own.pop("categories")
        shared = {name: own[name] for name in SHARED if name in own}
        yield origin | _flat({"category": POOLED} | own)
        for category, values in categories.items():
            yield origin | _flat(shared | {"category": category} | values)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultsError(f"{path.name}: the file does not exist. Check its name and its folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path.name} cannot be read as JSON: {shortened(str(error), 200)}.") from error
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ResultsError(
            f"{path.name} holds no results. Expected an object with a list of rows, as evaluate and calibrate write it."
        )
    results: Mapping[str, Any] = found
    return results


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        base = name.removesuffix("_ci")
        if isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value)):
            flat[f"{base}_low"], flat[f"{base}_high"] = value
        elif value is None and base != name:
            flat[f"{base}_low"] = flat[f"{base}_high"] = None
        else:
            flat[name] = value if isinstance(value, str | int | float | None) else _text(value)
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> type:
    return float if _is_number(value) else type(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ResultsError("Tables need the package pandas. Install it: pip install pandas") from error
    return pandas
