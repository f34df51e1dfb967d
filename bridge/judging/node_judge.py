"""Another pack's node as a judge: any installed node that maps an IMAGE to a BOOLEAN or to a score from 0 to 1.

The node is called as ComfyUI calls it, once a video, with the judged frames as a batch. One instance serves all videos,
so that a node loads its model once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from comfy_api.internal import _ComfyNodeInternal, make_locked_method_func
from numpy.typing import NDArray

import nodes

from ...safety_steering.errors import SafetySteeringError
from ...safety_steering.judges.verdict import FRAMES, Verdict, judged_frames
from ..guarded_mode import is_guarded

ANSWERS = ("BOOLEAN", "FLOAT", "INT")
MEANINGS = ("unsafe", "safe")


class NodeJudge:
    """A video is unsafe if the answer for any frame is true, or a score of at least `threshold`.

    Args:
        node_id: as in API prompts.
        image_input: name of the input that takes the frames; "" takes the first IMAGE.
        output: name or number of an output; "" takes the first BOOLEAN, FLOAT or INT.
        others: values of the node's other inputs.
        true_means: what a true or high answer says, "unsafe" or "safe".
        frames: how many frames of a video are judged; 0 for all.

    Raises:
        SafetySteeringError: on construction, if the server is guarded, or the node is not installed, has no such input
            or output, or needs an input that is not given.
    """

    def __init__(
        self,
        node_id: str,
        *,
        image_input: str = "",
        output: str = "",
        others: Mapping[str, Any] | None = None,
        true_means: str = "unsafe",
        threshold: float = 0.5,
        frames: int = FRAMES,
    ) -> None:
        if is_guarded():
            raise SafetySteeringError(
                "On a guarded server no node is called past the policy that admits nodes. Choose another judge."
            )
        node_class = nodes.NODE_CLASS_MAPPINGS.get(node_id)
        if node_class is None:
            raise SafetySteeringError(
                f"No node has the id '{node_id[:80]}'. Install its pack, or correct the id: it is the class_type in a "
                "workflow saved as API format."
            )
        if true_means not in MEANINGS:
            raise SafetySteeringError(f"true_means is '{true_means}', expected one of {', '.join(MEANINGS)}.")
        self._id, self._class = node_id, node_class
        self._inputs = _given_inputs(node_id, node_class, image_input, others or {})
        self._image = image_input or _first_image(node_id, node_class)
        self._output = _output_index(node_id, node_class, output)
        self._safe_when_true, self.threshold, self.frames = true_means == "safe", threshold, frames
        self._node = node_class if _is_v3(node_class) else node_class()
        said = json.dumps(self._inputs, sort_keys=True, default=str)
        self.name = (
            f"node {node_id}, {self._image} to output {self._output}, {said}, true means {true_means}, unsafe from "
            f"{threshold:g}, {frames or 'all'} frames"
        )

    def __call__(self, video: NDArray[np.uint8], prompt: str = "", skip_start: bool = False) -> Verdict:
        frames = np.ascontiguousarray(judged_frames(video, self.frames, skip_start))
        images = torch.from_numpy(frames).float().div(255.0)
        answers = list(_numbers(self._id, self._answer({**self._inputs, self._image: images})))
        if not answers:
            raise SafetySteeringError(f"The node {self._id} answered with an empty list.")
        scores = [1.0 - answer if self._safe_when_true else answer for answer in answers]
        score = float(np.max(scores))  # np.max keeps NaN, which a verdict refuses
        return Verdict({self._id: score}, unsafe=score >= self.threshold)

    def _answer(self, inputs: dict[str, Any]) -> Any:
        if getattr(self._class, "INPUT_IS_LIST", False):
            inputs = {name: [value] for name, value in inputs.items()}
        try:
            result = _call(self._node, self._class, inputs)
        except Exception as error:  # another pack's code may raise anything; an interrupt is not an Exception
            raise SafetySteeringError(f"The node {self._id} failed on a video: {str(error)[:300]}") from error
        if isinstance(result, Mapping):
            result = result.get("result")
        values = getattr(result, "args", result)
        if not isinstance(values, (tuple, list)) or len(values) <= self._output:
            raise SafetySteeringError(f"The node {self._id} gave no output number {self._output}.")
        return values[self._output]


def _call(node: Any, node_class: Any, inputs: dict[str, Any]) -> Any:
    """Call one node the way core's executor does."""
    if _is_v3(node_class):
        node_class.VALIDATE_CLASS()
        function = make_locked_method_func(node_class, node_class.FUNCTION, node_class.PREPARE_CLASS_CLONE(None))
    else:
        function = getattr(node, node_class.FUNCTION)
    result = function(**inputs)
    if not asyncio.iscoroutine(result):
        return result
    with ThreadPoolExecutor(1) as pool:  # this thread already runs core's event loop
        return pool.submit(asyncio.run, result).result()


