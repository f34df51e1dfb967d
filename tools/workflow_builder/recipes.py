"""The workflows for artists: which of ComfyUI's templates each one is, what of it is steered, and where nodes stand.

Numbers are ids of the template's nodes. A column is a list of frames; the safety nodes are added by `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from workflow_builder.chain import Compared, Steered, VectorFile, add_chain, add_safe_models, compare
from workflow_builder.graph import Socket, flatten, load_template
from workflow_builder.notes import COMPARE_NOTE, FIVE_NOTE, NOTE
from workflow_builder.page import GREEN, WIDTH, Group, Note, Page

EXAMPLE_IMAGE = "example.png"  # lies in ComfyUI's input folder from the start
MODELS, IMAGE, SIZE, PROMPT, SAMPLE = "Load models", "Start image", "Size", "Prompt", "Sample"
COMPARE = "Compare: drag the divider"
Frame = tuple[str, Sequence[int]]  # title, nodes

SAFETY_WIDTH, RESULT_WIDTH = 430, 480
WIDTHS = {PROMPT: 440, COMPARE: 480}


@dataclass(frozen=True)
class Try:
    """A prompt to begin with, what to look for in its result, and a harmless prompt to try next."""

    text: str
    look_for: str
    harmless: str


@dataclass(frozen=True)
class Recipe:
    """One workflow.

    model: how people call it. columns: what comes before the safety nodes (with Safe Model, the first column; the
    others follow it), frames in columns. sampling: what comes behind them; then the `result`. keep: bypassed nodes that
    stay. start_images: nodes that load one. prompt: the node of the positive prompt; first: what is written there.
    advice: ends the note. five: shows the five nodes instead of Safe Model.
    """

    name: str
    first: Try
    template: str
    model: str
    clip: Socket
    steered: Sequence[Steered]
    columns: Sequence[Sequence[Frame]]
    sampling: Sequence[Sequence[Frame]]
    result: Sequence[int]
    keep: Sequence[int] = ()
    start_images: Sequence[int] = ()
    compared: Compared | None = None
    advice: str = ""
    prompt: int = 6
    five: bool = False


# mildly unsafe prompts in plain words, what to look for, and a harmless one that must stay as it is
BAR_FIGHT = Try(
    "A bar fight at night: two men punch each other between overturned tables, glass breaks, one of them bleeds from "
    "the nose. Handheld camera, warm light.",
    "fists, blood and broken glass",
    "Two men clink their glasses at a bar at night and laugh. Handheld camera, warm light.",
)
SMOKER = Try(
    "Close-up of an old sailor who lights a cigarette and blows the smoke slowly into the camera, evening light in the "
    "harbour.",
    "the cigarette and its smoke",
    "Close-up of an old sailor who drinks a cup of tea and looks into the camera, evening light in the harbour.",
)
KNIGHT = Try(
    "A knight in dented armour walks out of a burning village, a bloody sword in his hand, blood on his breastplate, "
    "smoke in the air, cinematic.",
    "the blood and the sword",
    "A knight in polished armour walks through a village on market day, flowers in his hand, cinematic.",
)

RECIPES = (
    Recipe(
        name="compare_t2v",
        first=KNIGHT,
        five=True,
        template="text_to_video_wan",
        model="Wan 2.1",
        clip=(38, 0),
        steered=[Steered((37, 0), 48, samples=None)],
        columns=[[(MODELS, [37, 38, 39]), (SIZE, [40])], [(PROMPT, [6, 7])]],
        sampling=[[(COMPARE, [48, 3])]],
        result=[50],
        compared=Compared(sampler=3, decode=8, video=49),
    ),
    Recipe(
        name="wan21_t2v",
        first=BAR_FIGHT,
        template="text_to_video_wan",
        model="Wan 2.1",
        clip=(38, 0),
        steered=[Steered((37, 0), 48, (3, 0))],
        columns=[[(MODELS, [37, 38])], [(PROMPT, [6, 7])]],
        sampling=[[(SIZE, [40]), (SAMPLE, [48, 3])]],
        result=[39, 8, 49, 50],
    ),
    Recipe(
        name="wan21_i2v",
        first=SMOKER,
        template="image_to_video_wan",
        model="Wan 2.1 image to video",
        clip=(38, 0),
        steered=[Steered((37, 0), 54, (3, 0))],
        columns=[
            [(MODELS, [37, 38, 39, 49]), (IMAGE, [52, 51])],
            [(PROMPT, [6, 7]), (SIZE, [50])],
        ],
        sampling=[[(SAMPLE, [54, 3])]],
        result=[8, 55, 56],
        start_images=[52],
        advice="The start image is shown as it is: steering acts on what happens after it. Do not start from a picture "
        "that you would not show.",
    ),
    Recipe(
        name="wan22_ti2v_5b",
        first=SMOKER,
        template="video_wan2_2_5B_ti2v",
        model="Wan 2.2 5B",
        clip=(38, 0),
        steered=[Steered((37, 0), 48, (3, 0))],
        columns=[
            [(MODELS, [37, 38, 39]), ("Start image: Ctrl-B to use one", [56])],
            [(PROMPT, [6, 7]), (SIZE, [55])],
        ],
        sampling=[[(SAMPLE, [48, 3])]],
        result=[8, 57, 58],
        keep=[56],
        start_images=[56],
        advice="For image to video select the start image and press Ctrl-B. The frame you give is not steered.",
    ),
    Recipe(
        name="wan22_t2v_14b",
        first=BAR_FIGHT,
        prompt=89,
        template="video_wan2_2_14B_t2v",
        model="Wan 2.2 14B",
        clip=(71, 0),
        steered=[
            Steered((75, 0), 82, (81, 0), stage="high noise"),
            Steered((76, 0), 86, (78, 0), stage="low noise"),
        ],
        columns=[
            [(MODELS, [75, 76, 71, 73])],
            [(PROMPT, [89, 72])],
            [(SIZE, [74, 126, 125, 127]), ("Steps of both experts", [114, 115, 116])],
        ],
        sampling=[[("Sample: high noise, then low", [82, 81, 86, 78])]],
        result=[87, 88, 80],
        advice="Two experts make the video, one after the other; both are steered. To use a 4-step LoRA put it between "
        "model and **Safe Model**, with 4 steps, split at 2, cfg 1.",
    ),
    Recipe(
        name="ltxv_t2v",
        first=KNIGHT,
        template="ltxv_text_to_video",
        model="LTX-Video",
        clip=(38, 0),
        steered=[Steered((44, 0), 72, (72, 0))],
        columns=[[(MODELS, [44, 38])], [(PROMPT, [6, 7, 69]), (SIZE, [70])]],
        sampling=[[(SAMPLE, [73, 71, 72])]],
        result=[8, 78, 79],
        advice="LTX-Video wants long, detailed prompts.",
    ),
    Recipe(
        name="ltxv_i2v",
        first=SMOKER,
        template="ltxv_image_to_video",
        model="LTX-Video image to video",
        clip=(38, 0),
        steered=[Steered((44, 0), 72, (72, 0))],
        columns=[
            [(MODELS, [44, 38]), (IMAGE, [78])],
            [(PROMPT, [6, 7, 69]), (SIZE, [77])],
        ],
        sampling=[[(SAMPLE, [73, 71, 72])]],
        result=[8, 80, 81],
        start_images=[78],
        advice="The start image is shown as it is: steering acts on what happens after it. Describe your own image in "
        "the prompt, at length.",
    ),
    Recipe(
        name="ltx2_t2v",
        first=BAR_FIGHT,
        prompt=3,
        template="video_ltx2_t2v",
        model="LTX-2",
        clip=(60, 0),
        steered=[
            Steered((1, 0), 47, (41, 0), stage="stage 1"),
            Steered((68, 0), 82, (70, 1), stage="stage 2"),
        ],
        columns=[
            [(MODELS, [1, 60, 48, 76, 68])],
            [(PROMPT, [3, 4, 22])],
            [(SIZE, [89, 90, 91, 62, 102, 103]), ("Empty video and sound", [43, 51, 56])],
        ],
        sampling=[
            [("Stage 1", [11, 8, 9, 47, 41, 80, 81])],
            [("Stage 2, twice as large", [84, 83, 67, 66, 73, 82, 70, 98])],
        ],
        result=[100, 101, 97, 75],
        advice="Both stages are steered. The prompt is steered where it describes the picture; the sound hears it as "
        "you wrote it. Both frame rates must be the same.",
    ),
    Recipe(
        name="ltx2_i2v",
        first=SMOKER,
        prompt=3,
        template="video_ltx2_i2v",
        model="LTX-2 image to video",
        clip=(60, 0),
        steered=[
            Steered((1, 0), 47, (41, 0), stage="stage 1"),
            Steered((68, 0), 82, (70, 1), stage="stage 2"),
        ],
        columns=[
            [(MODELS, [1, 60, 48, 76, 68])],
            [(IMAGE, [98, 102, 112, 99]), (PROMPT, [3, 4, 22])],
            [(SIZE, [106, 89, 90, 91, 62]), ("Empty video and sound", [43, 107, 51, 56])],
        ],
        sampling=[
            [("Stage 1", [11, 8, 9, 47, 41, 80, 81])],
            [("Stage 2, twice as large", [84, 108, 83, 67, 66, 73, 82, 70, 105])],
        ],
        result=[95, 96, 97, 75],
        start_images=[98],
        advice="Both stages are steered. The start image is shown as it is: steering acts on what happens after it. "
        "Describe your own image in the prompt.",
    ),
    Recipe(
        name="flux_t2i",
        first=KNIGHT,
        prompt=49,
        template="flux_dev_full_text_to_image",
        model="Flux.1 dev",
        clip=(47, 0),
        steered=[Steered((46, 0), 50, (50, 0))],
        columns=[[(MODELS, [46, 47])], [(PROMPT, [49, 52])]],
        sampling=[[(SIZE, [48]), (SAMPLE, [50])]],
        result=[45, 51, 9],
        advice="Flux reads the prompt twice: the long T5 text is steered, the short CLIP summary is not.",
    ),
)
_BY_NAME = {recipe.name: recipe for recipe in RECIPES}
RECIPES += tuple(
    replace(_BY_NAME[name], name=f"advanced_{name}", five=True, first=first)
    for name, first in (("wan21_t2v", KNIGHT), ("ltxv_t2v", BAR_FIGHT))
)


def build(recipe: Recipe, vector: VectorFile) -> Page:
    """A workflow's page; `vector` is the file that it loads.

    Raises:
        ValueError: the recipe does not place every node of the template.
    """
    graph = flatten(load_template(recipe.template), recipe.keep)
    for node in recipe.start_images:
        graph.nodes[node]["widgets_values"][0] = EXAMPLE_IMAGE
    if recipe.compared:
        compare(graph, recipe.compared)
    graph.nodes[recipe.prompt]["widgets_values"][0] = recipe.first.text
    columns = [[_group(frame) for frame in column] for column in recipe.columns]
    if recipe.five:
        chain = add_chain(graph, vector, recipe.clip, recipe.steered)
        columns += [[Group("Safety: carry the vector over", chain.carry, SAFETY_WIDTH, GREEN)]]
        columns += [[Group("Safety: mix and apply", chain.apply, SAFETY_WIDTH, GREEN)]]
        reports = [[Group("Safety: what was done", chain.reports, RESULT_WIDTH, GREEN)]] if chain.reports else []
        note = COMPARE_NOTE if recipe.compared else FIVE_NOTE
    else:
        safe = add_safe_models(graph, recipe.clip, recipe.steered)
        columns.insert(1, [Group("Safe Model", safe, SAFETY_WIDTH, GREEN)])
        reports, note = [], NOTE
    columns += [[_group(frame) for frame in column] for column in recipe.sampling]
    columns += [[Group("Result", recipe.result, RESULT_WIDTH)], *reports]
    told = {"look_for": recipe.first.look_for, "harmless": recipe.first.harmless}
    text = note.format(model=recipe.model, advice=recipe.advice, **told).rstrip()
    return Page(recipe.name, graph, Note("What to change first", text), _numbered(columns))


def _group(frame: Frame) -> Group:
    title, nodes = frame
    return Group(title, nodes, WIDTHS.get(title, WIDTH))


def _numbered(columns: Sequence[Sequence[Group]]) -> list[list[Group]]:
    """The frames in reading order: Step 1, Step 2 and so on."""
    step = count(1)
    return [[replace(group, title=f"Step {next(step)} - {group.title}") for group in column] for column in columns]
