"""Load Safety Prompts in the real server."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import PromptRejected

NODE = "SafetySteering_LoadSafetyPrompts"
SETTINGS: dict[str, Any] = {
    "prompts": "safety_pairs.csv",
    "columns": "",
    "unpaired": "as the file says",
    "categories": "",
    "train": 0.6,
    "validation": 0.2,
    "split_seed": 0,
    "limit": 0,
}


def load(server, **settings: Any):
    graph = PromptGraph()
    node = graph.add(NODE, SETTINGS | settings)
    return server.client.run(graph.prompt), node.id


def preview(server, **settings: Any) -> str:
    run, node = load(server, **settings)
    return run.succeeded().text(node)


def refusal(server, **settings: Any) -> str:
    run, _ = load(server, **settings)
    assert run.status == "error"
    assert run.error.node_type == NODE
    said = run.error.message.strip()
    assert "\n" not in said
    assert len(said) < 500
    return said


def test_the_bundled_sets_are_offered_and_every_input_is_explained(server):
    info = server.client.object_info(NODE)
    inputs = info["input"]["required"]
    assert set(inputs) == set(SETTINGS)
    assert all(options["tooltip"] for _, options in inputs.values())
    kind, settings = inputs["prompts"]
    offered = kind if isinstance(kind, list) else settings["options"]
    assert {"safety_pairs.csv", "benign_anchors.csv"} <= set(offered)
    assert all(not name.endswith(".md") for name in offered)
    assert info["output"] == ["SAFETY_PROMPTS", "STRING"]


def test_the_bundled_pairs_load_and_their_preview_is_shown(server):
    shown = preview(server).splitlines()
    assert shown[0].startswith("safety_pairs.csv: 408 pairs, sha256 ")
    counts = [re.fullmatch(r"\w+: (\d+) train, (\d+) validation, (\d+) test", line) for line in shown[1:7]]
    assert [found and sum(map(int, found.groups())) for found in counts] == [68] * 6
    assert any(line.startswith("  negative: ") for line in shown)


def test_settings_reach_the_set(server):
    shown = preview(server, categories="Violence, hate", limit=10, train=1.0, validation=0.0)
    assert ": 10 pairs" in shown
    assert shown.splitlines()[1:3] == [f"{name}: 5 train, 0 validation, 0 test" for name in ("hate", "violence")]
    assert preview(server, split_seed=1) != preview(server, split_seed=2)


def test_a_file_of_the_user_loads_and_a_changed_file_is_read_again(server):
    folder = server.models / "safety_prompts"
    folder.mkdir(exist_ok=True)
    path = folder / "mine.tsv"
    path.write_text("bad\tgood\na fight\ta dance\n")
    server.client.object_info(NODE)
    assert "mine.tsv: 1 pairs" in preview(server, prompts="mine.tsv", columns="unsafe=bad, safe=good")
    path.write_text("bad\tgood\na fight\ta dance\na brawl\ta ball\n")
    assert "mine.tsv: 2 pairs" in preview(server, prompts="mine.tsv", columns="unsafe=bad, safe=good")
    assert "mine.tsv: No column of prompts was recognised. The columns found: bad, good." in refusal(
        server, prompts="mine.tsv"
    )
    path.unlink()


def test_a_bad_column_gets_one_sentence_and_the_next_prompt_runs(server):
    said = refusal(server, columns="unsafe=wrong")
    assert "There is no column 'wrong'. The columns found: id, category, unsafe, safe, negative." in said
    assert "408 pairs" in preview(server)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"columns": "nonsense"}, "Write each field once, as field=column"),
        ({"categories": "gore, weather"}, "has no category 'weather'. Its categories: hate, sexual, violence"),
        ({"train": 0.9, "validation": 0.5}, "at most 1 together"),
    ],
)
def test_bad_settings_get_one_sentence(server, settings, words):
    assert words in refusal(server, **settings)


@pytest.mark.parametrize("name", ["../safety_vectors/x.csv", "nowhere.csv", "README.md", ""])
def test_nothing_outside_the_folders_is_read(server, name):
    with pytest.raises(PromptRejected) as rejected:
        load(server, prompts=name)
    assert "was not found. Put it into models/safety_prompts" in str(rejected.value)


def test_a_datasets_folder_is_offered_and_the_preview_says_how_it_was_read(server):
    folder = server.base_directory / "models" / "safety_prompts" / "mine" / "data"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [
            {"prompt": f"a lake {split}"},
            {"prompt": f"a fight {split}", "label": "unsafe", "category": "violence"},
        ]
        text = "\n".join(map(json.dumps, rows)).encode("utf-16")
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(text))
    kind, settings = server.client.object_info(NODE)["input"]["required"]["prompts"]
    offered = kind if isinstance(kind, list) else settings["options"]
    assert {"mine", "mine/data/train.jsonl.gz"} <= set(offered)
    shown = preview(server, prompts="mine", unpaired="safe").splitlines()
    assert shown[1:3] == ["benign: 1 train, 0 validation, 1 test", "violence: 1 train, 0 validation, 1 test"]
    said = shown[shown.index("how it was read") + 1 :]
    assert said[:3] == ["2 files of a dataset's folder", "UTF-16 text", "4 rows read"]
    assert "prompts without a label are taken for safe" in said
    assert "so it could be safe or unsafe" in refusal(server, prompts="mine")
