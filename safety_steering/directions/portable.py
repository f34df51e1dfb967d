"""A portable safety vector from paired prompts and a language model.

Detectors are fitted on the mean states of the train pairs at one layer, which is chosen on the validation pairs.
Directions are fitted there on words (`word_directions`). The vector contains the model's states of benign anchors, of
whole captions and of words in them, so that other models' spaces can be aligned without the language model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import SafetySteeringError
from ..hook_point import HookPoint
from ..language_models.source_model import ONE_TOKEN, Progress, SourceModel
from ..linear_algebra import outlier_share
from ..prompts.prompt_set import SIDES, PromptRow, PromptSet
from ..vectors.detector import Detectors, make_detector
from ..vectors.vector import (
    DIFFERING,
    WHOLE,
    Anchors,
    Direction,
    HookPointDirections,
    SafetyVector,
    Suggestion,
    VectorInfo,
)
from .fitting import TOKENS
from .pairs import PROJECT, SWEEP, VALENCE, PairStates, best_layer, choose_layers, difference, judge_layer, valence_axis
from .rows import TRAIN, VALIDATION
from .statistics import measured
from .word_directions import WordPairs, choose_anchor_words, word_directions

BUNDLED_ANCHORS = "benign_anchors.csv"
ANCHOR_WORDS = 4000  # 4.6 MB at a width of 576; twice as many separate no better (docs/portable_source.md)
TOKENS_READ = 200  # benign prompts that std_token is measured on


@dataclass(frozen=True)
class ExtractSettings:
    """How to extract. layer: as of `choose_layers`. pooling: one of `POOLINGS`. valence: one of VALENCE.

    tokens: what directions are fitted on, one of TOKENS: `differing`, words that an unsafe prompt does not share with
    its safe twin, or `pooled`, mean states of prompts, as detectors are. words: most word anchors. licence: of the
    vector.

    Raises:
        SafetySteeringError: on construction, for an unknown valence or unknown tokens.
    """

    layer: str = SWEEP
    pooling: str = "mean"
    valence: str = VALENCE[0]
    licence: str = ""
    tokens: str = DIFFERING
    words: int = ANCHOR_WORDS

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise SafetySteeringError(f"tokens is '{self.tokens}', expected one of {', '.join(TOKENS)}.")
        if self.valence not in VALENCE:
            raise SafetySteeringError(f"valence is '{self.valence}', expected one of {', '.join(VALENCE)}.")


@dataclass(frozen=True)
class Extracted:
    """A portable vector and its statistics: one row a layer and category, as of `judge_layer`."""

    vector: SafetyVector
    table: tuple[dict[str, Any], ...]

    @property
    def layer(self) -> int:
        """The vector's layer."""
        return int(self.vector.info.parameters["layer"])


