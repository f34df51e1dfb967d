"""Transferred vectors for the small Wan: a source vector from a language model, carried over by benign captions alone.

    own       the world's own source vector (`source_vector`): SmolLM2, pairs over gore, violence and drugs
    narrow    the same with anchors that are captions of this world, in place of the bundled ones of many domains
    bundled   the bundled one, of hand-written pairs that know nothing of this world

A recipe says which source, which alignment, and to which place. Its vector is a file in the cache, named by the recipe;
the files of what it is made of decide the folder. No unsafe text reaches MiniLM or the generator here: an alignment
sees the source vector's benign anchors, directions are carried as numbers and sharpened on benign captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..files import file_sha256
from ..measuring.sampling import generate_latents
from ..models.encoder_layer import INNER, layer_states
from ..models.text import WIDTH, encode_text
from ..native.fit_native import METHODS, WHOLE, random_like
from ..runtime import GENERATOR_FILE, WEIGHTS, load_generator, use_comfyui, work_dir
from .source_vector import OUTPUTS, benign_captions

BUNDLED_FILE = WEIGHTS.parents[1] / "vectors" / "smollm2_135m_portable.safetensors"
SOURCES = {
    "own": OUTPUTS["bundled"],
    "narrow": OUTPUTS["own"],
    "bundled": BUNDLED_FILE,
}
# what the bundled categories mean here: this world's categories by theirs
MEANING = {"bundled": {"violence": "violence", "disturbing": "gore", "illegal": "drugs", WHOLE: WHOLE}}
TEXT = "conditioning"
SEED = 21
STYLE = {"conditioning": 400, "source.4": 400}  # benign captions of this world that a direction is sharpened on
STYLE_AT_BLOCKS = 150  # there each costs a video


@dataclass(frozen=True)
class Recipe:
    """How a transferred vector is made.

    anchors: how many of the source's, drawn by the seed; 0 for all. permuted: pair the anchors at random, drawn by
    this number. random: random directions in the source in place of its own, drawn by this number. sharpen: the
    shrinkage of `sharpen`; 0 for a direction as it was carried, with the anchors' center and spread; `inf` for these of
    own captions.
    """

    source: str = "own"
    method: str = "ridge"
    place: str = TEXT
    anchors: int = 0
    permuted: int = 0
    random: int = 0
    sharpen: float = 1.0

    @property
    def file(self) -> str:
        parts = [self.source, self.method, self.place]
        parts += [f"{name}{value}" for name in ("anchors", "permuted", "random") if (value := getattr(self, name))]
        parts.append(f"sharpen{self.sharpen:g}")
        return "_".join(parts) + ".safetensors"


def vectors_folder() -> Path:
    """Where the vectors are kept; other sources or another generator have another folder.

    A source may be missing: only the rows that use it need it.
    """
    files = (*SOURCES.values(), GENERATOR_FILE)
    name = "".join(file_sha256(path)[:6] if path.exists() else "none" for path in files)
    return work_dir() / f"portable-{name}"


def make_vectors(recipes: Sequence[Recipe]) -> Path:
    """Make those that are not there yet; their folder."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import save_vector

    folder = vectors_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in dict.fromkeys(recipes):
        if not (folder / recipe.file).exists():
            save_vector(transferred(recipe)[0], folder / recipe.file)
    return folder


def transferred(recipe: Recipe) -> tuple[Any, Any]:
    """The transferred vector and its alignment. A source's categories that mean nothing here are left out."""
    use_comfyui()
    from safety_steering_pack.safety_steering.alignment.transfer import transfer

    source = source_vector(recipe.source)
    if recipe.random:
        source = random_like(source, recipe.random)
    alignment = align(recipe)
    vector = transfer(source, alignment)
    meaning = MEANING.get(recipe.source) or {name: name for name in vector.categories}
    points = {
        name: replace(point, categories={meaning[c]: d for c, d in point.categories.items() if c in meaning})
        for name, point in vector.hook_points.items()
    }
    info = replace(vector.info, suggestion=replace(vector.info.suggestion, mix={}), counts={})
    vector = replace(vector, hook_points=points, info=info, mix={})
    return (sharpened(vector, recipe) if recipe.sharpen else vector), alignment


