"""Adds the safety nodes to a template's graph: Safe Model, or the five nodes that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from safety_steering_pack.safety_steering.alignment.sharpen import SHRINKAGE

from workflow_builder.graph import FlatGraph, Socket
from workflow_builder.nodes import add, safety_node

# recommended at level 1; then what manual begins with
APPLY = ["recommended", 1, 8, "clamp", "token", 0, 1, "both", "pooled", -2.5, "auto"]
SAFE = ["auto", 1, ""]  # vector, level, mix
SIDE_BY_SIDE = 1  # the number of Safety A/B's video output


@dataclass(frozen=True)
class Steered:
    """One model link to steer: from `model` to the node `sampled`; `samples` is the latent that it leads to.

    Without samples there is no Steering Report.
    """

    model: Socket
    sampled: int
    samples: Socket | None
    stage: str = ""


@dataclass(frozen=True)
class VectorFile:
    """The file that Load Safety Vector names. fits: its model and space. origin: where to get it."""

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


@dataclass(frozen=True)
class Compared:
    """The template's KSampler, which Safety A/B replaces under its id, and the decoder and video that go."""

    sampler: int
    decode: int
    video: int


def carry_over(graph: FlatGraph, vector: VectorFile, clip: Socket, model: Socket) -> tuple[int, int, int]:
    """Add Load Safety Vector, Fit Benign Alignment and Transfer; returns their ids."""
    load = add(graph, "LoadSafetyVector", [vector.label])
    graph.nodes[load]["properties"] = {"safety_vector": asdict(vector)}  # shown if the file is missing
    fit = add(
        graph,
        "FitBenignAlignment",
        ["conditioning", "auto", "ridge", 0.2, 0],
        safety_vector=(load, 0),
        clip=clip,
        model=model,
    )
    transfer = add(graph, "TransferDirection", [SHRINKAGE], safety_vector=(load, 0), safety_alignment=(fit, 0))
    return load, fit, transfer


def add_chain(graph: FlatGraph, vector: VectorFile, clip: Socket, steered: Sequence[Steered]) -> Chain:
    """Steer some of a graph's model links with a portable vector."""
    carry = carry_over(graph, vector, clip, steered[0].model)
    mixer = add(graph, "CategoryMixer", ["standard", ""], safety_vector=(carry[-1], 0))
    pairs = [_apply(graph, mixer, link) for link in steered]
    reports = [report for _, report in pairs if report is not None]
    return Chain(carry, (mixer, *(apply for apply, _ in pairs)), tuple(reports))


def add_safe_models(graph: FlatGraph, clip: Socket, steered: Sequence[Steered]) -> tuple[int, ...]:
    """Steer some of a graph's model links by Safe Model; returns its ids.

    Each reads the text encoder of the one before, and the rest of the graph that of the last: no wire runs behind one.
    """
    readers = [link for link in graph.links if link.origin == clip]
    made: list[int] = []
    for link in steered:
        title = link.stage and f"Safe Model ({link.stage})"
        safe = add(graph, "SafeModel", SAFE, title, model=link.model, clip=(made[-1], 1) if made else clip)
        graph.connect((safe, 0), link.sampled, "model")
        made.append(safe)
    for reader in readers:
        graph.connect((made[-1], 1), reader.target, reader.input)
    return tuple(made)


def _apply(graph: FlatGraph, mixer: int, link: Steered) -> tuple[int, int | None]:
    """Apply Safety Steering in a model link, and the Steering Report of it if there are samples."""
    stage = f" ({link.stage})" if link.stage else ""
    apply = add(graph, "ApplySafetySteering", APPLY, stage and f"Apply Safety Steering{stage}")
    graph.connect((apply, 0), link.sampled, "model")
    graph.connect(link.model, apply, "model")
    graph.connect((mixer, 0), apply, "safety_vector")
    if link.samples is None:
        return apply, None
    title = stage and f"Steering Report{stage}"
    return apply, add(graph, "SteeringReport", [], title, model=(apply, 0), samples=link.samples)


def compare(graph: FlatGraph, nodes: Compared) -> None:
    """Sample unsteered and steered in one node. What read the video now reads both sides of it."""
    sampler, video = graph.nodes[nodes.sampler], graph.nodes[nodes.video]
    vae = graph.source(nodes.decode, "vae")
    assert vae is not None
    # Safety A/B has KSampler's inputs and widgets, and then vae and fps
    widgets = [*sampler["widgets_values"], video["widgets_values"][0]]
    graph.nodes[nodes.sampler] = {**safety_node("SafetyAB", widgets), "id": nodes.sampler}
    graph.connect(vae, nodes.sampler, "vae")
    both: Socket = (nodes.sampler, SIDE_BY_SIDE)
    graph.remove(nodes.video, lambda output: both)
    graph.remove(nodes.decode)
