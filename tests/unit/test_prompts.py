"""Prompt sets: every kind of file and public format, splits by pair, lengths, and one sentence for bad files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_steering_pack.safety_steering.errors import PromptFileError, SafetySteeringError
from safety_steering_pack.safety_steering.prompts import files as prompt_files
from safety_steering_pack.safety_steering.prompts import table
from safety_steering_pack.safety_steering.prompts.files import load_prompts
from safety_steering_pack.safety_steering.prompts.prompt_set import SPLITS, PromptRow, PromptSet, describe_prompts

PAIRS = [
    {"id": "a", "category": "violence", "unsafe": "two men fight", "safe": "two men dance", "negative": "two men weep"},
    {"id": "b", "category": "hate", "unsafe": "a hateful rally", "safe": "a cheerful rally", "negative": "a wet rally"},
]


def separated(rows: list[dict], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path, rows):
    """Write rows as a file of the kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    texts = {
        ".csv": lambda: separated(rows),
        ".tsv": lambda: separated(rows, "\t"),
        ".jsonl": lambda: "\n".join(map(json.dumps, rows)),
        ".json": lambda: json.dumps(rows),
    }
    path.write_text(texts[path.suffix](), encoding="utf-8")
    return path


def many(count: int) -> PromptSet:
    names = ("hate", "violence", "sexual")
    return PromptSet(tuple(PromptRow(f"r{i}", names[i % 3], f"unsafe {i}", f"safe {i}") for i in range(count)))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path, suffix):
    read = load_prompts(write(tmp_path / f"set{suffix}", PAIRS))
    assert [{**row.prompts, "id": row.id, "category": row.category} for row in read.rows] == PAIRS
    assert read.paired
    assert read.sha256 == load_prompts(write(tmp_path / "other.csv", PAIRS[::-1])).sha256


# The public formats


def test_safesteerdataset(tmp_path):
    rows = [
        {"safe_prompt": "a calm street", "unsafe_prompt": "a street robbery", "category": "Illegal Activity",
         "subcategory": "Theft and robbery"},
        {"safe_prompt": "a hallway", "unsafe_prompt": "a shaming in a hallway", "category": "Humiliation",
         "subcategory": "Public shaming"},
    ]  # fmt: skip
    read = load_prompts(write(tmp_path / "train.parquet", rows))
    assert read.source_format == "SafeSteerDataset"
    assert read.categories == ("illegal", "humiliation")
    assert (read.rows[0].unsafe, read.rows[0].safe) == ("a street robbery", "a calm street")


def test_i2p(tmp_path):
    row = {"": 0, "prompt": "a grim, dark scene", "categories": "hate, self-harm, shocking", "hard": 0,
           "inappropriate_percentage": 40.0, "nudity_percentage": 0.0, "prompt_toxicity": 0.1}  # fmt: skip
    read = load_prompts(write(tmp_path / "i2p_benchmark.csv", [row]))
    assert read.source_format == "I2P"
    assert read.rows[0].prompts == {"unsafe": "a grim, dark scene"}
    assert read.rows[0].categories == ("hate", "disturbing")


@pytest.mark.parametrize(
    ("name", "category"), [("1.txt", "sexual"), ("6.txt", "public_figures"), ("10.txt", "illegal")]
)
def test_t2vsafetybench(tmp_path, name, category):
    path = tmp_path / "T2VSafetyBench" / name
    path.parent.mkdir()
    path.write_text("first prompt\r\n\r\nsecond, with a comma\x07 and a bell\r\n")
    read = load_prompts(path)
    assert [row.prompts for row in read.rows] == [
        {"unsafe": "first prompt"},
        {"unsafe": "second, with a comma and a bell"},
    ]
    assert (read.source_format, read.categories) == ("T2VSafetyBench", (category,))


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_safesora(tmp_path, suffix):
    labels = {"porn": False, "violence": True, "racism": True, "crime": False, "other_harmful": True}
    critical = {"prompt_id": "p1", "prompt_text": "a fight", "prompt_type": "safety_critical", "prompt_labels": labels}
    neutral = {"prompt_id": "p2", "prompt_text": "a lake", "prompt_type": "safety_neutral",
               "prompt_labels": dict.fromkeys(labels, False)}  # fmt: skip
    rows = [critical | {"video_id": 1}, critical | {"video_id": 2}, neutral | {"video_id": 3}]
    read = load_prompts(write(tmp_path / f"config-train{suffix}", rows))
    assert read.source_format == "SafeSora"
    assert [row.prompts for row in read.rows] == [{"unsafe": "a fight"}, {"safe": "a lake"}]
    assert [set(row.categories) for row in read.rows] == [{"violence", "hate", "other_harmful"}, {"benign"}]
    assert not read.paired


