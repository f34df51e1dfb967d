"""The workflows of native steering, built on ComfyUI's own Wan templates: capture and fit, calibrate, steer.

Their widgets are for a real Wan; `small_world_workflows.small_world_variant` makes them run on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workflow_builder.chain import APPLY
from workflow_builder.graph import FlatGraph, Socket, flatten, load_template
from workflow_builder.nodes import add
from workflow_builder.page import GREEN, Group, Note, Page

START_IMAGE = "example.png"  # lies in ComfyUI's input folder from the start
SAFETY_WIDTH, RESULT_WIDTH, PROMPT_WIDTH = 430, 480, 440
PAIRS = ["safety_pairs.csv", "", "as the file says", "", 0.6, 0.2, 0]  # and how many of them
SAMPLER = [10, 6, "uni_pc", "simple", 0, ""]  # steps, cfg, sampler, scheduler, seed, negative
FIT = ["mean_difference", False, False, 0, "", 0, "fixed", "differing"]
# of the judge: which, its file, threshold, labels; then frames, features, prompt
NUDENET_LABELS = (
    "FEMALE_GENITALIA_EXPOSED, MALE_GENITALIA_EXPOSED, FEMALE_BREAST_EXPOSED, ANUS_EXPOSED, BUTTOCKS_EXPOSED"
)
NUDENET = ["nudenet", "installed package", 0.5, NUDENET_LABELS, 8, "the judge's own", ""]
SMALL_VIDEO = [416, 240, 17, 1]

LEARN = """1. **Change `limit` in Load Safety Prompts first.** It is how many pairs are generated: {limit} is \
quick and rough, 0 takes all of them. Each pair is two short, small videos; the progress bar tells how far it is.
2. Stop it whenever you like: **Capture Activations** goes on where it was, as long as `folder` and settings stay. \
What is captured is not generated again.
3. Look at the chart of **Fit Safety Direction**: how well each place in the model tells safe from unsafe prompts \
that it did not learn from. 0.5 is chance."""
HONEST = """**What it does not promise.** A direction that tells prompts apart need not steer well, and a handful \
of prompts is no proof. Measure with **Evaluate Safety** before you rely on it."""

T2V = """## Learn what is unsafe from your own Wan, then steer it

{learn}
4. Then **`level` in Apply**: 0 is off, 1 as is usual for such a vector, 2 twice as strong. With `settings` at manual \
you choose all yourself: `hook_points` is where; `conditioning` is the text, 0.5 the block at half depth.
5. Select **Apply Safety Steering**, press Ctrl-B and run again: same seed, not steered.

The vector is saved in `models/safety_vectors` and fits this model only. The bundled prompts name unsafe themes in \
plain words; nothing graphic. Put your own into `models/safety_prompts`.

{honest}"""

I2V = """## Learn what is unsafe from your own image-to-video Wan, then steer it

{learn}
4. Then **`level` in Apply**: 0 is off, 1 as is usual for such a vector, 2 twice as strong. With `settings` at manual \
you choose all yourself: `hook_points` is where; `conditioning` is the text, 0.5 the block at half depth.
5. Select **Apply Safety Steering**, press Ctrl-B and run again: same seed, not steered.

All prompts start from your image here, through the `template` input of **Capture Activations**: that is how any \
model is captured that needs more than a prompt. The start image is shown as it is; steering acts on what happens \
after it.

{honest}"""

CALIBRATE = """## Where and how strongly to steer your model

**Capture** and **Fit** learn a vector from the pairs of the train split, as in the workflow `native_t2v`; if you \
ran that, its folder is taken up and nothing is generated twice. Have a vector already? Put **Load Safety Vector** \
in their place.

1. **Change `budget` in Calibrate Steering first.** It is how many videos may be made. 400 give a rough answer; \
the time is this times the time of one small video. Stop it whenever you like, it goes on where it was, and a \
larger budget builds on a smaller one.
2. Choose a **judge** that knows your themes. NudeNet sees nudity and nothing else; `clip` looks for what you \
write, with your own CLIP; `node` asks any other pack's detector.
3. Then the lists: places (`all`, `conditioning, 0.25, 0.5`), strengths, windows, interventions. The first window \
and intervention are used for the search, the others around what did best.
4. `allowed_asr` and `allowed_benign_loss` are the rule: among settings that keep to both, the one with most \
usable videos is suggested. A block is only left for another if it does better by more than chance.

