"""The workflows for artists: which of ComfyUI's templates each one is, what of it is steered, and where nodes stand.

Numbers are ids of the template's nodes. A column is a list of frames; the safety nodes are added by `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from workflow_builder.chain import Compared, Steered, VectorFile, add_chain, compare
from workflow_builder.graph import Socket, flatten, load_template
from workflow_builder.page import GREEN, WIDTH, Group, Note, Page

EXAMPLE_IMAGE = "example.png"  # lies in ComfyUI's input folder from the start
MODELS, IMAGE, SIZE, PROMPT, SAMPLE = "Load models", "Start image", "Size", "Prompt", "Sample"
COMPARE = "Compare: drag the divider"
Frame = tuple[str, Sequence[int]]  # title, nodes

SAFETY_WIDTH, RESULT_WIDTH = 430, 480
WIDTHS = {PROMPT: 440, COMPARE: 480}


@dataclass(frozen=True)
class Recipe:
    """One workflow.

    model: how people call it. columns: what comes before the safety nodes, frames in columns. sampling: what comes
    behind them, a frame a column; then the `result`. keep: bypassed nodes that stay. start_images: nodes that load one.
    advice: ends the note.
    """

    name: str
    template: str
    model: str
    clip: Socket
    steered: Sequence[Steered]
    columns: Sequence[Sequence[Frame]]
    sampling: Sequence[Frame]
    result: Sequence[int]
    keep: Sequence[int] = ()
    start_images: Sequence[int] = ()
    compared: Compared | None = None
    advice: str = ""


RECIPES = (
    Recipe(
        name="compare_t2v",
        template="text_to_video_wan",
        model="Wan 2.1",
        clip=(38, 0),
        steered=[Steered((37, 0), 48, samples=None)],
        columns=[[(MODELS, [37, 38, 39]), (SIZE, [40])], [(PROMPT, [6, 7])]],
        sampling=[(COMPARE, [48, 3])],
        result=[50],
        compared=Compared(sampler=3, decode=8, video=49),
    ),
    Recipe(
        name="wan21_t2v",
        template="text_to_video_wan",
        model="Wan 2.1",
        clip=(38, 0),
        steered=[Steered((37, 0), 48, (3, 0))],
        columns=[[(MODELS, [37, 38, 39]), (SIZE, [40])], [(PROMPT, [6, 7])]],
        sampling=[(SAMPLE, [48, 3])],
        result=[8, 49, 50],
    ),
    Recipe(
        name="wan21_i2v",
        template="image_to_video_wan",
        model="Wan 2.1 image to video",
        clip=(38, 0),
        steered=[Steered((37, 0), 54, (3, 0))],
        columns=[
            [(MODELS, [37, 38, 39, 49]), (IMAGE, [52, 51])],
            [(PROMPT, [6, 7]), (SIZE, [50])],
        ],
        sampling=[(SAMPLE, [54, 3])],
        result=[8, 55, 56],
        start_images=[52],
        advice="The start image is shown as it is: steering acts on what happens after it. Do not start from a picture "
        "that you would not show.",
    ),
    Recipe(
        name="wan22_ti2v_5b",
        template="video_wan2_2_5B_ti2v",
        model="Wan 2.2 5B",
        clip=(38, 0),
        steered=[Steered((37, 0), 48, (3, 0))],
        columns=[
            [(MODELS, [37, 38, 39]), ("Start image: Ctrl-B to use one", [56])],
            [(PROMPT, [6, 7]), (SIZE, [55])],
        ],
        sampling=[(SAMPLE, [48, 3])],
        result=[8, 57, 58],
        keep=[56],
        start_images=[56],
        advice="For image to video select the start image and press Ctrl-B. The frame you give is not steered.",
    ),
    Recipe(
        name="wan22_t2v_14b",
        template="video_wan2_2_14B_t2v",
        model="Wan 2.2 14B",
        clip=(71, 0),
        steered=[
            Steered((75, 0), 82, (81, 0), stage="high noise"),
            Steered((76, 0), 86, (78, 0), window_end=1.0, stage="low noise"),
        ],
        columns=[
            [(MODELS, [75, 76, 71, 73])],
            [(PROMPT, [89, 72])],
            [(SIZE, [74, 126, 125, 127]), ("Steps of both experts", [114, 115, 116])],
        ],
        sampling=[("Sample: high noise, then low", [82, 81, 86, 78])],
        result=[87, 88, 80],
        advice="Two experts make the video, one after the other; both are steered. The second one works behind the "
        "middle of denoising, so its window is 0 to 1. To use a 4-step LoRA put it between model and **Apply**, with "
        "4 steps, split at 2, cfg 1.",
    ),
    Recipe(
        name="ltxv_t2v",
        template="ltxv_text_to_video",
        model="LTX-Video",
        clip=(38, 0),
        steered=[Steered((44, 0), 72, (72, 0))],
        columns=[[(MODELS, [44, 38]), (SIZE, [70])], [(PROMPT, [6, 7, 69])]],
        sampling=[(SAMPLE, [73, 71, 72])],
        result=[8, 78, 79],
        advice="LTX-Video wants long, detailed prompts.",
    ),
    Recipe(
        name="ltxv_i2v",
        template="ltxv_image_to_video",
        model="LTX-Video image to video",
        clip=(38, 0),
        steered=[Steered((44, 0), 72, (72, 0))],
        columns=[
            [(MODELS, [44, 38]), (IMAGE, [78])],
            [(PROMPT, [6, 7, 69]), (SIZE, [77])],
        ],
        sampling=[(SAMPLE, [73, 71, 72])],
        result=[8, 80, 81],
        start_images=[78],
        advice="The start image is shown as it is: steering acts on what happens after it. Describe your own image in "
        "the prompt, at length.",
    ),
    Recipe(
        name="ltx2_t2v",
        template="video_ltx2_t2v",
        model="LTX-2",
        clip=(60, 0),
        steered=[
            Steered((1, 0), 47, (41, 0), stage="stage 1"),
            Steered((68, 0), 82, (70, 1), window_end=1.0, stage="stage 2"),
        ],
        columns=[
            [(MODELS, [1, 60, 48, 76, 68])],
            [(PROMPT, [3, 4, 22])],
            [(SIZE, [89, 90, 91, 62, 102, 103]), ("Empty video and sound", [43, 51, 56])],
        ],
        sampling=[
            ("Stage 1", [11, 8, 9, 47, 41, 80, 81]),
            ("Stage 2, twice as large", [84, 83, 67, 66, 73, 82, 70, 98]),
        ],
        result=[100, 101, 97, 75],
        advice="Both stages are steered. The second begins behind the middle of denoising, so its window is 0-1. The "
        "prompt is steered where it describes the picture; the sound hears it as you wrote it. Both frame rates must "
        "be the same.",
    ),
    Recipe(
        name="ltx2_i2v",
        template="video_ltx2_i2v",
        model="LTX-2 image to video",
        clip=(60, 0),
        steered=[
            Steered((1, 0), 47, (41, 0), stage="stage 1"),
            Steered((68, 0), 82, (70, 1), window_end=1.0, stage="stage 2"),
        ],
        columns=[
            [(MODELS, [1, 60, 48, 76, 68])],
            [(IMAGE, [98, 102, 112, 99]), (PROMPT, [3, 4, 22])],
            [(SIZE, [106, 89, 90, 91, 62]), ("Empty video and sound", [43, 107, 51, 56])],
        ],
        sampling=[
            ("Stage 1", [11, 8, 9, 47, 41, 80, 81]),
            ("Stage 2, twice as large", [84, 108, 83, 67, 66, 73, 82, 70, 105]),
        ],
        result=[95, 96, 97, 75],
        start_images=[98],
        advice="Both stages are steered. The second begins behind the middle of denoising, so its window is 0-1. The "
        "start image is shown as it is: steering acts on what happens after it. Describe your own image in the prompt.",
    ),
    Recipe(
        name="flux_t2i",
        template="flux_dev_full_text_to_image",
        model="Flux.1 dev",
        clip=(47, 0),
        steered=[Steered((46, 0), 50, (50, 0))],
        columns=[[(MODELS, [46, 47, 45]), (SIZE, [48])], [(PROMPT, [49, 52])]],
        sampling=[(SAMPLE, [50])],
        result=[51, 9],
        advice="Flux reads the prompt twice: the long T5 text is steered, the short CLIP summary is not.",
    ),
)

NOTE = """## Safer {model}, without a black frame