def test_ring_a_bell(tmp_path):
    rows = [{"prompt": "two men fight", "prompt1": "two men talk"}]
    read = load_prompts(write(tmp_path / "Violence_30.csv", rows))
    assert (read.source_format, read.categories) == ("Ring-A-Bell", ("violence",))
    assert read.rows[0].prompts == {"unsafe": "two men fight", "safe": "two men talk"}


def test_coco_captions_keep_one_caption_a_picture(tmp_path):
    captions = [
        {"image_id": 7, "id": 1, "caption": "A cat on a sofa.\n"},
        {"image_id": 7, "id": 2, "caption": "A sleeping cat."},
        {"image_id": 9, "id": 3, "caption": "A red bus."},
    ]
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps({"info": {}, "images": [], "annotations": captions}))
    read = load_prompts(path)
    assert read.source_format == "COCO captions"
    assert {row.id: row.prompts for row in read.rows} == {
        "7": {"safe": "A cat on a sofa."},
        "9": {"safe": "A red bus."},
    }
    assert read.categories == ("benign",)


# Columns


def test_chosen_columns_win_over_guesses(tmp_path):
    row = {"unsafe": "x one", "safe": "y one", "Topic": "Self-Harm", "other": "z one"}
    path = write(tmp_path / "set.csv", [row])
    read = load_prompts(path, columns="safe = OTHER, category=topic")
    assert read.rows[0].prompts == {"unsafe": "x one", "safe": "z one"}
    assert read.categories == ("disturbing",)
    assert load_prompts(path, columns="category=-").categories == ("unsafe",)


def test_a_lone_column_needs_to_be_told_its_side(tmp_path):
    path = write(tmp_path / "set.csv", [{"Prompt": "a lake"}])
    with pytest.raises(PromptFileError, match=r"nothing says whether they are safe or unsafe\. Set unpaired"):
        load_prompts(path)
    assert load_prompts(path, unpaired="safe").rows[0].prompts == {"safe": "a lake"}
    assert load_prompts(path, unpaired="unsafe").rows[0].prompts == {"unsafe": "a lake"}
    labelled = write(
        tmp_path / "labelled.csv", [{"text": "a lake", "label": "benign"}, {"text": "x", "label": "toxic"}]
    )
    assert [row.prompts for row in load_prompts(labelled).rows] == [{"safe": "a lake"}, {"unsafe": "x"}]


def test_a_row_without_an_id_is_named_by_its_prompts(tmp_path):
    rows = [{"unsafe": f"u {i}", "safe": f"s {i}"} for i in range(20)]
    one = load_prompts(write(tmp_path / "one.csv", rows)).split(seed=3)
    more = load_prompts(write(tmp_path / "more.csv", [{"unsafe": "new", "safe": "new too"}, *rows, rows[0]])).split(
        seed=3
    )
    assert len(more.rows) == 21  # what stands there twice is kept once
    assert set(one.rows) < set(more.rows)


def test_a_file_may_bring_its_splits(tmp_path):
    rows = [row | {"split": split} for row, split in zip(PAIRS, ("val", "TEST"), strict=True)]
    read = load_prompts(write(tmp_path / "set.csv", rows))
    assert [row.split for row in read.rows] == ["validation", "test"]
    assert {row.split for row in read.rows} == {"validation", "test"}
    assert {row.split for row in load_prompts(tmp_path / "set.csv", columns="split=-").rows} == {""}


# Errors


def damaged_parquet(path):
    write(path, PAIRS)
    path.write_bytes(path.read_bytes()[:-20])


