"""`python -m safety_steering prompts`: the preview of Load Safety Prompts on the command line."""

from __future__ import annotations

import pytest
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering.prompts.files import load_prompts
from safety_steering_pack.safety_steering.prompts.prompt_set import describe_prompts
from safety_steering_pack.safety_steering.prompts.selection import Selection, load_selected

ROWS = """nr,category,bad,good,split
1,violence,two men fight,two men dance,train
2,violence,two men fight,two men dance,train
3,hate,a hateful rally,a cheerful rally,test
,,,,
4,hate,a hateful song,a cheerful song,
"""
COLUMNS = "unsafe=bad, safe=good"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(ROWS)
    return path


def preview(capsys, *arguments) -> list[str]:
    assert main(["prompts", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_it_says_how_the_file_was_read(file, capsys):
    told = preview(capsys, file, "--columns", COLUMNS, "--train", 0, "--validation", 1)
    assert told[0].startswith("mine.csv: 3 pairs, sha256 ")
    assert told[1:3] == ["violence: 1 train, 0 validation, 0 test", "hate: 0 train, 1 validation, 1 test"]
    assert "4 rows read, 1 left out" in told
    assert "left out, repeated: 1 (line 3)" in told
    assert "columns not read: nr" in told
    assert "  unsafe: a hateful rally" in told


def test_options_choose_rows_and_examples(file, capsys):
    told = preview(capsys, file, "--columns", COLUMNS, "--categories", "hate", "--limit", 1, "--examples", 0)
    assert told[0].startswith("mine.csv: 1 pairs")
    assert not [line for line in told if line.startswith(("violence", "  unsafe"))]
    alone = load_selected(file, Selection(columns=COLUMNS, categories="Hate", limit=1))
    assert told == f"{describe_prompts(alone, 0)}\n".splitlines()


def test_the_selection_is_drawn_by_its_seed(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("unsafe,safe\n" + "\n".join(f"unsafe {i},safe {i}" for i in range(200)))
    first, again, other = (load_selected(path, Selection(limit=50, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.rows != other.rows
    assert len(first.rows) == 50
    assert load_selected(path, Selection()) == load_prompts(path).split(0.6, 0.2, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--columns", "unsafe=no"], "mine.csv: There is no column 'no'"),
        (["--columns", COLUMNS, "--categories", "gloom"], "mine.csv has no category 'gloom'"),
        (["--columns", COLUMNS, "--train", "2"], "The shares train 2 and validation 0.2 must be"),
        ([], "mine.csv: No column of prompts was recognised"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(file, arguments, words, capsys):
    assert main(["prompts", str(file), *arguments]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(words)
    assert len(told.err.splitlines()) == 1
    assert not told.out


def test_a_file_that_is_not_there_gets_one_sentence(tmp_path, capsys):
    assert main(["prompts", str(tmp_path / "nope.csv")]) == 1
    assert capsys.readouterr().err.startswith("nope.csv: The file is missing. Check its name and its folder")
