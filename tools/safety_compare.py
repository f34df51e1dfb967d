"""Puts Safety A/B in the place of a template's KSampler, with its settings: one run, both sides."""

from __future__ import annotations

from dataclasses import dataclass

from workflow_builder.chain import COLOURS, OPTIONAL
from workflow_builder.graph import FlatGraph, Socket

SIDE_BY_SIDE = 1  # the number of its video output
OUTPUTS = (
    ("side_by_side", "IMAGE"),
    ("video", "VIDEO"),
    ("unsteered", "IMAGE"),
    ("steered", "IMAGE"),
    ("report", "STRING"),
)


@dataclass(frozen=True)
class Compared:
    """The template's KSampler, whose place and id Safety A/B takes, and what it makes needless: decoder and video."""

    sampler: int
    decode: int
    video: int


def compare(graph: FlatGraph, nodes: Compared) -> None:
    """Sample unsteered and steered in one node; whatever read the video reads both sides of it."""
    sampler, video = graph.nodes[nodes.sampler], graph.nodes[nodes.video]
    vae = graph.source(nodes.decode, "vae")
    assert vae is not None
    graph.nodes[nodes.sampler] = {
        "id": nodes.sampler,
        "type": "SafetySteering_SafetyAB",
        "mode": 0,
        # like a KSampler it takes model, positive, negative and latent_image
        "inputs": [
            *({key: entry[key] for key in ("name", "type")} for entry in sampler["inputs"] if "widget" not in entry),
            {"name": "vae", "type": "VAE"},
            {"name": "sigmas", "type": "SIGMAS", "shape": OPTIONAL},
        ],
        "outputs": [{"name": name, "type": type_} for name, type_ in OUTPUTS],
        "properties": {},
        "widgets_values": [*sampler["widgets_values"], video["widgets_values"][0]],  # the last is fps
        **COLOURS,
    }
    graph.connect(vae, nodes.sampler, "vae")
    both: Socket = (nodes.sampler, SIDE_BY_SIDE)
    graph.remove(nodes.video, lambda output: both)
    graph.remove(nodes.decode)