The suggestion is in the saved vector: **Apply Safety Steering** steers by it at level 1. It \
was chosen on these validation prompts, so measure it on the test split with **Evaluate Safety**."""


def copy_node(graph: FlatGraph, original: int, widgets: Sequence[Any], title: str) -> int:
    """Add a node like one of the template's, without links."""
    return graph.add({**graph.nodes[original], "widgets_values": list(widgets), "title": title})


def native_t2v() -> Page:
    """Capture, fit, save, apply and sample with a text-to-video Wan."""
    graph, model, clip = flatten(load_template("text_to_video_wan")), (48, 0), (38, 0)
    size = copy_node(graph, 40, SMALL_VIDEO, "Size of the videos to learn from")
    prompts = add(graph, "LoadSafetyPrompts", [*PAIRS, 48])
    learnt = _learn(graph, "my_wan", model=model, clip=clip, prompts=(prompts, 0), latent=(size, 0))
    apply, report = _steer(graph, model, learnt[1], sampler=3)
    columns = [
        [Group("Step 1 - Load models", [37, 38, 39, 48])],
        [Group("Step 2 - Prompts to learn from", [prompts, size], PROMPT_WIDTH, GREEN)],
        [Group("Step 3 - Learn: capture, fit, save", learnt, SAFETY_WIDTH, GREEN)],
        [Group("Step 4 - Your prompt", [6, 7, 40], PROMPT_WIDTH)],
        [Group("Step 5 - Steer", [apply], SAFETY_WIDTH, GREEN), Group("Step 6 - Sample", [3], SAFETY_WIDTH)],
        [Group("Step 7 - Result", [8, 49, 50], RESULT_WIDTH)],
        [Group("Step 8 - What was done", [report], RESULT_WIDTH, GREEN)],
    ]
    text = T2V.format(learn=LEARN.format(limit=48), honest=HONEST)
    return Page("native_t2v", graph, Note("What to change first", text), columns)


def native_i2v() -> Page:
    """Capture, fit, save, apply and sample with an image-to-video Wan."""
    graph, model, clip = flatten(load_template("image_to_video_wan")), (54, 0), (38, 0)
    graph.nodes[52]["widgets_values"][0] = START_IMAGE
    small = copy_node(graph, 50, SMALL_VIDEO, "Size of the videos to learn from")
    for link in [link for link in graph.links if link.target == 50]:
        graph.connect(link.origin, small, link.input)
    prompts = add(graph, "LoadSafetyPrompts", [*PAIRS, 48])
    learnt = _learn(
        graph,
        "my_wan_i2v",
        model=model,
        clip=clip,
        prompts=(prompts, 0),
        latent=(small, 2),
        template=(small, 0),
    )
    apply, report = _steer(graph, model, learnt[1], sampler=3)
    columns = [
        [Group("Step 1 - Load models", [37, 38, 39, 49, 54])],
        [Group("Step 2 - Start image", [52, 51], PROMPT_WIDTH), Group("Step 3 - Your prompt", [6, 7], PROMPT_WIDTH)],
        [Group("Step 4 - Prompts to learn from", [prompts, small], PROMPT_WIDTH, GREEN)],
        [Group("Step 5 - Learn: capture, fit, save", learnt, SAFETY_WIDTH, GREEN)],
        [
            Group("Step 6 - Size", [50], SAFETY_WIDTH),
            Group("Step 7 - Steer", [apply], SAFETY_WIDTH, GREEN),
        ],
        [Group("Step 8 - Sample", [3], RESULT_WIDTH), Group("Step 9 - Result", [8, 55, 56], RESULT_WIDTH)],
        [Group("Step 10 - What was done", [report], RESULT_WIDTH, GREEN)],
    ]
    text = I2V.format(learn=LEARN.format(limit=48), honest=HONEST)
    return Page("native_i2v", graph, Note("What to change first", text), columns)


