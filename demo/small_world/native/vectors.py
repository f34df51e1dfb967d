"""The directions of the table of native steering, fitted on all training pairs or without some of them.

`fit_vectors` writes a file for each direction into a folder of the cache. Text states need no generation; blocks need
the states of `small_world.native.capture_states`.

    mean, lda            text states: mean difference (what Supervised PCA gives for two labels) and shrunk LDA
    elements             text states: shrunk LDA, one direction an unsafe element
    words                text states: mean difference between the words that name unsafe elements and any benign word
    differing, _lda      text states: mean difference and shrunk LDA of the tokens that differ from the twin's, with
                         detectors
    cross_attention      what blocks read from the text, in four sigma bins: shrunk LDA of the tokens that differ, with
                         detectors
    shuffled, random     text states: shrunk LDA after half of the pairs exchanged their labels; random directions
    blocks_mean, _lda    blocks in four sigma bins, and the text states
    blocks_mean_k1, ...  blocks in one sigma bin
    casteer              CASteer's directions: cross-attention outputs, one a step and block
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from ..files import save_weights
from ..models.text import WIDTH, encode_text, token_ids
from ..runtime import WEIGHTS, use_comfyui
from ..scenes.splits import PromptPair, prompt_pairs
from ..scenes.world import CATEGORIES, HELD_OUT_ELEMENTS, UNSAFE_ELEMENTS
from .capture_states import BLOCK_HOOKS, COUNTS, SEED, open_activations, rows_of, states_folder
from .casteer import casteer_directions
from .fit_native import METHODS, WHOLE, random_like
from .held_out import fold_folder, pairs_with, without_pairs

ROOT = Path(__file__).resolve().parents[3]
TEXT = ("conditioning",)
NAMES = ("mean", "lda", "elements", "words", "differing", "differing_lda", "cross_attention", "shuffled", "random")
MEAN, LDA, ELEMENTS, WORDS, DIFFERING, DIFFERING_LDA, CROSS_ATTENTION, SHUFFLED, RANDOM = (
    f"{name}.safetensors" for name in NAMES
)
CASTEER = "casteer.safetensors"
BLOCKS_MEAN, BLOCKS_LDA, BLOCKS_MEAN_K1, BLOCKS_LDA_K1 = (
    f"blocks_{name}.safetensors" for name in ("mean", "lda", "mean_k1", "lda_k1")
)
READING_SHRINKAGE = 5.0
Read = Callable[[str], tuple[list[Any], Any, Sequence[float]]]


def all_vectors(names: Collection[str]) -> Path:
    """The vectors fitted on everything that a fit may see, for the test split."""
    return fit_vectors(states_folder() / "vectors", names)


def fold_vectors(left_out: Sequence[str], names: Collection[str]) -> Path:
    """The vectors fitted without some unsafe elements."""
    return fit_vectors(fold_folder(left_out), names, left_out)


def category_vectors(left_out: str, names: Collection[str]) -> Path:
    """The vectors fitted without one category."""
    elements = [element.name for element in UNSAFE_ELEMENTS if element.category == left_out]
    kept = tuple(category for category in CATEGORIES if category != left_out)
    return fit_vectors(states_folder() / f"without_{left_out}", names, elements, kept)


def fit_vectors(
    folder: Path, names: Collection[str], left_out: Collection[str] = (), categories: Sequence[str] = CATEGORIES
) -> Path:
    """Fit and save those of `names` that are not there yet; the folder. left_out: elements that no fit sees."""
    use_comfyui()
    from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector

    excluded = pairs_with(left_out)
    elements = [e.name for e in UNSAFE_ELEMENTS if e.name not in (*HELD_OUT_ELEMENTS, *left_out)]

    def text(method: str, pooling: str, **how: bool) -> Any:
        return _fit(method, TEXT, texts(excluded, pooling, **how), elements if how.get("by_element") else categories)

    def blocks(method: str, bins: int, hooks: tuple[str, ...]) -> Any:
        return _fit(method, hooks, captured(excluded, bins), categories)

    def at_random() -> Any:
        return random_like(load_vector(fit_vectors(folder, (MEAN,), left_out, categories) / MEAN), SEED)

    fits: dict[str, Callable[[], Any]] = {
        MEAN: lambda: text("mean_difference", "all"),
        LDA: lambda: text("shrunk_lda", "all"),
        ELEMENTS: lambda: text("shrunk_lda", "all", by_element=True),
        WORDS: lambda: text("mean_difference", "words"),
        DIFFERING: lambda: acting("mean_difference", excluded, categories),
        DIFFERING_LDA: lambda: acting("shrunk_lda", excluded, categories),
        CROSS_ATTENTION: lambda: reading(excluded, categories),
        SHUFFLED: lambda: text("shrunk_lda", "all", shuffled=True),
        RANDOM: at_random,
        BLOCKS_MEAN: lambda: blocks("mean_difference", 4, (*TEXT, *BLOCK_HOOKS)),
        BLOCKS_LDA: lambda: blocks("shrunk_lda", 4, (*TEXT, *BLOCK_HOOKS)),
        BLOCKS_MEAN_K1: lambda: blocks("mean_difference", 1, BLOCK_HOOKS),
        BLOCKS_LDA_K1: lambda: blocks("shrunk_lda", 1, BLOCK_HOOKS),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == CASTEER and not (folder / name).exists():
            save_weights(folder / name, casteer_directions(excluded, categories), {})
        elif name and not (folder / name).exists():
            save_vector(fits[name](), folder / name)
    return folder


def texts(excluded: Collection[str], pooling: str, by_element: bool = False, shuffled: bool = False) -> Read:
    """Reads the text states of the training prompts: rows, states and sigma edges.

    pooling: see `read_texts`. by_element: an element is a category of its own. shuffled: exchange the
    labels within half of the pairs.
    """
    pairs = prompt_pairs("train", COUNTS["train"], SEED)
    rows = without(rows_of(pairs, 0), excluded)
    if by_element:
        names = [pair.unsafe.element for pair in pairs for _ in range(2)]
        rows = [replace(row, category=name) for row, name in zip(rows, names, strict=True)]
    if shuffled:
        rows = exchanged(rows)
    found: TextStates = read_texts(pairs, pooling)
    return lambda hook_point: (rows, found.states(), (0.0, 1.0))


def captured(excluded: Collection[str], bins: int) -> Read:
    """Reads the captured states of a hook point, the blocks' with their sigma bins merged to `bins`."""
    from safety_steering_pack.safety_steering.directions.merging import merged_bins, merged_edges

    def read(hook_point: str) -> tuple[list[Any], Any, Sequence[float]]:
        activations = open_activations("conditioning" if hook_point in TEXT else "blocks")
        rows = without(activations.rows(), excluded)
        states, edges = activations.read(hook_point), activations.source.sigma_edges
        if hook_point in TEXT:
            return rows, states, edges
        return rows, merged_bins(states, bins), merged_edges(edges, bins)

    return read


