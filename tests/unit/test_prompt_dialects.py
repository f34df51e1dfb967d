"""Prompt files as people have them: late keys, Excel's dialects, quotes, encodings, datasets' folders."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from safety_steering_pack.safety_steering.errors import PromptFileError
from safety_steering_pack.safety_steering.prompts.files import data_files, dataset_folders, load_prompts
from safety_steering_pack.safety_steering.prompts.prompt_set import describe_prompts

ROWS = [
    {"id": "1", "category": "violence", "unsafe": "a knife fight, at night", "safe": "a pillow fight, at night"},
    {"id": "2", "category": "hate", "unsafe": "a mob", "safe": "a parade"},
]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_parquet(path: Path, rows: list[dict], schema=None) -> Path:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
    return path


def lines(rows: list[dict]) -> str:
    return "\n".join(map(json.dumps, rows))


def check(path: Path, **options: str) -> str:
    """Loads the two rows of ROWS from a file; returns the preview."""
    read = load_prompts(path, **options)
    assert [{**row.prompts, "id": row.id, "category": row.category} for row in read.rows] == ROWS
    return describe_prompts(read.split())


def complaint(path: Path, **options: str) -> str:
    with pytest.raises(PromptFileError) as caught:
        load_prompts(path, **options)
    return str(caught.value)


# Keys that come late, lack or hold nothing


def test_keys_that_come_late_are_columns(tmp_path):
    rows = [
        {"unsafe": "a duel with knives", "safe": "a duel with fans"},
        {
            "unsafe": "a burning car",
            "safe": "a red car",
            "category": "violence",
            "split": "train",
            "negative": "a wreck",
        },
    ]
    for name, content in (("set.jsonl", lines(rows)), ("set.json", json.dumps(rows))):
        first, second = load_prompts(put(tmp_path, name, content)).rows
        assert (first.category, first.split) == ("unsafe", "")
        assert (second.category, second.split, second.negative) == ("violence", "train", "a wreck")


def test_a_label_that_comes_late_decides(tmp_path):
    rows = [{"prompt": "a lake"}, {"prompt": "a fight", "label": "unsafe"}, {"prompt": "a hill", "label": None}]
    path = put(tmp_path, "set.jsonl", lines(rows))
    assert [row.prompts for row in load_prompts(path, unpaired="safe").rows] == [
        {"safe": "a lake"}, {"unsafe": "a fight"}, {"safe": "a hill"},
    ]  # fmt: skip
    assert "prompts without a label are taken for safe" in describe_prompts(load_prompts(path, unpaired="safe"))
    assert "Line 1: A prompt has no label" in complaint(path)


@pytest.mark.parametrize("empty", ["null", "NaN", '""', '"  "'])
def test_an_empty_value_is_a_missing_one(tmp_path, empty):
    text = f'{{"unsafe": "a", "safe": "b", "category": {empty}, "id": {empty}}}\n{{"unsafe": {empty}, "safe": {empty}}}'
    read = load_prompts(put(tmp_path, "set.jsonl", text))
    assert [(row.unsafe, row.category) for row in read.rows] == [("a", "unsafe")]
    assert "2 rows read, 1 left out" in read.notes
    assert "left out, without a prompt: 1 (line 2)" in read.notes


def test_a_rows_own_split_stays(tmp_path):
    rows = [{"unsafe": f"u{i}", "safe": f"s{i}", **({"split": "test"} if i % 2 else {})} for i in range(40)]
    drawn = load_prompts(put(tmp_path, "set.jsonl", lines(rows))).split(1, 0)
    assert {row.split for row in drawn.rows if int(row.unsafe[1:]) % 2} == {"test"}
    assert {row.split for row in drawn.rows if not int(row.unsafe[1:]) % 2} == {"train"}
    assert "20 of 40 rows have a split of their own; the others are drawn" in drawn.notes


def test_a_deep_label_is_read(tmp_path):
    row = {"prompt": "a mob", "a": {"b": {"c": {"d": {"e": {"label": "unsafe"}}}}}}
    read = load_prompts(put(tmp_path, "set.jsonl", json.dumps(row)), unpaired="safe")
    assert [row.prompts for row in read.rows] == [{"unsafe": "a mob"}]


def test_texts_in_nested_objects_are_columns(tmp_path):
    rows = [{"row": {"unsafe": "a fight", "safe": "a dance", "meta": {"category": "Violence"}}}]
    for name, content in (("set.jsonl", lines(rows)), ("set.json", json.dumps({"features": [], "rows": rows}))):
        read = load_prompts(put(tmp_path, name, content))
        assert (read.rows[0].unsafe, read.rows[0].category) == ("a fight", "violence")
        assert any("category from 'row.meta.category'" in note for note in read.notes)
    read = load_prompts(put_parquet(tmp_path / "set.parquet", rows))
    assert (read.rows[0].safe, read.rows[0].category) == ("a dance", "violence")


@pytest.mark.parametrize(
    "value",
    [
        {"train": ROWS[:1], "test": ROWS[1:]},
        {"data": ROWS, "version": 1},
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        {name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]},
    ],
    ids=["a list a split", "one list", "a list a column", "an object a column"],
)
def test_json_as_other_programs_write_it(tmp_path, value):
    path = put(tmp_path, "set.json", json.dumps(value))
    check(path)
    if "train" in value:
        assert [row.split for row in load_prompts(path).rows] == ["train", "test"]


def test_json_and_jsonl_under_each_others_name(tmp_path):
    check(put(tmp_path, "set.json", lines(ROWS)))
    check(put(tmp_path, "set.jsonl", json.dumps(ROWS, indent=1)))


def test_line_breaks_inside_of_json_texts_end_no_line(tmp_path):
    path = put(tmp_path, "set.jsonl", json.dumps({"safe": "one\u2028two\x85three"}, ensure_ascii=False) + "\r\n")
    assert load_prompts(path).rows[0].safe == "one two three"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("set.jsonl", '{"unsafe": "a", "safe": "b"}\n\n{"unsafe": "a", }', "Line 3 is not JSON"),
        ("set.json", '[{"unsafe": "a"},\n{"unsafe" "b"}]', "Line 2 is not JSON"),
        ("set.jsonl", '{"unsafe": "a", "unsafe": "b"}', "names a key twice: unsafe"),
        ("set.jsonl", '{"unsafe": "a"}\n{"Unsafe": "b"}', "It has 2 columns named 'unsafe'"),
        ("set.csv", "unsafe,safe,Unsafe\na,b,c\n", "It has 2 columns named 'unsafe'"),
        (
            "set.csv",
            "prompt,unsafe\na fight,1\na lake,0\n",
            "column 'unsafe' holds only flags or numbers such as 1, no prompts",
        ),
        ("set.json", '[{"unsafe": "a"}, "b"]', "Row 2 is not a JSON object"),
        ("set.jsonl", '{"unsafe": "a"}\n{"unsafe": ["b"]}', "Line 2: A prompt is a list"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused(tmp_path, name, content, words):
    assert words in complaint(put(tmp_path, name, content))


# Separated values


def separated(separator: str, *more: str) -> str:
    texts = [list(ROWS[0]), *([*row.values()] for row in ROWS)]
    quoted = [separator.join(f'"{text}"' if separator in text else text for text in row) for row in texts]
    return "\r\n".join([*more, *quoted, ""])


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(("separator", "name"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_the_separator_is_told_by_the_first_line(tmp_path, suffix, separator, name):
    preview = check(put(tmp_path, f"set{suffix}", separated(separator)))
    assert ("separated by" in preview) == ((suffix, separator) not in ((".csv", ","), (".tsv", "\t")))
    assert f"separated by {name}" in preview or "separated by" not in preview


@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("line", ["sep={}", '"sep={}"', "SEP={}"])
def test_excels_first_line_says_the_separator(tmp_path, separator, line):
    check(put(tmp_path, "set.csv", separated(separator, line.format(separator))))


def test_decimal_commas_and_empty_rows_of_a_spreadsheet(tmp_path):
    text = "id;category;score;unsafe;safe\n1;violence;0,5;a knife fight, at night;a pillow fight, at night\n;;;;\n\n"
    text += "2;hate;12,75;a mob;a parade\n;;;;\n"
    assert "columns not read: score" in check(put(tmp_path, "set.csv", text))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["set.csv", "set.jsonl", "set.json", "set.csv.gz", "set.JSONL.GZ"])
def test_every_unicode_encoding_is_read(tmp_path, encoding, name):
    text = separated(",") if "csv" in name else json.dumps(ROWS) if name == "set.json" else lines(ROWS)
    content = text.encode(encoding)
    preview = check(put(tmp_path, name, gzip.compress(content) if name.lower().endswith("gz") else content))
    assert (f"{encoding[:6].upper()} text" in preview) == (not encoding.startswith("utf-8"))


def test_a_gzip_file_is_bounded_and_whole(tmp_path):
    whole = gzip.compress(lines(ROWS).encode())
    assert "not a whole gzip file" in complaint(put(tmp_path, "half.jsonl.gz", whole[:-9]))
    assert "not a whole gzip file" in complaint(put(tmp_path, "text.jsonl.gz", lines(ROWS)))
    assert "unpacks to more than" in complaint(put(tmp_path, "bomb.txt.gz", gzip.compress(b"a " * 2**28, 1)))


PLAIN = "quotes are plain characters"


@pytest.mark.parametrize(
    ("name", "rows", "expected", "note"),
    [
        ("set.tsv", ['"the end\ta calm end', "a mob\ta parade"], ['"the end', "a mob"], PLAIN),
        ("set.tsv", ['"the end\ta calm end', 'a mob\ta "parade"', 'x\ty"'], ['"the end', "a mob", "x"], PLAIN),
        ("set.tsv", ['"hello" he said\ta greeting', "a mob\ta parade"], ['"hello" he said', "a mob"], PLAIN),
        ("set.csv", ['"the end,a calm end', "a mob,a parade"], ['"the end', "a mob"], PLAIN),
        ("set.csv", ['a 5" nail,a nail', "a mob,a parade"], ['a 5" nail', "a mob"], ""),
        ("set.csv", ['"one\ntext, two lines",b', "a mob,a parade"], ["one text, two lines", "a mob"], ""),
        ("set.csv", ['"he said ""go""",b', "a mob,a parade"], ['he said "go"', "a mob"], ""),
        (
            "set.csv",
            ['"he said \\"go\\", loud",b', "a mob,x"],
            ['he said "go", loud', "a mob"],
            "escaped by backslashes",
        ),
        ("set.csv", ['a mob, "a, parade"', "x, y"], ["a mob", "x"], "spaces before quotes are left out"),
    ],
)
def test_quotes_swallow_no_rows(tmp_path, name, rows, expected, note):
    header = "unsafe\tsafe" if name.endswith("tsv") else "unsafe,safe"
    read = load_prompts(put(tmp_path, name, "\n".join([header, *rows, ""])))
    assert [row.unsafe for row in read.rows] == expected
    assert all(row.safe for row in read.rows)
    assert any(note in said for said in read.notes)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (['"a, fight",b', '"the end,c', '"x, y",z'], "Line 3: a quote is not closed, or stands inside"),
        (['"a, fight",b', 'x,"the end', "c,d"], "Line 3: a quote is not closed"),
        (["1,2", '"a,b', '2",c'], "Line 3: a quote opens here and closes lines below"),
        (["a knife fight, at night,b"], "Line 2 has 3 values, and the first line names 2 columns"),
    ],
)
def test_quotes_that_do_not_add_up_are_refused_with_their_line(tmp_path, rows, words):
    assert words in complaint(put(tmp_path, "set.csv", "\n".join(["unsafe,safe", *rows, ""])))