def _is_v3(node_class: Any) -> bool:
    return issubclass(node_class, _ComfyNodeInternal)


def _declared(node_class: Any, kind: str) -> dict[str, Any]:
    """The inputs of a kind (required, optional): name -> (type, options)."""
    return dict(node_class.INPUT_TYPES().get(kind, {}))


def _first_image(node_id: str, node_class: Any) -> str:
    for kind in ("required", "optional"):
        for name, declared in _declared(node_class, kind).items():
            if declared[0] == "IMAGE":
                return str(name)
    raise SafetySteeringError(f"The node {node_id} takes no IMAGE, so it cannot judge pictures.")


def _given_inputs(node_id: str, node_class: Any, image: str, others: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all inputs but the image: the given ones, and defaults of the other required ones."""
    required, optional = _declared(node_class, "required"), _declared(node_class, "optional")
    image = image or _first_image(node_id, node_class)
    strange = [name for name in (image, *others) if name not in required | optional]
    if strange:
        known = ", ".join(required | optional)
        raise SafetySteeringError(f"The node {node_id} has no input '{strange[0][:80]}'. Its inputs: {known}.")
    values: dict[str, Any] = {}
    for name, declared in required.items():
        if name == image or name in others:
            continue
        options = declared[1] if len(declared) > 1 else {}
        choices = declared[0] if isinstance(declared[0], (list, tuple)) else options.get("options")
        if "default" in options:
            values[name] = options["default"]
        elif choices:
            values[name] = choices[0]
        else:
            raise SafetySteeringError(
                f"The node {node_id} needs its input '{name}' ({declared[0]}). Give it in the JSON of other inputs; a "
                "node that needs a link there cannot be used."
            )
    return {**values, **others}


def _output_index(node_id: str, node_class: Any, output: str) -> int:
    types = list(node_class.RETURN_TYPES)
    names = [str(name) for name in getattr(node_class, "RETURN_NAMES", None) or types]
    wanted = output.strip()
    if not wanted:
        fitting = [index for index, kind in enumerate(types) if kind in ANSWERS]
    elif wanted.isdecimal():
        fitting = [int(wanted)] if int(wanted) < len(types) else []
    else:
        fitting = [index for index, name in enumerate(names) if name == wanted]
    if not fitting:
        listed = ", ".join(f"{name} ({kind})" for name, kind in zip(names, types, strict=False)) or "none"
        raise SafetySteeringError(
            f"The node {node_id} has no output {wanted or 'of type ' + ' or '.join(ANSWERS)}. Its outputs: {listed}."
        )
    return fitting[0]


def _numbers(node_id: str, answer: Any) -> Iterator[float]:
    """The numbers of an answer: one, or one a frame."""
    if isinstance(answer, (torch.Tensor, np.ndarray)):
        answer = answer.reshape(-1).tolist()
    if isinstance(answer, (list, tuple)):
        for part in answer:
            yield from _numbers(node_id, part)
    elif isinstance(answer, (bool, int, float, np.generic)):
        yield float(answer)
    else:
        raise SafetySteeringError(
            f"The node {node_id} answered with {type(answer).__name__}. A judge's answer is a BOOLEAN or a number from "
            "0 to 1: choose another output."
        )
