"""Transferred vectors for the small Wan: source vectors of a language model, aligned by benign captions alone.

    own       the world's own source vector (`source_vector.py`): SmolLM2, pairs of gore, violence and drugs
    narrow    the same, with captions of this world as anchors instead of the bundled ones of many domains
    bundled   the vector of `vectors/`, from hand-written pairs of other subjects

A recipe names the source, the alignment and the target's hook point. Its vector is a file in the cache, named by the
recipe, in a folder named by the hashes of its sources. No unsafe text reaches MiniLM or the generator here: an
alignment uses the benign anchors of the source vector, and directions are sharpened on benign captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..files import file_sha256
from ..measuring.sampling import generate_latents
from ..models.encoder_layer import INNER, layer_states
from ..models.text import WIDTH, encode_text, token_spans
from ..native.fit_native import METHODS, WHOLE, random_like
from ..runtime import GENERATOR_FILE, WEIGHTS, load_generator, use_comfyui, work_dir
from .source_vector import OUTPUTS, benign_captions

BUNDLED_FILE = WEIGHTS.parents[1] / "vectors" / "smollm2_135m_portable.safetensors"
SOURCES = {
    "own": OUTPUTS["bundled"],
    "narrow": OUTPUTS["own"],
    "bundled": BUNDLED_FILE,
}
# this world's categories by the bundled ones
MEANING = {"bundled": {"violence": "violence", "disturbing": "gore", "illegal": "drugs", WHOLE: WHOLE}}
TEXT = "conditioning"
SEED = 21
STYLE = {"conditioning": 400, "source.4": 400}  # benign captions of this world that a direction is sharpened on
STYLE_AT_BLOCKS = 150  # there each costs a video


@dataclass(frozen=True)
class Recipe:
    """How a transferred vector is made.

    anchors: how many of the source's anchors, drawn by the seed; 0 for all. permuted: if not 0, the seed by which
    anchors are paired at random. random: if not 0, the seed of random source directions. sharpen: the shrinkage of
    `sharpen`; 0 keeps the direction with the anchors' center and spread, `inf` with those of own captions. words:
    whether words are aligned with words; else whole captions alone, as files of before format version 2 are.
    """

    source: str = "own"
    method: str = "ridge"
    hook_point: str = TEXT
    anchors: int = 0
    permuted: int = 0
    random: int = 0
    sharpen: float = 0.2
    words: bool = True

    @property
    def of_words(self) -> bool:
        """Whether the vector has directions of words and detectors; one whose source's file is older has none."""
        return self.words and self.hook_point == TEXT and has_words(self.source)

    @property
    def file(self) -> str:
        parts = [self.source, self.method, self.hook_point]
        parts += [f"{name}{value}" for name in ("anchors", "permuted", "random") if (value := getattr(self, name))]
        parts.append(f"sharpen{self.sharpen:g}")
        parts += [] if self.words else ["captions"]
        return "_".join(parts) + ".safetensors"


def vectors_folder() -> Path:
    """The folder of the vectors, named by the hashes of sources and generator. A source may be missing."""
    files = (*SOURCES.values(), GENERATOR_FILE)
    name = "".join(file_sha256(path)[:6] if path.exists() else "none" for path in files)
    return work_dir() / f"portable-{name}"


def make_vectors(recipes: Sequence[Recipe]) -> Path:
    """Make the vectors that are missing; returns their folder."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    folder = vectors_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in dict.fromkeys(recipes):
        if not (folder / recipe.file).exists():
            save_vector(transferred(recipe)[0], folder / recipe.file)
    return folder


def transferred(recipe: Recipe) -> tuple[Any, Any]:
    """The transferred vector and its alignment, without the source's categories that this world lacks."""
    use_comfyui()
    from safety_steering_pack.safety_steering.alignment.transfer import carry_over

    source = source_vector(recipe.source)
    if recipe.random:
        source = random_like(source, recipe.random)
    alignment = align(recipe)
    vector = in_this_world(carry_over(source, alignment, recipe.sharpen), MEANING.get(recipe.source))
    return vector, alignment


def in_this_world(vector: Any, meaning: Mapping[str, str] | None) -> Any:
    """The vector with the categories that this world has, by its own names; meaning: vector's name -> this world's."""
    names = meaning or {name: name for name in vector.categories}
    points = {
        name: replace(point, categories={names[c]: d for c, d in point.categories.items() if c in names})
        for name, point in vector.hook_points.items()
    }
    detectors = vector.detectors
    if detectors is not None:
        found = {names[c]: d for c, d in detectors.categories.items() if c in names}
        detectors = replace(detectors, categories=found)
    info = replace(vector.info, suggestion=replace(vector.info.suggestion, mix={}), counts={})
    return replace(vector, hook_points=points, info=info, mix={}, detectors=detectors)