def sharpened(vector: Any, recipe: Recipe) -> Any:
    """The vector sharpened on benign captions of this world."""
    from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates
    from safety_steering_pack.safety_steering.alignment.transfer import sharpen

    texts = benign_captions(STYLE.get(recipe.place, STYLE_AT_BLOCKS), SEED)
    return sharpen(vector, AnchorStates(*target_states(tuple(texts), recipe.place)), recipe.sharpen)


@lru_cache
def align(recipe: Recipe) -> Any:
    """The alignment of a recipe."""
    import torch
    from safety_steering_pack.safety_steering.alignment.alignment import AnchorStates, Side
    from safety_steering_pack.safety_steering.alignment.fit import fit_alignment

    source = source_vector(recipe.source)
    rows = torch.arange(len(source.anchors.texts))
    if recipe.anchors:
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED))[: recipe.anchors]
    texts = [source.anchors.texts[i] for i in rows.tolist()]
    pooled, token = target_states(tuple(texts), recipe.place)
    if recipe.permuted:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(recipe.permuted))
        pooled, token = pooled[order], token[order]
    point = source.anchors.hook_point
    return fit_alignment(
        source.anchors.states[rows],
        AnchorStates(pooled, token),
        recipe.method,
        source_side=Side(point, source.at(point).space, name=source.info.model_name),
        target_side=_target_side(recipe.place),
        texts=texts,
    )


@lru_cache
def source_vector(name: str) -> Any:
    """A source vector by its name."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    return load_vector(SOURCES[name])


def _target_side(place: str) -> Any:
    from safety_steering_pack.safety_steering.alignment.alignment import Side
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    if place == INNER:
        return Side(place, f"minilm/{place}", name="all-MiniLM-L6-v2")
    native = load_vector(WEIGHTS / METHODS["mean_difference"])
    info = native.info
    return Side(
        place, native.at(place).space, info.model_name, info.family, info.weight_fingerprint, dict(info.block_counts)
    )


@lru_cache
def target_states(texts: tuple[str, ...], place: str) -> tuple[Any, Any]:
    """Pooled states and one token's of each text, (n, D) float32, at a place of the small world's models."""
    if place.startswith("block."):
        return _block_states(texts, place)
    states, mask = encode_text(texts) if place == TEXT else layer_states(texts)
    mask = mask[..., None]
    pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return pooled, _one_token(states, mask[..., 0], texts)


def _one_token(states: Any, mask: Any, texts: Sequence[str]) -> Any:
    import torch
    from safety_steering_pack.bridge.sampling.sampling import fraction

    counts = mask.sum(dim=1)
    places = torch.tensor([int(fraction(text) * int(count)) for text, count in zip(texts, counts, strict=True)])
    return states[torch.arange(len(states)), places]


def _block_states(texts: Sequence[str], place: str) -> tuple[Any, Any]:
    """States of a block while the captions are generated, all steps together."""
    import torch
    from safety_steering_pack.bridge.capture.collect import Capture, capture_source
    from safety_steering_pack.bridge.sampling.sampling import fraction
    from safety_steering_pack.safety_steering.hook_point import HookPoint

    model = load_generator()
    capture = Capture(capture_source(model, (HookPoint(place),), (0.0, 1.0), WIDTH))
    captured = capture.attach(model)
    pooled, token = [], []
    for first in range(0, len(texts), 32):
        batch = list(texts[first : first + 32])
        capture.places = [fraction(text) for text in batch]
        generate_latents(captured, batch, list(range(first, first + len(batch))))
        states = capture.states[place]
        pooled.append(states.pooled[:, 0])
        token.append(states.token[:, 0])
    return torch.cat(pooled), torch.cat(token)
