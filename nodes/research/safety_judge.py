"""Safety Judge."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ...bridge.folders import JUDGES, file_version, find, names
from ...bridge.judging.choose import INCEPTION, INSTALLED, OWN_FEATURES, make_judge
from ...bridge.judging.node_judge import MEANINGS
from ...safety_steering.judges.nudenet import UNSAFE as NUDENET_LABELS
from ...safety_steering.judges.verdict import FRAMES
from ...safety_steering.judges.zero_shot import PROMPTS
from ..types import CATEGORY, SafetyJudgeType

NO_FILE = "none yet: put one into models/safety_judges"


class SafetyJudge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_SafetyJudge",
            display_name="Safety Judge",
            category=CATEGORY,
            description="Classifies a video or image as safe or unsafe. Connect it to Evaluate Safety, Calibrate "
            "Steering or Capture Activations, or connect images to judge them here.",
            search_aliases=[
                "safety",
                "steering",
                "nsfw",
                "moderation",
                "filter",
                "guardrail",
                "detector",
                "classifier",
                "NudeNet",
                "CLIP",
            ],
            inputs=[
                io.DynamicCombo.Input(
                    "judge",
                    options=[
                        io.DynamicCombo.Option("nudenet", _nudenet_inputs()),
                        io.DynamicCombo.Option("open_nsfw", _open_nsfw_inputs()),
                        io.DynamicCombo.Option("clip", _clip_inputs()),
                        io.DynamicCombo.Option("judge_file", _judge_file_inputs()),
                        io.DynamicCombo.Option("node", _node_inputs()),
                    ],
                    tooltip="nudenet, open_nsfw: nudity in photos. clip: any theme that you can describe in words, "
                    "with your own CLIP. judge_file: a classifier in models/safety_judges. node: a node of another "
                    "pack.",
                ),
                io.Int.Input(
                    "frames",
                    default=FRAMES,
                    min=0,
                    max=1000,
                    tooltip="How many frames of a video are judged, evenly spaced. 0: all of them.",
                ),
                io.Combo.Input(
                    "features",
                    options=[OWN_FEATURES, INCEPTION],
                    default=OWN_FEATURES,
                    tooltip="The features that the Fréchet and kernel distances compare. inception: as in published "
                    "FID and KID; it needs a weight file in models/safety_judges.",
                ),
                io.Image.Input("images", optional=True, tooltip="One video, or one image, to judge in this node."),
                io.String.Input(
                    "prompt",
                    default="",
                    optional=True,
                    tooltip="The prompt of the images. Only judges that know subjects, and CLIP-Score, need it.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="For clip, and to add CLIP-Score to any judge: a CLIP text encoder."
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="The vision half of the same CLIP."),
            ],
            outputs=[
                SafetyJudgeType.Output("safety_judge", tooltip="Connect to Evaluate Safety or Calibrate Steering."),
                io.Boolean.Output("unsafe", tooltip="Whether the images are unsafe. Needs images."),
                io.String.Output("scores", tooltip="The judge's verdict on the images as JSON. Needs images."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> list[Any]:
        return [(name, *file_version(find(JUDGES, name))) for name in names(JUDGES)]

    @classmethod
    def execute(
        cls,
        frames: int,
        features: str,
        judge: dict[str, Any] | None = None,
        images: torch.Tensor | None = None,
        prompt: str = "",
        clip: io.Clip.Type | None = None,
        clip_vision: io.ClipVision.Type | None = None,
    ) -> io.NodeOutput:
        made = make_judge(judge, frames, features, clip, clip_vision)
        if images is None:
            nothing = ExecutionBlocker("Safety Judge has no images to judge. Connect some.")
            return io.NodeOutput(made, nothing, nothing, ui=ui.PreviewText(made.name))
        video = (images[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        verdict = made(video, prompt=prompt)
        scores = json.dumps(verdict.as_dict(), indent=1)
        word = "UNSAFE" if verdict.unsafe else "safe"
        return io.NodeOutput(made, verdict.unsafe, scores, ui=ui.PreviewText(f"{word}\n{scores}\n{made.name}"))


def _threshold(default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input("threshold", default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def _onnx_file() -> io.Combo.Input:
    return io.Combo.Input(
        "file",
        options=[INSTALLED, *names(JUDGES, ".onnx")],
        default=INSTALLED,
        tooltip="The model: inside the installed Python package, or an onnx file in models/safety_judges.",
    )


def _nudenet_inputs() -> list[Any]:
    return [
        _onnx_file(),
        _threshold(0.5, "The score from which a body part counts as shown. Lower finds more, with more false alarms."),
        io.String.Input(
            "labels",
            default=", ".join(NUDENET_LABELS),
            multiline=True,
            tooltip="Which of NudeNet's labels are unsafe, separated by commas.",
        ),
    ]


def _open_nsfw_inputs() -> list[Any]:
    return [
        _onnx_file(),
        _threshold(0.5, "The probability from which a frame is unsafe. 0.8 has few false alarms, 0.2 misses little."),
    ]


def _clip_inputs() -> list[Any]:
    return [
        io.String.Input(
            "prompts",
            default=PROMPTS,
            multiline=True,
            tooltip="One category per line: its name, a colon, then descriptions of its pictures, separated by |. They "
            "are compared with the line safe. Plain words are enough.",
        ),
        _threshold(0.5, "The summed probability of the unsafe categories from which a frame is unsafe."),
    ]


def _judge_file_inputs() -> list[Any]:
    return [
        io.Combo.Input(
            "file",
            options=names(JUDGES, ".safetensors") or [NO_FILE],
            tooltip="A classifier with the names of its classes, in models/safety_judges.",
        ),
        _threshold(0.5, "The summed probability of the unsafe classes above which a video is unsafe."),
    ]


def _node_inputs() -> list[Any]:
    return [
        io.String.Input(
            "node_id",
            default="",
            tooltip="The node's class_type, as in a workflow that was exported with Export (API).",
        ),
        io.String.Input("image_input", default="", tooltip="The input that takes the frames. Empty: its first IMAGE."),
        io.String.Input(
            "output",
            default="",
            tooltip="Name or number of the output with the verdict. Empty: its first BOOLEAN or number.",
        ),
        io.String.Input(
            "inputs",
            default="{}",
            multiline=True,
            tooltip='Values of the node\'s other inputs as JSON: {"threshold": 0.7}. Others keep their defaults.',
        ),
        io.Combo.Input(
            "true_means", options=list(MEANINGS), default="unsafe", tooltip="The meaning of true, or of a high number."
        ),
        _threshold(0.5, "The number from which a frame is unsafe, after true_means. Not used for true and false."),
    ]
