"""Training a LoRA on a steered model: it works, or says in a sentence why not."""

from __future__ import annotations

import pytest
from guarded import once, refusal_of
from safety_steering_pack.commands.api_graph import PromptGraph
from steered_graphs import FAMILIES, run_anew, steer

CHOICES = {"optimizer": "SGD", "loss_function": "MSE", "training_dtype": "fp32", "lora_dtype": "fp32"}
NUMBERS = {"batch_size": 1, "grad_accumulation_steps": 1, "steps": 2, "learning_rate": 0.0005, "rank": 2, "seed": 0}
FLAGS = dict.fromkeys(("quantized_backward", "offloading", "bucket_mode", "bypass_mode"), False)
REFUSED = "This trains with gradient checkpointing, which runs block.blocks.2.image a second time"


def training(steering=None, **settings):
    """The graph of a tiny Wan whose sampler is replaced by the training of a LoRA."""
    graph = PromptGraph()
    sampler = FAMILIES["wan"].graph(graph, steering, steps=2, length=1).samples[0]
    given = graph.prompt.pop(sampler)["inputs"]
    links = {"model": given["model"], "latents": given["latent_image"], "positive": given["positive"]}
    more = {"algorithm": "LoRA", "existing_lora": "[None]", "checkpoint_depth": 1}
    trained = graph.add("TrainLoraNode", CHOICES | NUMBERS | FLAGS | more | settings, **links)
    graph.add("SaveLoRA", lora=trained[0], prefix="loras/trained")
    return graph


def test_on_a_guarded_server(guarded):
    assert "training is not permitted here (permits.merge_and_save_models)" in refusal_of(
        guarded, training(gradient_checkpointing=False)
    )
    guarded.set_policy(permits={"merge_and_save_models": True})
    for settings in ({"gradient_checkpointing": False}, {"gradient_checkpointing": True, "checkpoint_depth": 2}):
        run = guarded.client.run(once(training(**settings))).succeeded()
        record = guarded.record_of(run)
        assert record["decision"] == "delivered"
        assert [output["verdict"] for output in record["outputs"]] == ["not sampled here"]
    refused = refusal_of(guarded, training(gradient_checkpointing=True))
    assert REFUSED in refused
    assert "Turn gradient_checkpointing off, or raise checkpoint_depth" in refused


@pytest.mark.parametrize("depth", [1, 2])
def test_with_an_apply_node(server, depth):
    graph = training(steer(server, "wan"), gradient_checkpointing=True, checkpoint_depth=depth)
    run = server.client.run(run_anew(graph))
    if depth == 1:
        assert REFUSED in run.error.message
    else:
        run.succeeded()
