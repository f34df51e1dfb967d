"""The workflow that evaluates a vector, built on ComfyUI's own Wan template."""

from __future__ import annotations

from PIL import Image

from workflow_builder.chain import APPLY, VectorFile, carry_over
from workflow_builder.graph import flatten, load_template
from workflow_builder.native import NUDENET, PAIRS, SAMPLER, SMALL_VIDEO
from workflow_builder.nodes import add
from workflow_builder.page import GREEN, Group, Note, Page
from workflow_builder.picture import ARROW, BACKGROUND, GREY, ROW_HEIGHTS, ROW_TOPS, Canvas
from workflow_builder.picture import GREEN as BOX_GREEN

NAME = "evaluate_vector"
LIMIT = 12
NOTE = """## What does steering prevent, and what does it cost?

Each pair of prompts, an unsafe one and its safe twin, is generated twice with the same noise: as the model is, and \
steered. A judge looks at all four videos.

1. **Change `limit` in Evaluate Safety first.** It is how many pairs are taken, evenly over the categories: {limit} is \
a first look, 0 takes all of the test split. A pair is four small videos. Stop it whenever you like; it goes on where \
it was, and a higher limit builds on a lower one.
2. Choose a **judge** that knows your themes. NudeNet sees nudity and nothing else; `clip` looks for what you write, \
with your own CLIP; `node` asks any other pack's detector. The table warns if it finds little in the plain videos.
3. Then **`level` in Apply**, and another name in `folder`: every setting has a folder of its own.

**A vector of your own?** If it was fitted on this very model (workflow `native_t2v`), select **Fit Benign Alignment** \
and **Transfer**, press Ctrl-B, and choose it in **Load Safety Vector**.

**How to read it.** ASR is the share of unsafe prompts whose video is judged unsafe, and means nothing alone: a model \
that draws mush has none. *usable* and *benign fidelity* say what is left, if the judge can tell; else look at the \
CLIP-Score (connect a CLIP to the judge) and at your videos. Brackets are 95 % intervals: with {limit} pairs they are \
wide. Choose settings on validation with **Calibrate Steering**, and read the test split once.

Table, CSV, chart and JSON are kept in `output/safety_evaluations`."""


def evaluate_vector(vector: VectorFile) -> Page:
    """Carry a portable vector over, apply it, and evaluate it."""
    graph, model, clip, vae = flatten(load_template("text_to_video_wan")), (48, 0), (38, 0), (39, 0)
    for node in (3, 6, 7, 8, 49, 50):
        graph.remove(node)
    graph.nodes[40]["widgets_values"] = list(SMALL_VIDEO)
    carry = carry_over(graph, vector, clip, model)
    apply = add(graph, "ApplySafetySteering", APPLY, model=model, safety_vector=(carry[-1], 0))
    prompts = add(graph, "LoadSafetyPrompts", [*PAIRS, 0])
    judge = add(graph, "SafetyJudge", NUDENET)
    evaluation = add(
        graph,
        "EvaluateSafety",
        ["my_wan", "test", LIMIT, *SAMPLER],
        model=model,
        steered_model=(apply, 0),
        clip=clip,
        vae=vae,
        prompts=(prompts, 0),
        judge=(judge, 0),
        latent=(40, 0),
    )
    columns = [
        [Group("Step 1 - Load models", [37, 38, 39, 48]), Group("Step 2 - Small and short will do", [40])],
        [Group("Step 3 - The vector, carried over to your model", carry, 430, GREEN)],
        [Group("Step 4 - Steer", [apply], 430, GREEN)],
        [
            Group("Step 5 - Prompts", [prompts], 440, GREEN),
            Group("Step 6 - What decides that a video is unsafe", [judge], 440, GREEN),
        ],
        [Group("Step 7 - Evaluate", [evaluation], 760, GREEN)],
    ]
    return Page(NAME, graph, Note("What to change first", NOTE.format(limit=LIMIT), (460, 820)), columns)


def thumbnail() -> Image.Image:
    """What the workflow does, legible when small."""
    canvas = Canvas()
    canvas.title("Evaluate a vector", "what it prevents, what it costs")
    upper = ("Unsafe\nand safe", "Plain and\nsteered", "Judge")
    above = canvas.row(ROW_TOPS[0], ROW_HEIGHTS[0], upper, [BOX_GREEN, GREY, BOX_GREEN], ARROW)
    lower = ("ASR", "Usable", "Benign\nfidelity")
    below = canvas.row(ROW_TOPS[2], ROW_HEIGHTS[2], lower, [GREY] * len(lower), BACKGROUND)
    end = ROW_TOPS[0] + ROW_HEIGHTS[0]
    corner = (end + ROW_TOPS[2]) / 2
    for middle in below:
        canvas.line([(above[-1], end), (above[-1], corner), (middle, corner), (middle, ROW_TOPS[2])])
    return canvas.picture()
