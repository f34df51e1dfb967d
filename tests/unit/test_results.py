"""Results files as tables: `results.load`, `results.save`, and `python -m safety_steering results`."""

from __future__ import annotations

import io
import json
import sys

import pandas
import pytest
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering import results
from safety_steering_pack.safety_steering.errors import ResultsError, SafetySteeringError
from safety_steering_pack.safety_steering.files import write_result

ROWS = [
    {"setting": "unsteered", "asr": 0.5, "asr_ci": [0.4, 0.6], "usable_ci": None, "mix": {}, "window": [0, 1]},
    {
        "setting": "steered",
        "strength": 2,
        "asr": 0,
        "asr_ci": [0.0, 0.1],
        "mix": {"gore": 1.0},
        "chosen": True,
        "categories": {"gore": {"asr": 0.25, "asr_ci": [0, 1]}},
    },
]
ORIGIN = ["file", "command", "commit"]


@pytest.fixture
def file(tmp_path):
    return write_result(tmp_path / "mine.json", "evaluate a b", [0], ROWS)


def test_a_row_becomes_a_line_and_so_does_each_category(file):
    frame = results.load(file)
    assert list(frame.columns[:3]) == ORIGIN
    assert set(frame["file"]) == {"mine.json"}
    assert set(frame["command"]) == {"evaluate a b"}
    assert list(frame["setting"]) == ["unsteered", "steered", "steered"]
    assert list(frame["category"].fillna("-")) == ["-", "all", "gore"]
    assert list(frame["asr"]) == [0.5, 0.0, 0.25]
    assert list(frame["asr_high"]) == [0.6, 0.1, 1.0]
    assert frame["usable_low"].isna().all()
    assert (frame["window_low"][0], frame["window_high"][0]) == (0, 1)
    assert list(frame["mix"].fillna("-")) == ["{}", '{"gore": 1.0}', "-"]
    assert list(frame["strength"].fillna(-1)) == [-1, 2, 2]
    assert pandas.api.types.is_numeric_dtype(frame["asr"])
    assert "asr_ci" not in frame


def test_files_are_put_one_below_the_other(file, tmp_path):
    other = write_result(tmp_path / "other.json", "calibrate", [], [{"setting": 3, "commit": "abc", "loss": 0.1}])
    frame = results.load(file, other)
    assert list(frame["file"]) == ["mine.json"] * 3 + ["other.json"]
    assert frame["commit"][3] == "abc"  # a row's own goes before its file's
    assert list(frame["setting"]) == ["unsteered", "steered", "steered", "3"]  # words and numbers meet
    assert frame["loss"].isna().sum() == 3


@pytest.mark.parametrize("suffix", results.SUFFIXES)
def test_every_results_file_of_the_repository_is_written_and_read_again(repo_root, tmp_path, suffix):
    files = sorted((repo_root / "demo" / "results").glob("*.json"))
    assert len(files) > 10
    frame = results.load(*files)
    assert set(frame["file"]) == {path.name for path in files}
    path = results.save(frame, tmp_path / f"table{suffix}")
    again = pandas.read_csv(path, low_memory=False) if suffix == ".csv" else pandas.read_parquet(path)
    assert list(again.columns) == list(frame.columns)
    for name in ("asr", "asr_low", "asr_high"):
        pandas.testing.assert_series_equal(again[name], frame[name])
    reins = json.loads((repo_root / "demo" / "results" / "reins.json").read_text())["rows"]
    measured = [row for row in reins if "asr_ci" in row]
    assert len(measured) > 10
    kept = again[(again["file"] == "reins.json") & again["asr_high"].notna()]
    assert list(kept["asr"]) == [row["asr"] for row in measured]
    assert list(kept["asr_high"]) == [row["asr_ci"][1] for row in measured]


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"rows": 1}', '{"rows": [1]}'])
def test_a_file_without_results_gets_one_sentence(tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"odd\.json (holds no results|cannot be read as JSON)"):
        results.load(path)
    with pytest.raises(ResultsError, match=r"nope\.json: the file does not exist"):
        results.load(tmp_path / "nope.json")


def test_a_missing_package_gets_one_sentence(file, tmp_path, monkeypatch):
    frame = results.load(file)
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SafetySteeringError, match="Install it: pip install pyarrow"):
        results.save(frame, tmp_path / "table.parquet")
    assert not (tmp_path / "table.parquet").exists()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SafetySteeringError, match="Install it: pip install pandas"):
        results.load(file)


def test_the_command_prints_or_writes_the_table(file, tmp_path, capsys):
    assert main(["results", str(file)]) == 0
    printed = pandas.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(printed["asr"]) == [0.5, 0.0, 0.25]
    target = str(tmp_path / "table.parquet")
    assert main(["results", str(file), str(file), "--out", target]) == 0
    assert capsys.readouterr().out.startswith("table.parquet: 6 rows, ")
    assert len(pandas.read_parquet(target)) == 6
    assert main(["results", str(file), "--out", target]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["results", str(file), "--out", target, "--overwrite"]) == 0
    assert main(["results", str(file), "--out", str(tmp_path / "table.xlsx")]) == 1
    assert "ends with neither of .csv, .parquet" in capsys.readouterr().err