def test_the_line_counts_from_the_files_first(tmp_path):
    path = put(tmp_path, "set.csv", "sep=;\n\nunsafe;safe\na;b;c\n")
    assert "Line 4 has 3 values" in complaint(path)


def test_rows_that_repeat_or_lack_values_are_counted(tmp_path):
    read = load_prompts(put(tmp_path, "set.csv", "unsafe,safe,note\na,b,c\na,b,d\nx,y\n"))
    assert "3 rows read, 1 left out" in read.notes
    assert "left out, repeated: 1 (line 3)" in read.notes
    assert "1 rows have fewer values than the first line" in read.notes


@pytest.mark.parametrize("name", ["set.csv", "set.tsv", "set.jsonl", "set.txt"])
def test_byte_order_marks_of_joined_files_are_no_text(tmp_path, name):
    """A second mark hid the first column, so that unsafe prompts vanished and their rows came out benign."""
    separator = "\t" if name.endswith("tsv") else ","
    header = separator.join(ROWS[0]) + "\n"
    cells = [separator.join(f'"{text}"' for text in row.values()) + "\n" for row in ROWS]
    parts = {".jsonl": [f"{line}\n" for line in lines(ROWS).split("\n")], ".txt": ["a mob\n", "a parade\n"]}
    whole = parts.get(Path(name).suffix, [header + cell for cell in cells])
    path = put(tmp_path, name, "\ufeff" + "".join(f"\ufeff{part}" for part in whole))
    if name.endswith("txt"):
        assert [row.safe for row in load_prompts(path, unpaired="safe").rows] == ["a mob", "a parade"]
    else:
        assert ("the first line stands 2 times" in check(path)) is not name.endswith("jsonl")


