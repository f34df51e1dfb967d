"""Adds the safety nodes to a template's graph: Load Safety Vector, Fit Benign Alignment, Transfer, Mixer, Apply.

The tables here repeat the nodes' sockets and widgets in the frontend's order; a test compares what the built workflows
send with the running server's definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from workflow_builder.graph import FlatGraph, Socket

VECTOR = "SAFETY_VECTOR"


OPTIONAL = 7  # how the frontend draws a socket that may stay empty


COLOURS = {"color": "#233", "bgcolor": "#355"}


@dataclass(frozen=True)
class Steered:
    """One model link to steer: from `model` to the node `sampled`; `samples` is the latent that it leads to.

    Without samples there is no Steering Report. window_end: 0.5 where the run begins in noise; 1 for later stages,
    whose steps all lie behind 0.5.
    """

    model: Socket
    sampled: int
    samples: Socket | None
    window_end: float = 0.5
    stage: str = ""


@dataclass(frozen=True)
class VectorFile:
    """The file that Load Safety Vector names. fits: for which model and space; origin: where it can be had from."""

    file: str
    sha256: str
    fits: str
    origin: str

    @property
    def label(self) -> str:
        """How the picker lists it."""
        return f"{self.file} ({self.fits})"


@dataclass(frozen=True)
class Chain:
    """The ids of the nodes added: those that carry the vector over, those that mix and apply it, and the reports."""

    carry: tuple[int, ...]
    apply: tuple[int, ...]
    reports: tuple[int, ...]


def add_chain(graph: FlatGraph, vector: VectorFile, clip: Socket, steered: Sequence[Steered]) -> Chain:
    """Steer some of a graph's model links with a portable vector."""
    load = _add(graph, "LoadSafetyVector", [], [("safety_vector", VECTOR), ("card", "STRING")], [vector.label])
    graph.nodes[load]["properties"] = {"safety_vector": asdict(vector)}  # what is said where the file is missing
    fit = _add(
        graph,
        "FitBenignAlignment",
        [
            ("safety_vector", VECTOR),
            ("safety_llm", "SAFETY_LLM", OPTIONAL),
            ("clip", "CLIP", OPTIONAL),
            ("model", "MODEL", OPTIONAL),
            ("clip_vision", "CLIP_VISION", OPTIONAL),
            ("anchors", "SAFETY_PROMPTS", OPTIONAL),
            ("benign_prompts", "SAFETY_PROMPTS", OPTIONAL),
            ("images", "IMAGE", OPTIONAL),
            ("latent", "LATENT", OPTIONAL),
            ("template", "CONDITIONING", OPTIONAL),
        ],
        [("safety_alignment", "SAFETY_ALIGNMENT"), ("report", "STRING"), ("chart", "IMAGE")],
        ["conditioning", "auto", "ridge", 0.2, 0],
    )
    transfer = _add(
        graph,
        "TransferDirection",
        [("safety_vector", VECTOR), ("safety_alignment", "SAFETY_ALIGNMENT")],
        [("safety_vector", VECTOR), ("card", "STRING")],
        [1.0],
    )
    mixer = _add(
        graph,
        "CategoryMixer",
        [("safety_vector", VECTOR)],
        [("safety_vector", VECTOR), ("report", "STRING")],
        ["standard", ""],
    )
    graph.connect((load, 0), fit, "safety_vector")
    graph.connect(clip, fit, "clip")
    graph.connect(steered[0].model, fit, "model")
    graph.connect((load, 0), transfer, "safety_vector")
    graph.connect((fit, 0), transfer, "safety_alignment")
    graph.connect((transfer, 0), mixer, "safety_vector")
    pairs = [_apply(graph, mixer, link) for link in steered]
    applies = [apply for apply, _ in pairs]
    reports = [report for _, report in pairs if report is not None]
    return Chain((load, fit, transfer), (mixer, *applies), tuple(reports))


def _apply(graph: FlatGraph, mixer: int, link: Steered) -> tuple[int, int | None]:
    """Apply Safety Steering in a model link, and the Steering Report of it if there are samples."""
    stage = f" ({link.stage})" if link.stage else ""
    apply = _add(
        graph,
        "ApplySafetySteering",
        [("model", "MODEL"), ("safety_vector", VECTOR)],
        [("model", "MODEL")],
        [1, "add", "token", 0, link.window_end, "both", "off", "conditioning"],
        stage and f"Apply Safety Steering{stage}",
    )
    graph.connect((apply, 0), link.sampled, "model")
    graph.connect(link.model, apply, "model")
    graph.connect((mixer, 0), apply, "safety_vector")
    if link.samples is None:
        return apply, None
    report = _add(
        graph,
        "SteeringReport",
        [("model", "MODEL"), ("samples", "LATENT")],
        [("chart", "IMAGE"), ("report", "STRING")],
        [],
        stage and f"Steering Report{stage}",
    )
    graph.connect((apply, 0), report, "model")
    graph.connect(link.samples, report, "samples")
    return apply, report


def _add(
    graph: FlatGraph,
    kind: str,
    inputs: Sequence[tuple[Any, ...]],
    outputs: Sequence[tuple[str, str]],
    widgets: list[Any],
    title: str = "",
) -> int:
    id_ = max(0, *graph.nodes) + 1  # the borders of a subgraph have ids below 0
    graph.nodes[id_] = {
        "id": id_,
        "type": f"SafetySteering_{kind}",
        "mode": 0,
        "inputs": [dict(zip(("name", "type", "shape"), entry, strict=False)) for entry in inputs],
        "outputs": [{"name": name, "type": type_} for name, type_ in outputs],
        "properties": {},
        "widgets_values": widgets,
        **COLOURS,
        **({"title": title} if title else {}),
    }
    return id_


# --- Puts Safety A/B in the place of a template's KSampler, with its settings: one run, both sides.


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