@lru_cache
def align(recipe: Recipe) -> Any:
    """The alignment of a recipe, with own benign captions unless its directions are not sharpened."""
    import torch
    from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates
    from safety_steering_pack.safety_steering.alignment.fit import TargetStates, fit_checked
    from safety_steering_pack.safety_steering.alignment.maps import AlignmentSettings

    source = source_vector(recipe.source)
    rows = torch.arange(len(source.anchors.texts))
    if recipe.anchors:
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED))[: recipe.anchors]
    texts = [source.anchors.texts[i] for i in rows.tolist()]
    own = benign_captions(STYLE.get(recipe.hook_point, STYLE_AT_BLOCKS), SEED) if recipe.sharpen else []
    order = torch.arange(len(rows))
    if recipe.permuted:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(recipe.permuted))

    def read() -> Any:
        pooled, token = target_states(tuple(texts), recipe.hook_point)
        words = recipe.words and recipe.hook_point == TEXT
        return TargetStates(
            AnchorStates(pooled[order], token[order]),
            _target_side(recipe.hook_point),
            benign=AnchorStates(*target_states(tuple(own), recipe.hook_point)) if own else None,
            words=target_words(texts, recipe.permuted) if words else None,
            tokens=target_tokens(own or texts) if words else None,
        )

    own_words = source.anchors.words
    words = None if own_words is None else own_words.among(rows.tolist())
    settings = AlignmentSettings(recipe.method)
    return fit_checked(source, source.anchors.states[rows], texts, read, settings, words=words)


def target_words(texts: Sequence[str], permuted: int = 0) -> Any:
    """The words of the texts with their states in the target; permuted: a seed by which states change places."""
    import torch
    from safety_steering_pack.safety_steering.language_models.words import find_words, join_words, pool_words

    states, _ = encode_text(texts)
    spans = token_spans(texts)
    found = join_words([pool_words(i, states[i], find_words(text), spans[i]) for i, text in enumerate(texts)])
    if permuted:
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(permuted))
        found = replace(found, states=found.states[order])
    return found


def target_tokens(texts: Sequence[str]) -> Any:
    """The states of all tokens of the texts, (m, D)."""
    states, mask = encode_text(texts)
    return states[mask]


def has_words(source: str) -> bool:
    """Whether a source's file, if it is made, holds words of its anchors."""
    return SOURCES[source].exists() and source_vector(source).anchors.words is not None


@lru_cache
def source_vector(name: str) -> Any:
    """A source vector by its name."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    return load_vector(SOURCES[name])


def _target_side(hook_point: str) -> Any:
    from safety_steering_pack.safety_steering.alignment.alignment import Side
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    if hook_point == INNER:
        return Side(hook_point, f"minilm/{hook_point}", name="all-MiniLM-L6-v2")
    native = load_vector(WEIGHTS / METHODS["mean_difference"])
    info = native.info
    return Side(
        hook_point,
        native.at(hook_point).space,
        info.model_name,
        info.family,
        info.weight_fingerprint,
        dict(info.block_counts),
    )


@lru_cache
def target_states(texts: tuple[str, ...], hook_point: str) -> tuple[Any, Any]:
    """Pooled states and one token's of each text, (n, D) float32, at a hook point of the small world's models."""
    if hook_point.startswith("block."):
        return _block_states(texts, hook_point)
    states, mask = encode_text(texts) if hook_point == TEXT else layer_states(texts)
    mask = mask[..., None]
    pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return pooled, _one_token(states, mask[..., 0], texts)


def _one_token(states: Any, mask: Any, texts: Sequence[str]) -> Any:
    import torch
    from safety_steering_pack.bridge.sampling.sampling import fraction

    counts = mask.sum(dim=1)
    kept = torch.tensor([int(fraction(text) * int(count)) for text, count in zip(texts, counts, strict=True)])
    return states[torch.arange(len(states)), kept]


def _block_states(texts: Sequence[str], hook_point: str) -> tuple[Any, Any]:
    """States of a block while the captions are generated, all steps together."""
    import torch
    from safety_steering_pack.bridge.capture.collect import Capture, capture_source
    from safety_steering_pack.bridge.sampling.sampling import fraction
    from safety_steering_pack.safety_steering.hook_point import HookPoint

    model = load_generator()
    capture = Capture(capture_source(model, (HookPoint(hook_point),), (0.0, 1.0), WIDTH))
    captured = capture.attach(model)
    pooled, token = [], []
    for first in range(0, len(texts), 32):
        batch = list(texts[first : first + 32])
        capture.token_fractions = [fraction(text) for text in batch]
        generate_latents(captured, batch, list(range(first, first + len(batch))))
        states = capture.states[hook_point]
        pooled.append(states.pooled[:, 0])
        token.append(states.token[:, 0])
    return torch.cat(pooled), torch.cat(token)