BAD = {
    "missing": ("no.csv", lambda path: None, "The file is missing"),
    "another kind": ("set.xlsx", lambda path: path.write_text("x"), "none of .csv, .tsv"),
    "empty": ("set.csv", lambda path: path.write_bytes(b""), "was recognised. The columns found: none"),
    "empty lines": ("set.jsonl", lambda path: path.write_text("\n"), "The columns found: none"),
    "no rows": ("set.csv", lambda path: path.write_text("unsafe,safe\n"), "holds no prompts"),
    "blank rows": ("set.csv", lambda path: path.write_text("unsafe,safe\n , \n"), "holds no prompts"),
    "unknown columns": (
        "set.csv", lambda path: path.write_text("good,bad\na,b\n"),
        "The columns found: good, bad. Say which is which, for example: unsafe=column_a",
    ),
    "latin-1": ("set.csv", lambda path: path.write_bytes(b"unsafe,safe\n\xe9,e\n"), "not UTF-8 text (at byte 12)"),
    "half of utf-16": ("set.txt", lambda path: path.write_bytes("hello".encode("utf-16")[:-1]), "not UTF-16 text"),
    "ids twice": (
        "set.csv", lambda path: path.write_text("id,unsafe,safe\n1,a,b\n1,c,d\n"), "gives 1 ids to rows that differ",
    ),
    "unknown split": (
        "set.csv", lambda path: path.write_text("id,unsafe,safe,split\n1,a,b,later\n"), "is in the split 'later'",
    ),
    "unknown label": (
        "set.csv", lambda path: path.write_text("text,label\na,1\n"), "The label '1' says neither safe nor unsafe",
    ),
    "broken json": ("set.jsonl", lambda path: path.write_text('{"unsafe": "a"'), "Line 1 is not JSON"),
    "no objects": ("set.jsonl", lambda path: path.write_text("[1]\n"), "not a JSON object"),
    "not a list": ("set.json", lambda path: path.write_text('{"a": 1}'), "neither a list of JSON objects"),
    "nested prompt": ("set.json", lambda path: path.write_text('[{"unsafe": ["a"]}]'), "A prompt is a list"),
    "deep json": ("set.json", lambda path: path.write_text("[" * 100_000), "It cannot be read"),
    "many values": ("set.json", lambda path: path.write_text("[" + "[]," * 2_000_001), "more than 2000000 JSON values"),
    "long prompt": ("set.txt", lambda path: path.write_text("a" * 4_001), "A prompt has 4001 characters"),
    "wide table": ("set.csv", lambda path: path.write_text("a," * 300), "It has 301 columns"),
    "wider table": ("set.csv", lambda path: path.write_text("," * 1_000_000), "more than 10000 columns"),
    "no parquet": ("set.parquet", lambda path: path.write_text("nothing"), "It is not a whole parquet file"),
    "damaged parquet": ("set.parquet", damaged_parquet, "It is not a whole parquet file"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "make", "words"), BAD.values(), ids=BAD)
def test_a_bad_file_gets_one_sentence_with_its_name(tmp_path, name, make, words):
    make(tmp_path / name)
    with pytest.raises(PromptFileError) as caught:
        load_prompts(tmp_path / name, unpaired="unsafe" if name.endswith(".txt") else "")
    said = str(caught.value)
    assert words in said
    assert said.startswith(name)
    assert len(said) < 500
    assert "\n" not in said


@pytest.mark.parametrize("columns", ["unsafe", "good=a", "unsafe=", "unsafe=a, unsafe=b", "=a"])
def test_columns_that_do_not_read_are_refused(tmp_path, columns):
    path = write(tmp_path / "set.csv", PAIRS)
    with pytest.raises(PromptFileError, match=r"Write each field once, as field=column"):
        load_prompts(path, columns=columns)


def test_a_chosen_column_that_is_not_there_names_those_that_are(tmp_path):
    path = write(tmp_path / "set.csv", PAIRS)
    with pytest.raises(PromptFileError, match=r"no column 'bad'\. The columns found: id, category, unsafe, safe"):
        load_prompts(path, columns="unsafe=bad")


def test_large_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = write(tmp_path / "set.csv", PAIRS)
    with path.open("ab") as file:
        file.truncate(prompt_files.MAX_FILE_BYTES + 1)  # sparse: takes no room
    with pytest.raises(PromptFileError, match="at most 67108864 are read"):
        load_prompts(path)
    monkeypatch.setattr(table, "MAX_ROWS", 1)
    for suffix in (".csv", ".parquet"):
        with pytest.raises(PromptFileError, match="rows"):
            load_prompts(write(tmp_path / f"rows{suffix}", PAIRS))