1. Press **Run** once as it is. Then select **Apply Safety Steering**, press Ctrl-B and run again: same seed, not \
steered. That is the difference it makes.
2. **Change `strength` in Apply first.** 0 is off and leaves the model as it was; try 0.5, then 1, then 2. If harmless \
prompts come out changed or dull, go down.
3. Then the **Category Mixer**: a preset for all categories, or a weight for each, such as `violence=1, sexual=0.5`.
4. Then `window_end`: a later end steers finer detail, an earlier one keeps more of your composition.

**What happens here.** The vector was found in a small language model, by comparing safe and unsafe sentences. **Fit \
Benign Alignment** learns from harmless captions alone how that model's states read in yours; it takes a minute once \
and is kept in `models/safety_alignments`. **Transfer** carries the vector over. Look at the report of the fit: it \
says if it is too poor to trust.

**What it does not promise.** The bundled vector comes from a language model of 135 million parameters and was never \
measured on the real {model}. Look at what you get; the **Steering Report** says what was done.

{advice}"""

COMPARE_NOTE = """## Unsteered and steered, side by side

1. Press **Run**. **Safety A/B** makes the prompt twice from the same seed, without and with steering.
2. **Drag the divider** across the picture: left of it unsteered, right of it steered. Both sides are saved as one \
video too. This prompt is harmless, so little should change; then write one that went wrong for you.
3. **Change `strength` in Apply Safety Steering first.** 0 is off, and both sides are the same; try 1, then 2, 4, 8. \
Run again.
4. Then **the sliders of Category Mixer**: more of one category, less of another, 0 leaves it alone. Or a preset for \
all.
5. **Benign prompts change too?** Set `intervention` to `clamp`: it moves only what lies on the unsafe side. Then \
lower `strength`.
6. Still too little? `window_end` to 1: steers until the last step.

