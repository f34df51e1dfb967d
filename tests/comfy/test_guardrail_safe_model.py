"""Safe Model on a guarded server: a node that graphs may use, with the host's vectors, under the policy's steering."""

from __future__ import annotations

import torch
from attack_graphs import check_steered, graph_of, listed, own
from guarded import by_hand, outcome, refusal_of
from steered_graphs import FAMILIES


def safe_model(vector: str, mix: str = ""):
    return lambda graph, model: graph.add("SafetySteering_SafeModel", model=model, vector=vector, level=1.0, mix=mix)[0]


def test_it_takes_the_hosts_vectors_and_gives_way_to_the_policy(guarded, server):
    graph, _, _ = graph_of(own(guarded, 1))  # writes the vector's file
    (file,) = [node["inputs"]["vector"] for node in graph.prompt.values() if "vector" in node["inputs"]]
    guarded.set_policy(allow={"vectors": listed(guarded)})
    graph, _, saved = graph_of(safe_model(file))
    done = outcome(guarded, graph, saved.id)
    check_steered(done.record)
    assert torch.equal(done.latent, by_hand(server))
    assert "not one of the safety vectors of this host" in refusal_of(guarded, graph_of(safe_model("auto"))[0])
    category = next(iter(FAMILIES["wan"].vector().categories))
    assert "below 0" in refusal_of(guarded, graph_of(safe_model(file, f"{category}=-2"))[0])