def test_a_small_parquet_file_cannot_unpack_to_gigabytes(tmp_path):
    path = write(tmp_path / "bomb.parquet", [{"unsafe": "a" * 3_000_000, "safe": f"{i}"} for i in range(100)])
    assert path.stat().st_size < prompt_files.MAX_FILE_BYTES
    with pytest.raises(PromptFileError):
        load_prompts(path)


def test_without_pyarrow_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "set.parquet", PAIRS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PromptFileError, match="need the package pyarrow"):
        load_prompts(path)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300), suffix=st.sampled_from(prompt_files.SUFFIXES))
def test_any_bytes_are_a_set_or_a_sentence(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(PromptFileError):
        assert load_prompts(path, unpaired="safe").rows


# Sets and splits


def test_a_split_follows_the_shares_and_keeps_pairs_together():
    drawn = many(3000).split(0.6, 0.2, seed=1)
    counts = Counter(row.split for row in drawn.rows)
    assert [counts[split] / 3000 for split in SPLITS] == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    assert sum(len(drawn.in_split(split).rows) for split in SPLITS) == 3000
    assert drawn.shared_between_splits() == 0
    assert drawn.sha256 == many(3000).sha256


def test_a_split_is_the_same_after_rows_are_added_and_another_with_another_seed():
    before = {row.id: row.split for row in many(300).split(seed=5).rows}
    after = {row.id: row.split for row in many(600).split(seed=5).rows}
    assert before.items() <= after.items()
    assert before != {row.id: row.split for row in many(300).split(seed=6).rows}
    assert (
        "".join(before[f"r{i}"][1] for i in range(16)) == "rararrrrrrrearra"
    )  # another hash would move everyone's splits


@pytest.mark.parametrize("shares", [(0.8, 0.3), (-0.1, 0.5), (float("nan"), 0.2)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(SafetySteeringError, match="at most 1 together"):
        many(3).split(*shares)


def test_shares_of_nothing_and_of_all():
    assert {row.split for row in many(50).split(0, 0).rows} == {"test"}
    assert {row.split for row in many(50).split(1, 0).rows} == {"train"}


def test_a_limit_takes_evenly_from_the_categories():
    limited = many(300).limited(10, seed=2)
    assert sorted(Counter(row.category for row in limited.rows).values()) == [3, 3, 4]
    assert set(limited.rows) < set(many(300).limited(20, seed=2).rows)


def test_lengths_are_means_by_category_and_side():
    rows = (PromptRow("1", "hate", "one two", "one"), PromptRow("2", "hate", "one two three four", "abc"))
    assert {(mean.side, mean.count, mean.words, mean.characters) for mean in PromptSet(rows).lengths()} == {
        ("unsafe", 2, 3.0, 12.5),
        ("safe", 2, 1.0, 3.0),
    }


def test_prompts_that_occur_in_two_splits_are_counted_and_said():
    rows = (
        PromptRow("1", "hate", "one", "Same", split="train"),
        PromptRow("2", "hate", "two", "same", split="test"),
    )
    assert PromptSet(rows).shared_between_splits() == 1
    assert "warning: 1 prompts occur in more than one split" in describe_prompts(PromptSet(rows, "x.csv"))


def test_the_preview_shows_counts_lengths_and_first_rows():
    shown = describe_prompts(many(30).split(), examples=1).splitlines()
    assert "30 pairs" in shown[0]
    counts = [re.fullmatch(r"\w+: (\d+) train, (\d+) validation, (\d+) test", line) for line in shown[1:4]]
    assert [sum(map(int, found.groups())) for found in counts if found] == [10, 10, 10]
    lengths = shown[shown.index("mean length in words (characters)") + 1]
    assert re.fullmatch(r"\w+: unsafe \d+\.\d \(\d+\), safe \d+\.\d \(\d+\)", lengths)
    assert "  unsafe: unsafe 0" in shown
    assert "  unsafe: unsafe 3" not in shown


def test_an_unknown_category_names_those_there_are():
    with pytest.raises(SafetySteeringError, match=r"no category 'gore'\. Its categories: hate, violence, sexual"):
        many(3).of_categories(["gore"])