def without(rows: Sequence[Any], excluded: Collection[str]) -> list[Any]:
    """The rows, those of the excluded pairs in a split of their own."""
    return [replace(row, split="left out") if row.pair in excluded else row for row in rows]


def exchanged(rows: Sequence[Any]) -> list[Any]:
    """The rows with the labels exchanged within a random half of the pairs."""
    import torch

    pairs = sorted({row.pair for row in rows})
    drawn = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(SEED))[: len(pairs) // 2]
    chosen = {pairs[i] for i in drawn.tolist()}
    other = {"safe": "unsafe", "unsafe": "safe"}
    return [replace(row, label=other[row.label]) if row.pair in chosen else row for row in rows]


def acting(method: str, excluded: Collection[str], categories: Sequence[str]) -> Any:
    """A native vector of the text states as Fit Safety Direction makes it: of differing tokens, with detectors."""
    from tempfile import TemporaryDirectory

    from safety_steering_pack.safety_steering.activations import Activations, Source
    from safety_steering_pack.safety_steering.directions.fitting import FitSettings
    from safety_steering_pack.safety_steering.directions.native import fit_vector
    from safety_steering_pack.safety_steering.vectors.file import load_vector

    committed = load_vector(WEIGHTS / METHODS["mean_difference"])
    info, space = committed.info, committed.at(TEXT[0]).space
    source = Source({TEXT[0]: (space, WIDTH)}, (0.0, 1.0), info.family, info.model_name, info.weight_fingerprint)
    with TemporaryDirectory() as folder:
        activations = Activations.create(folder, replace(source, block_counts=dict(info.block_counts)))
        pairs = {split: prompt_pairs(split, count, SEED) for split, count in COUNTS.items()}
        rows = [row for some in pairs.values() for row in rows_of(some, 0)]
        activations.append(rows, {TEXT[0]: text_states(tuple(chain(*pairs.values())))})
        settings = FitSettings(method=method, tokens="differing")
        found = without_pairs(activations, excluded)
        return fit_vector(found, settings, categories=categories, benign=diverse_benign()).vector


def reading(excluded: Collection[str], categories: Sequence[str]) -> Any:
    """A native vector of what blocks read from the text, of differing tokens, with detectors of the text states."""
    from safety_steering_pack.safety_steering.directions.fitting import FitSettings
    from safety_steering_pack.safety_steering.directions.native import fit_vector

    settings = FitSettings(method="shrunk_lda", shrinkage=READING_SHRINKAGE, tokens="differing")
    found = without_pairs(open_activations("cross_attention"), excluded)
    return fit_vector(found, settings, categories=categories, benign=diverse_benign()).vector


@lru_cache
def text_states(pairs: tuple[PromptPair, ...]) -> Any:
    """The states of both prompts of each pair as a capture of the conditioning holds them, with every token."""
    import torch
    from safety_steering_pack.safety_steering.activations import States

    states, mask = encode_text([text for pair in pairs for text in pair.prompts])
    tokens = states.masked_fill(~mask[..., None], torch.nan)[:, None].bfloat16()
    found = read_texts(pairs, "all").states()
    return States(found.pooled, found.token, tokens)


@lru_cache
def diverse_benign() -> Any:
    """Mean text states (n, WIDTH) of the bundled harmless captions, which are not of this world."""
    from safety_steering_pack.safety_steering.directions.portable import BUNDLED_ANCHORS, anchor_texts
    from safety_steering_pack.safety_steering.prompts.files import load_prompts

    texts = anchor_texts(load_prompts(ROOT / "vectors" / "prompts" / BUNDLED_ANCHORS))
    states, mask = encode_text(texts)
    return states.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _fit(method: str, hooks: Sequence[str], read: Read, categories: Sequence[str]) -> Any:
    """A native vector, from the rows of split "train"; which model it fits is read off the committed one."""
    from safety_steering_pack.safety_steering.directions.fitting import FitSettings, fit_states
    from safety_steering_pack.safety_steering.vectors.file import load_vector
    from safety_steering_pack.safety_steering.vectors.vector import SafetyVector

    committed = load_vector(WEIGHTS / METHODS["mean_difference"])
    points = {}
    for hook_point in hooks:
        rows, states, edges = read(hook_point)
        settings, space = FitSettings(method=method), committed.at(hook_point).space
        points[hook_point], _ = fit_states(
            rows, states, categories, settings, space=space, sigma_edges=edges, whole=WHOLE
        )
    mix = dict.fromkeys(categories, 1.0)
    suggestion = replace(committed.info.suggestion, hook_points=tuple(hooks), mix=mix)
    unknown = {"counts": {}, "validation_auc": {}, "validated_on": (), "provenance": ()}
    info = replace(committed.info, method=method, suggestion=suggestion, **unknown)
    return SafetyVector(points, info)


@dataclass(frozen=True, eq=False)
class TextStates:
    """Rows in the order of `capture_states.rows_of`: pooled and token, each (n, D) float32."""

    pooled: Any
    token: Any

    def states(self) -> Any:
        """As a fit takes them, with one sigma bin."""
        from safety_steering_pack.safety_steering.activations import States

        return States(self.pooled[:, None], self.token[:, None])


def read_texts(pairs: Sequence[PromptPair], pooling: str) -> TextStates:
    """The states of both prompts of each pair.

    pooling: "all" is the mean over a prompt's tokens, which is what a capture of the conditioning holds. "words" is,
    for an unsafe prompt, the mean over the tokens that its twin does not share, and for a safe one a token drawn at
    random: an unsafe word against any benign one. token: a token drawn at random.
    """
    import torch

    states, mask = encode_text([text for pair in pairs for text in pair.prompts])
    lengths = mask.sum(dim=1)
    kept = (torch.rand(len(states), generator=torch.Generator().manual_seed(SEED)) * lengths).long()
    token = states[torch.arange(len(states)), kept]
    if pooling == "all":
        return TextStates(states.sum(dim=1) / lengths[:, None], token)
    pooled = token.clone()
    for number, pair in enumerate(pairs):
        pooled[2 * number] = states[2 * number, differing_tokens(pair)].mean(dim=0)
    return TextStates(pooled, token)


def differing_tokens(pair: PromptPair) -> list[int]:
    """Indices of the unsafe prompt's tokens that its twin does not share."""
    unsafe, safe = token_ids(pair.prompts)
    parts = SequenceMatcher(None, unsafe, safe, autojunk=False).get_opcodes()
    return [index for kind, start, end, _, _ in parts if kind != "equal" for index in range(start, end)]