@pytest.mark.parametrize("missing", ["NA", "NaN", "NULL", "None", "#N/A", "\\N", "<NA>"])
def test_the_ways_programs_write_a_missing_value(tmp_path, missing):
    read = load_prompts(put(tmp_path, "set.csv", f"unsafe,safe,category\na mob,{missing},{missing}\nx,a walk,hate\n"))
    assert [(row.prompts, row.category) for row in read.rows] == [
        ({"unsafe": "a mob"}, "unsafe"),
        ({"unsafe": "x", "safe": "a walk"}, "hate"),
    ]
    assert "2 values such as NA or null are taken for missing" in read.notes


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("1", "0"), ("yes", "no"), ("True", "False")])
@pytest.mark.parametrize("column", ["is_unsafe", "is_safe", "label_unsafe"])
def test_flags_are_labels_where_the_column_says_of_what(tmp_path, column, yes, no):
    flags = (no, yes) if column == "is_safe" else (yes, no)
    path = put(tmp_path, "set.csv", f"prompt,{column}\na mob,{flags[0]}\na parade,{flags[1]}\n")
    options = {"columns": "label=label_unsafe"} if column == "label_unsafe" else {"unpaired": "safe"}
    assert [row.prompts for row in load_prompts(path, **options).rows] == [{"unsafe": "a mob"}, {"safe": "a parade"}]


