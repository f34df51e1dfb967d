"""The workflow that evaluates a vector: on the page of ComfyUI's own Wan template, as in `native`.

.venv/bin/python tools/start.py workflow_builder.evaluate     # writes workflows/evaluate_vector.json
"""

from __future__ import annotations

import json
from dataclasses import asdict

from PIL import Image

from workflow_builder.chain import VectorFile
from workflow_builder.native import (
    JUDGE,
    NUDENET,
    PAIRS,
    PROMPTS,
    SAMPLER,
    SMALL_VIDEO,
    SOCKETS,
    VECTOR,
    WORKFLOWS,
    Builder,
)
from workflow_builder.page import GREEN, Group, Note, Page
from workflow_builder.picture import ARROW, BACKGROUND, GREY, HEIGHT, TOP, Canvas
from workflow_builder.picture import GREEN as BOX_GREEN

NAME = "evaluate_vector"
FIT = ["conditioning", "auto", "ridge", 0.2, 0]
APPLY = [1, "add", "token", 0, 0.5, "both", "off", "conditioning"]
MORE_SOCKETS = {
    "LoadSafetyVector": ("", f"safety_vector:{VECTOR} card:STRING"),
    "FitBenignAlignment": (
        f"safety_vector:{VECTOR} | safety_llm:SAFETY_LLM clip:CLIP model:MODEL clip_vision:CLIP_VISION "
        f"anchors:{PROMPTS} images:IMAGE latent:LATENT template:CONDITIONING",
        "safety_alignment:SAFETY_ALIGNMENT report:STRING chart:IMAGE",
    ),
    "TransferDirection": (
        f"safety_vector:{VECTOR} safety_alignment:SAFETY_ALIGNMENT",
        f"safety_vector:{VECTOR} card:STRING",
    ),
    "EvaluateSafety": (
        f"model:MODEL steered_model:MODEL clip:CLIP vae:VAE prompts:{PROMPTS} judge:{JUDGE} latent:LATENT | "
        "template:CONDITIONING sampler:SAMPLER sigmas:SIGMAS guider:GUIDER",
        "table:STRING csv:STRING picture:IMAGE",
    ),
}
SOCKETS |= MORE_SOCKETS
LIMIT = 12
NOTE = """## What does steering prevent, and what does it cost?

Each pair of prompts, an unsafe one and its safe twin, is generated twice with the same noise: as the model is, and \
steered. A judge looks at all four videos.

1. **Change `limit` in Evaluate Safety first.** It is how many pairs are taken, evenly over the categories: {limit} is \
a first look, 0 takes all of the test split. A pair is four small videos. Stop it whenever you like; it goes on where \
it was, and a higher limit builds on a lower one.
2. Choose a **judge** that knows your themes. NudeNet sees nudity and nothing else; `clip` looks for what you write, \
with your own CLIP; `node` asks any other pack's detector. The table warns if it finds little in the plain videos.
3. Then **`strength` in Apply**, and another name in `folder`: every setting has a folder of its own.

**A vector of your own?** If it was fitted on this very model (workflow `native_t2v`), select **Fit Benign Alignment** \
and **Transfer**, press Ctrl-B, and choose it in **Load Safety Vector**.

**How to read it.** ASR is the share of unsafe prompts whose video is judged unsafe, and means nothing alone: a model \
that draws mush has none. *usable* and *benign fidelity* say what is left, if the judge can tell; else look at the \
CLIP-Score (connect a CLIP to the judge) and at your videos. Brackets are 95 % intervals: with {limit} pairs they are \
wide. Choose settings on validation with **Calibrate Steering**, and read the test split once.

Table, CSV, chart and JSON are kept in `output/safety_evaluations`."""


def evaluate_vector(vector: VectorFile) -> Page:
    """Carry a portable vector over, apply it, and evaluate it."""
    build = Builder("text_to_video_wan")
    graph, model, clip, vae = build.graph, (48, 0), (38, 0), (39, 0)
    for node in (3, 6, 7, 8, 49, 50):
        graph.remove(node)
    graph.nodes[40]["widgets_values"] = list(SMALL_VIDEO)
    load = build.add("LoadSafetyVector", [vector.label])
    graph.nodes[load]["properties"] = {"safety_vector": asdict(vector)}  # what is said where the file is missing
    fit = build.add("FitBenignAlignment", FIT, safety_vector=(load, 0), clip=clip, model=model)
    transfer = build.add("TransferDirection", [], safety_vector=(load, 0), safety_alignment=(fit, 0))
    apply = build.add("ApplySafetySteering", APPLY, model=model, safety_vector=(transfer, 0))
    prompts = build.add("LoadSafetyPrompts", [*PAIRS, 0])
    judge = build.add("SafetyJudge", NUDENET)
    evaluation = build.add(
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
        [Group("Step 3 - The vector, carried over to your model", [load, fit, transfer], 430, GREEN)],
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
    above = canvas.row(TOP[0], HEIGHT[0], upper, [BOX_GREEN, GREY, BOX_GREEN], ARROW)
    lower = ("ASR", "Usable", "Benign\nfidelity")
    below = canvas.row(TOP[2], HEIGHT[2], lower, [GREY] * len(lower), BACKGROUND)
    corner = (TOP[0] + HEIGHT[0] + TOP[2]) / 2
    for middle in below:
        canvas.line([(above[-1], TOP[0] + HEIGHT[0]), (above[-1], corner), (middle, corner), (middle, TOP[2])])
    return canvas.picture()


def main() -> None:
    from workflow_builder.build import VECTOR as BUNDLED
    from workflow_builder.build import vector_file

    text = json.dumps(evaluate_vector(vector_file(BUNDLED)).workflow(), indent=1, ensure_ascii=False)
    (WORKFLOWS / f"{NAME}.json").write_text(text + "\n", encoding="utf-8")
    thumbnail().save(WORKFLOWS / f"{NAME}.jpg", quality=88, optimize=True)
    print(f"workflows/{NAME}.json")


if __name__ == "__main__":
    main()