def extract_vector(
    model: SourceModel,
    prompts: PromptSet,
    anchors: Sequence[str],
    settings: ExtractSettings,
    *,
    categories: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
) -> Extracted:
    """Extract a vector with one direction and detector a category and, if there are several, "all", one of all of them.

    Args:
        anchors: benign texts, at least two distinct ones.
        categories: which; all that the train pairs have if empty.
        progress: called with how many texts are done, of how many; what it raises ends the extraction.

    Raises:
        SafetySteeringError: pairs, anchors or a category are missing, or as `SourceModel.states`.

    Example:
        >>> from safety_steering import extract_vector
        >>> from safety_steering.directions.portable import ExtractSettings, anchor_texts
        >>> from safety_steering.language_models.transformers_model import LanguageModel
        >>> from safety_steering.prompts.files import load_prompts
        >>> model = LanguageModel("SmolLM2-135M")  # a folder in the Hugging Face format
        >>> prompts = load_prompts("vectors/prompts/safety_pairs.csv").split(0.6, 0.2, seed=0)
        >>> anchors = anchor_texts(load_prompts("vectors/prompts/benign_anchors.csv"))
        >>> extracted = extract_vector(model, prompts, anchors, ExtractSettings(layer="2"), categories=["violence"])
        >>> list(extracted.vector.hook_points), len(extracted.vector.anchors.texts)
        (['source.2'], 1000)
    """
    rows = _pairs(prompts, categories)
    names = tuple(dict.fromkeys(name for row in rows if row.split == TRAIN for name in row.categories))
    chosen = tuple(categories) or names
    groups: dict[str, Sequence[str]] = {name: (name,) for name in chosen}
    if len(chosen) > 1 and WHOLE not in chosen:
        groups[WHOLE] = chosen
    anchors = _distinct(anchors)
    texts = tuple(dict.fromkeys(text for row in rows for text in row.prompts.values()))
    benign = [text for row in rows if row.split == TRAIN for text in (row.safe, row.negative) if text][:TOKENS_READ]
    words = settings.tokens == DIFFERING
    fitted = tuple(dict.fromkeys(text for row in rows if row.split == TRAIN for text in row.prompts.values()))
    total = len(texts) + len(benign) + len(anchors) * (1 + words) + len(fitted) * words

    def after(start: int) -> Progress:
        return lambda done, count: progress(start + done, total)

    with model.open():
        layers = choose_layers(settings.layer, model.layers)
        states = model.states(texts, layers, settings.pooling, after(0))
        table = []
        for number, layer in enumerate(layers):
            pairs = _pair_states(rows, texts, states[:, number])
            table += judge_layer(layer, pairs, groups, settings.valence)
        layer = best_layer(table, chosen)
        pairs = _pair_states(rows, texts, states[:, layers.index(layer)])
        tokens = model.states(benign, [layer], ONE_TOKEN, after(len(texts)))[:, 0].double()
        done = len(texts) + len(benign)
        seen = model.states(anchors, [layer], settings.pooling, after(done))[:, 0]
        in_anchors = in_prompts = None
        if words:
            in_anchors = model.words(anchors, layer, after(done + len(anchors)))
            in_prompts = model.words(fitted, layer, after(done + 2 * len(anchors)))
        space, name, fingerprint = model.space(layer), model.name, model.fingerprint

    train = pairs.of(TRAIN)
    axis = valence_axis(train)
    differences = {
        category: difference(train.of(categories=members), settings.valence, axis)
        for category, members in groups.items()
    }
    directions = {category: _direction(v, train.benign, tokens) for category, v in differences.items()}
    if in_prompts is not None:
        read = WordPairs.of([row for row in rows if row.split == TRAIN], fitted, in_prompts)
        directions |= word_directions(read, groups, axis if settings.valence == PROJECT else None)
    hook_point = HookPoint(f"source.{layer}")
    point = HookPointDirections(
        space=space,
        sigma_edges=torch.tensor([0.0, 1.0]),
        token_norm=tokens.norm(dim=1).median()[None].float(),
        categories=directions,
    )
    own = [row for row in table if row["layer"] == layer]
    info = VectorInfo(
        kind="source",
        gap_kind="measured",
        model_name=name,
        weight_fingerprint=fingerprint,
        pooling=settings.pooling,
        method="words that differ within pairs" if words else "paired mean difference",
        parameters={
            "tokens": settings.tokens,
            "pooled_gaps": {category: round(float(v.norm()), 4) for category, v in differences.items()},
            "layer": layer,
            "layers": list(layers),
            "pooling": settings.pooling,
            "valence": settings.valence,
        },
        counts={category: _counts(train.of(categories=members)) for category, members in groups.items()},
        prompts_sha256=prompts.sha256,
        validation_auc={row["category"]: row["auc"] for row in own if row["auc"] is not None},
        suggestion=Suggestion(hook_points=(hook_point,), mix=dict.fromkeys(chosen, 1.0)),
        licence=settings.licence,
        provenance=(_provenance(prompts, name, anchors, own, directions),),
    )
    detectors = {category: make_detector(v, train.benign, seen.double()) for category, v in differences.items()}
    kept = None if in_anchors is None else choose_anchor_words(in_anchors, anchors, settings.words)
    vector = SafetyVector(
        {hook_point: point},
        info,
        anchors=Anchors(hook_point, anchors, rounded(seen), kept),
        detectors=Detectors(hook_point, space, detectors, len(anchors)),
    )
    return Extracted(vector, tuple(table))