@pytest.mark.parametrize("column", ["toxicity", "labels", "unsafe_score", "Safety (1-5)"])
def test_a_column_that_may_hold_labels_is_not_passed_over(tmp_path, column):
    path = put(tmp_path, "set.jsonl", json.dumps({"prompt": "a mob", column: 0.9}))
    assert f"The column '{column}' may say which prompts are unsafe" in complaint(path, unpaired="safe")
    assert [row.prompts for row in load_prompts(path, unpaired="safe", columns="label=-").rows] == [{"safe": "a mob"}]


@pytest.mark.parametrize("flags", [("yes", "no"), ("y", "n"), ("x", ""), ("ja", "nein")])
def test_flags_are_no_prompts(tmp_path, flags):
    path = put(tmp_path, "set.csv", f"prompt,unsafe\na mob,{flags[0]}\na parade,{flags[1]}\n")
    assert f"The column 'unsafe' holds only flags or numbers such as {flags[0]}" in complaint(path)


# Folders of datasets


@pytest.mark.parametrize(
    "name",
    ["train-{:05}-of-00003-a09b74b3ef9c.parquet", "train_{:04}_of_0003.parquet", "part-{:05}-of-00003.gz.parquet"],
)
@pytest.mark.parametrize("first", [0, 1])
def test_a_missing_shard_is_noticed_however_shards_are_named(tmp_path, name, first):
    for number in range(first, first + 3):
        put_parquet(tmp_path / "mine" / name.format(number), [{"unsafe": f"a mob {number}", "safe": "a parade"}])
    assert len(load_prompts(tmp_path / "mine").rows) == 3
    (tmp_path / "mine" / name.format(first + 1)).unlink()
    gone = name.format(first + 1).partition("3")[0] + "3"
    assert f"The shard {gone} is missing" in complaint(tmp_path / "mine")


