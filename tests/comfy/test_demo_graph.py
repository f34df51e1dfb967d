"""`make demo` sends the shipped workflow: nothing hand-picked, and nothing that the server would not understand."""

from __future__ import annotations

import pytest
import run
from node_definitions import prompt_problems
from small_world_workflows import HARMLESS_FILE, small_world_folder
from workflow_builder.graph import flatten, load_template
from workflow_builder.prompt import as_prompt


def test_the_demos_graph_is_sound_and_leaves_safe_model_as_it_comes(server):
    small_world_folder(server.base_directory, vectors=False)
    definitions = server.client.object_info()
    prompt = run.graph_of(definitions)
    assert prompt_problems(prompt, definitions) == []
    (safe,) = (node["inputs"] for node in prompt.values() if node["class_type"] == run.SAFE)
    assert {name: value for name, value in safe.items() if not isinstance(value, list)} == {
        "vector": "auto",
        "level": 1,
        "mix": "",
    }
    harmless = prompt[safe["benign_prompts"][0]]["inputs"]
    assert (harmless["prompts"], harmless["unpaired"]) == (HARMLESS_FILE, "safe")
    (sampler,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler")
    assert (sampler["steps"], sampler["cfg"], sampler["scheduler"]) == (16, 3.0, "simple")


def test_a_node_with_too_few_values_is_refused(server):
    graph = flatten(load_template("text_to_video_wan"))
    graph.nodes[37]["widgets_values"] = []
    with pytest.raises(ValueError, match="UNETLoader has no value for unet_name"):
        as_prompt(graph, server.client.object_info())