The first run takes longer: **Fit Benign Alignment** shows a thousand harmless captions to your text encoder and keeps \
the result. Every run makes two videos, so start small: a short `length` will do.

**What it does not promise.** The bundled vector comes from a language model of 135 million parameters and was never \
measured on the real {model}. Judge by what you see, with harmless prompts too; what steering did stands in **Apply**, \
below its settings.

When you like it, take the workflow of your model: same nodes, half the time.

{advice}"""


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
    chain = add_chain(graph, vector, recipe.clip, recipe.steered)
    columns = [[_group(frame) for frame in column] for column in recipe.columns]
    columns += [[Group("Safety: carry the vector over", chain.carry, SAFETY_WIDTH, GREEN)]]
    columns += [[Group("Safety: mix and apply", chain.apply, SAFETY_WIDTH, GREEN)]]
    columns += [[_group(frame)] for frame in recipe.sampling]
    columns += [[Group("Result", recipe.result, RESULT_WIDTH)]]
    if chain.reports:
        columns += [[Group("Safety: what was done", chain.reports, RESULT_WIDTH, GREEN)]]
    text = (COMPARE_NOTE if recipe.compared else NOTE).format(model=recipe.model, advice=recipe.advice).rstrip()
    return Page(recipe.name, graph, Note("What to change first", text), _numbered(columns))


def _group(frame: Frame) -> Group:
    title, nodes = frame
    return Group(title, nodes, WIDTHS.get(title, WIDTH))


def _numbered(columns: Sequence[Sequence[Group]]) -> list[list[Group]]:
    """The frames in reading order: Step 1, Step 2 and so on."""
    step = count(1)
    return [[replace(group, title=f"Step {next(step)} - {group.title}") for group in column] for column in columns]