def test_shards_with_different_columns(tmp_path):
    folder = tmp_path / "mine"
    put_parquet(folder / "a.parquet", [{"prompt": "a walk"}])
    put_parquet(folder / "b.parquet", [{"prompt": "a mob", "label": "unsafe"}])
    assert [row.prompts for row in load_prompts(folder, unpaired="safe").rows] == [
        {"safe": "a walk"},
        {"unsafe": "a mob"},
    ]
    put_parquet(folder / "c.parquet", [{"text": "a fight", "label": "unsafe"}])
    assert "c.parquet has the columns text, label, and other files have prompts in prompt" in complaint(folder)
    put_parquet(folder / "c.parquet", [{"prompt": "a fight", "label": "unsafe"}])
    put(folder, "d.jsonl", lines(ROWS))
    assert "files not read beside the parquet files: d.jsonl" in load_prompts(folder, unpaired="safe").notes


def test_shards_are_one_set_with_the_splits_of_their_names(tmp_path):
    folder = tmp_path / "mine"
    for i, row in enumerate(ROWS):
        put_parquet(folder / "data" / f"train-0000{i}-of-00002.parquet", [row])
    put_parquet(folder / "data" / "validation-00000-of-00001.parquet", [{"unsafe": "x", "safe": "y"}])
    put(folder, "README.md", "about")
    put(folder, "dataset_infos.json", "{}")
    read = load_prompts(folder)
    assert [(row.unsafe, row.split) for row in read.rows] == [
        ("a knife fight, at night", "train"), ("a mob", "train"), ("x", "validation"),
    ]  # fmt: skip
    assert (read.name, read.notes[0]) == ("mine", "3 files of a dataset's folder")
    (folder / "data" / "train-00001-of-00002.parquet").unlink()
    assert "The shard train-00001-of-00002 is missing" in complaint(folder)


@pytest.mark.parametrize("name", ["{}.jsonl", "{}.csv", "data/{}.jsonl.gz", "{}/0000.parquet", "data/{}/rows.json"])
def test_other_layouts_of_a_dataset(tmp_path, name):
    for split, row in zip(("train", "val"), ROWS, strict=True):
        path = tmp_path / "mine" / name.format(split)
        if path.suffix == ".parquet":
            put_parquet(path, [row])
        elif path.suffix == ".csv":
            put(path.parent, path.name, "\n".join([",".join(row), ",".join(f'"{text}"' for text in row.values())]))
        else:
            content = json.dumps([row]) if path.suffix == ".json" else lines([row])
            put(path.parent, path.name, gzip.compress(content.encode()) if path.suffix == ".gz" else content)
    check(tmp_path / "mine")
    assert [row.split for row in load_prompts(tmp_path / "mine").rows] == ["train", "validation"]
    assert dataset_folders(str(path.relative_to(tmp_path)) for path in data_files(tmp_path / "mine")) == ["mine"]


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    assert "has no parquet, csv, tsv or json files" in complaint(tmp_path)
    put(tmp_path, "a.csv", "")
    put(tmp_path, "b.jsonl", "")
    assert "tables of several kinds (.csv, .jsonl)" in complaint(tmp_path)
    assert dataset_folders(["a.csv", "mine/pairs.csv", "T2VSafetyBench/1.txt", "other/train.csv"]) == ["other"]


def test_numbered_labels_of_a_dataset_have_their_names(tmp_path):
    import pyarrow

    label = {"_type": "ClassLabel", "names": ["safe", "unsafe"]}
    about = {"huggingface": json.dumps({"info": {"features": {"label": label, "prompt": {"_type": "Value"}}}})}
    schema = pyarrow.schema([("prompt", pyarrow.string()), ("label", pyarrow.int64())], metadata=about)
    rows = [{"prompt": "a fight", "label": 1}, {"prompt": "a lake", "label": 0}, {"prompt": "a hill", "label": -1}]
    path = put_parquet(tmp_path / "set.parquet", rows, schema)
    assert "Row 3: A prompt has no label" in complaint(path)
    assert [row.prompts for row in load_prompts(path, unpaired="safe").rows] == [
        {"unsafe": "a fight"}, {"safe": "a lake"}, {"safe": "a hill"},
    ]  # fmt: skip


def test_of_a_large_parquet_file_only_the_texts_are_read(tmp_path, monkeypatch):
    from safety_steering_pack.safety_steering.prompts import files, records

    image = {"bytes": b"0123456789" * 20_000}
    path = put_parquet(tmp_path / "set.parquet", [{"safe": f"a lake {i}", "image": image} for i in range(8)])
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(records, "MAX_UNPACKED_BYTES", 10_000)
    assert len(load_prompts(path).rows) == 8