def rounded(states: torch.Tensor) -> torch.Tensor:
    """States rounded to half precision, in which the file stores them; unchanged if some overflow it."""
    half = states.half().float()
    return half if bool(half.isfinite().all()) else states


def _pairs(prompts: PromptSet, categories: Sequence[str]) -> list[PromptRow]:
    """The rows to read: complete pairs of the categories in train and validation. The test split is not read."""
    kept = prompts.of_categories(categories) if categories else prompts
    rows = [row for row in kept.rows if row.split in (TRAIN, VALIDATION) and row.unsafe and row.safe]
    train = [row for row in rows if row.split == TRAIN]
    if not train:
        raise SafetySteeringError(
            f"{prompts.name or 'The prompt set'} has {len(prompts.rows)} rows and no pair of an unsafe and a safe "
            "prompt in the train split. Load pairs, with a train share above 0."
        )
    missing = [name for name in categories if not any(name in row.categories for row in train)]
    if missing:
        raise SafetySteeringError(f"The category '{missing[0]}' has no train pair. Use more prompts, or leave it out.")
    return rows


def anchor_texts(anchors: PromptSet) -> tuple[str, ...]:
    """The texts of a set of anchors.

    Raises:
        SafetySteeringError: the set has unsafe prompts.
    """
    unsafe = sum(bool(row.unsafe) for row in anchors.rows)
    if unsafe:
        raise SafetySteeringError(
            f"{anchors.name or 'The anchor set'} has {unsafe} unsafe prompts. Anchors must be benign: a vector's user "
            "is never to see an unsafe text. Use a set of safe prompts alone."
        )
    return tuple(text for row in anchors.rows for text in (row.safe, row.negative) if text)


def _distinct(anchors: Sequence[str]) -> tuple[str, ...]:
    texts = tuple(dict.fromkeys(text for text in anchors if text.strip()))
    if len(texts) < 2:
        raise SafetySteeringError(
            f"There are {len(texts)} anchors. A portable vector needs some hundreds of benign texts for "
            f"alignments. The bundled {BUNDLED_ANCHORS} has 1000."
        )
    return texts


def _pair_states(rows: Sequence[PromptRow], texts: Sequence[str], states: torch.Tensor) -> PairStates:
    """The states (texts, D) as pairs."""
    numbers = {text: i for i, text in enumerate(texts)}
    missing = torch.full((states.shape[1],), float("nan"), dtype=torch.float64)
    sides = {
        side: torch.stack([states[numbers[text]].double() if (text := getattr(row, side)) else missing for row in rows])
        for side in SIDES
    }
    names, splits = tuple(row.categories for row in rows), tuple(row.split for row in rows)
    return PairStates(**sides, categories=names, splits=splits)


def _direction(v: torch.Tensor, benign: torch.Tensor, tokens: torch.Tensor) -> Direction:
    """The direction of v (D,), its length the gap, with its statistics on benign states (n, D) and tokens (m, D)."""
    gap = v.norm()
    u = v / gap
    return measured(u, gap, benign @ u, tokens @ u, correction=0)


def _counts(train: PairStates) -> dict[str, int]:
    return {"unsafe": train.count, "safe": train.count, "negative": len(train.negatives)}


def _provenance(
    prompts: PromptSet,
    source: str,
    anchors: Sequence[str],
    statistics: Sequence[Mapping[str, Any]],
    directions: Mapping[str, Direction],
) -> dict[str, Any]:
    return {
        "step": "extract",
        "source": source,
        "prompts": prompts.name,
        "anchors": len(anchors),
        "anchors_sha256": hashlib.sha256(json.dumps(list(anchors)).encode()).hexdigest(),
        "evidence": [
            {**row, "outlier_share": outlier_share(directions[row["category"]].direction[0])} for row in statistics
        ],
    }