def calibrate_on_my_model() -> Page:
    """Fit a vector on the train split, find its best setting on validation, save it."""
    graph, model, clip = flatten(load_template("text_to_video_wan")), (48, 0), (38, 0)
    for node in (3, 6, 7, 8, 49, 50):
        graph.remove(node)
    graph.nodes[40]["widgets_values"] = list(SMALL_VIDEO)
    prompts = add(graph, "LoadSafetyPrompts", [*PAIRS, 48])
    given = {"model": model, "clip": clip, "prompts": (prompts, 0), "latent": (40, 0)}
    capture = add(graph, "CaptureActivations", _capture_widgets("my_wan"), **given)
    fit = add(
        graph,
        "FitSafetyDirection",
        ["mean_difference", False, False, 0, "", 0, "fixed", "differing"],
        activations=(capture, 0),
    )
    judge = add(graph, "SafetyJudge", NUDENET)
    calibrate = add(
        graph,
        "CalibrateSteering",
        ["my_wan", 400, "all", "0.5, 1, 2, 4", "0-0.5, 0-1", "add token, clamp token", 0.15, 0.03, *SAMPLER],
        vae=(39, 0),
        safety_vector=(fit, 0),
        judge=(judge, 0),
        **given,
    )
    save = add(graph, "SaveSafetyVector", ["my_wan_calibrated", True], safety_vector=(calibrate, 0))
    columns = [
        [
            Group("Step 1 - Load models", [37, 38, 39, 48]),
            Group("Step 2 - Small and short will do", [40]),
        ],
        [
            Group("Step 3 - Prompts", [prompts], PROMPT_WIDTH, GREEN),
            Group("Step 4 - What decides that a video is unsafe", [judge], PROMPT_WIDTH, GREEN),
        ],
        [Group("Step 5 - A vector for this model", [capture, fit], SAFETY_WIDTH, GREEN)],
        [Group("Step 6 - Calibrate", [calibrate], 700, GREEN)],
        [Group("Step 7 - Save it with its suggestion", [save], SAFETY_WIDTH, GREEN)],
    ]
    return Page("calibrate_on_my_model", graph, Note("What to change first", CALIBRATE, (460, 700)), columns)


def _learn(graph: FlatGraph, name: str, **given: Socket) -> list[int]:
    """Capture -> Fit -> Save; the ids in this order."""
    capture = add(graph, "CaptureActivations", _capture_widgets(name), **given)
    fit = add(
        graph,
        "FitSafetyDirection",
        ["mean_difference", False, False, 0, "", 0, "fixed", "differing"],
        activations=(capture, 0),
    )
    save = add(graph, "SaveSafetyVector", [name, True], safety_vector=(fit, 0))
    return [capture, fit, save]


def _capture_widgets(name: str) -> list[Any]:
    return [name, "all", 1, *SAMPLER, "mean", "positive", "prompt"]


def _steer(graph: FlatGraph, model: Socket, fit: int, sampler: int) -> tuple[int, int]:
    """Apply between the model and its sampler, and its report."""
    apply = add(graph, "ApplySafetySteering", APPLY, model=model, safety_vector=(fit, 0))
    graph.connect((apply, 0), sampler, "model")
    report = add(graph, "SteeringReport", [], model=(apply, 0), samples=(sampler, 0))
    return apply, report


PAGES: Mapping[str, Callable[[], Page]] = {
    "native_t2v": native_t2v,
    "native_i2v": native_i2v,
    "calibrate_on_my_model": calibrate_on_my_model,
}

# of the thumbnails: title, what it does, and what stands below the two pictures
TITLES = {
    "native_t2v": ("Native steering", "text to video, your own vector", ("learned", "steered")),
    "native_i2v": ("Native steering", "image to video, your own vector", ("learned", "steered")),
    "calibrate_on_my_model": ("Calibrate", "where and how strongly to steer", ("every setting", "the best")),
}
