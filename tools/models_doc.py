"""Writes docs/models.md from the model map and the table of family cases: family x what was executed.

.venv/bin/python tools/start.py models_doc            # `make models-doc`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[1]
from comfy_tree import COMFYUI_VERSION

VERSIONS = REPO_ROOT / "docs" / "comfyui_versions.json"
DOCUMENT = REPO_ROOT / "docs" / "models.md"

# family -> the models of the two papers that it covers
PAPERS = {
    "wan": "Wan 2.1 (REINS), Wan 2.2 (transfer)",
    "cogvideox": "CogVideoX (REINS)",
    "flux": "Flux.1 schnell and dev (transfer)",
    "qwen-image": "Qwen-Image (transfer)",
    "z-image": "Z-Image-Turbo (transfer)",
}
REINS = """
## The models of REINS

The paper names nine video models of 1.3 to 5 billion parameters, for text and image to video. As far as we know them:

| Model | In ComfyUI | Here |
|---|---|---|
| CogVideoX | yes | family cogvideox |
| Wan 2.1 | yes | family wan |
| Allegro | no | cannot be loaded, so it cannot be steered |

The names of the other six are not in what we could read. None of the nine was run here with its released weights."""
ENCODERS = """
## Inside the text encoder

At `encoder.<layer>` (the first is 1) the largest text encoder of a CLIP is steered while it reads the prompt, before
any model runs: connect `clip` to Apply Safety Steering. The space is named by ComfyUI's name of the encoder:
`umt5xxl/encoder.12`, `t5xxl/encoder.12`, `clip_l/encoder.6`, `qwen3_4b/encoder.18`, `gemma3_12b/encoder.24`. Only the
prompt's own tokens are edited: no padding on either side, no begin, end or template token, and nothing of the empty
text that prompt weights are taken against. `tests/comfy/test_encoder_steering.py` checks this on ComfyUI's classes at
small size, with random weights: CLIP, T5, umT5, Qwen 3 and Gemma 3. A CLIP that is not built as ComfyUI's own is
refused."""
INTRODUCTION = """# Models

Made by `make models-doc` from the model map (`bridge/models/families/`) and the table of cases that the tests run
(`tests/helpers/family_cases/`); do not edit it by hand.

Every case below is a tiny model of ComfyUI's own classes with random weights. It goes through ComfyUI's own sampling
and passes every check of `tests/comfy/test_families.py` in float32, the first two in bfloat16 as well:

- each block of each list, and each module through which a block reads the text, is steered once in each model call;
- a known direction moves exactly the tokens that are being generated, within 2 ulp; prompt, reference, guide, padding
  and start-frame tokens stay bit-equal;
- what a block reads differs from prompt to prompt where the block itself is given the same picture;
- a capture is the mean over the same tokens;
- strength 0 is bit-identical to no node, and an exception leaves no hook behind;
- a vector for another model is refused;
- steering at `conditioning` reaches the blocks. It leaves padding alone if the model can tell it from text: rows that
  are zero or masked. A model that reads padding like text (Flux, Stable Diffusion, HiDream) has it steered like text.

*Reads the text at* names the hook points `cross_attention.<list>.<index>.<stream>`: the output of the module through
which a block reads the text, before it is added to the stream. Where it says *joint*, text and image share one
attention: the hook point is the image's part of its output, so it also holds what the image reads of itself. A UNet's
`transformer_blocks` are all the transformers inside its blocks, in running order. An image-to-video model of Wan reads
text and image through one module: the hook point is their sum. The lists named under the table have no such place.

These tests show that steering works mechanically. No vector for released weights has been measured. *Stock loader*:
ComfyUI's own loader loads the case. *Class*: ComfyUI fixes its sizes, so the test builds the class directly, inside
ComfyUI's own model and patcher.
"""


def render() -> str:
    """The document's text."""

    from family_cases import CASES
    from safety_steering_pack.bridge.models.families import FAMILIES
    from safety_steering_pack.bridge.models.families.unlisted import REFUSED

    lines = [
        INTRODUCTION,
        "| Family | Known models | Steered at | Reads the text at | Prompt states | Executed | Of the papers |",
        "|---|---|---|---|---|---|---|",
        *(_row(family, [case for case in CASES.values() if case.family == family.name]) for family in FAMILIES),
        *_without_reads(FAMILIES),
        REINS,
        ENCODERS,
        "\n## Other models\n",
        "A model whose class has no row is tried if it has one list of similar blocks that return (batch, tokens,",
        "channels). All its tokens are steered, and the trace calls it an *untested model*. Any other model is refused",
        "with an error that says why.",
        "\nRefused by name:\n",
        *(f"- {sentence}" for sentence in REFUSED.values()),
        *_versions(),
    ]
    return "\n".join(lines) + "\n"


def _without_reads(families: Any) -> list[str]:
    """Why some lists have no hook points `cross_attention`."""
    lists: dict[str, list[str]] = {}
    for family in families:
        for blocks in family.lists:
            if not blocks.reads and (blocks.streams and not any(other.holding for other in family.lists)):
                lists.setdefault(blocks.unread, []).append(f"{family.name} `{blocks.name}`")
    return ["\nWithout hook points `cross_attention`:\n", *(f"- {', '.join(of)}: {why}" for why, of in lists.items())]


def _reads(family: Any) -> str:
    """The lists that read the text, with their streams."""
    return "<br>".join(
        f"`{blocks.name}` ({', '.join(read.stream.name + (', joint' if read.joint else '') for read in blocks.reads)})"
        for blocks in family.lists
        if blocks.reads
    )


def _row(family: Any, cases: list[Any]) -> str:
    names = ", ".join(family.names.values())
    lists = "<br>".join(
        f"`{blocks.name}` ({', '.join(s.name for s in blocks.streams)})" for blocks in family.lists if blocks.streams
    )
    spaces = "<br>".join(
        f"{hook_point}: " + ", ".join(f"`{space}`" for state in states for space in state.spaces.values())
        for hook_point, states in family.states.items()
    )
    spaces = spaces or "none: it takes token ids"
    executed = "<br>".join(f"{case.name} ({'stock loader' if case.loader else 'class'})" for case in cases)
    cells = (family.name, names, lists, _reads(family), spaces, executed, PAPERS.get(family.name, ""))
    return f"| {' | '.join(cells)} |"


def _versions() -> list[str]:
    """What `make test-matrix` saw on other ComfyUI trees."""
    if not VERSIONS.exists():
        return []
    rows = json.loads(VERSIONS.read_text(encoding="utf-8"))["rows"]
    lines = [
        "\n## ComfyUI versions\n",
        f"`make test` runs on ComfyUI {COMFYUI_VERSION}. `make test-matrix` saw other trees, in the environment",
        "of that one:\n",
        "| ComfyUI | Tests | Passed | Failed | Skipped | Pins that the environment does not meet |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        failed = row["failed"] + row["error"]
        names = "<br>".join([f"{failed}", *(f"`{name}`" for name in row["failures"])])
        pins = "<br>".join(row["other_pins"])
        lines.append(f"| {row['comfyui']} | {row['suite']} | {row['passed']} | {names} | {row['skipped']} | {pins} |")
    for version, names in {row["comfyui"]: " ".join(row["core_names"]) for row in rows}.items():
        lines += ["", f"Names of core on {version}: {names}"]
    return lines


def main() -> None:
    DOCUMENT.write_text(render(), encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(REPO_ROOT)}")


if __name__ == "__main__":
    main()
