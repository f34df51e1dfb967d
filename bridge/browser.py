"""What the browser shows: a vector file's card, the hook points where it would act, and the trace of a run.

The routes only read, and only files in ComfyUI's model folders, by the names of the nodes' pickers. A trace is sent to
the client that queued the run, and kept with the ui of nodes that show it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from aiohttp import web

from ..safety_steering.errors import MismatchError, SafetySteeringError
from ..safety_steering.hook_point import HookPoint, select_hook_points
from ..safety_steering.steering.trace import CallTrace, RunTrace
from ..safety_steering.vectors.file import load_vector, read_label
from ..safety_steering.vectors.vector import SafetyVector
from .folders import VECTORS, cached_by_file_version, find, sha256_of, vector_name
from .models.checkpoint import recognise
from .models.families import FAMILIES
from .models.header import read_header
from .models.vector_fit import HeaderShape, check_fits, header_shape

if TYPE_CHECKING:
    pass

CARD, HOOK_POINTS = "/safety_steering/vector", "/safety_steering/hook_points"
EVENT = "safety_steering.trace"
MODEL_FOLDERS = ("diffusion_models", "checkpoints")  # of the stock loaders of diffusion models
LONGEST_LIST = 12
MayShow = Callable[[Path], bool]


def show_any(path: Path) -> bool:
    """On an ordinary server, every vector file may be described."""
    return True


def add_browser_routes(may_show: MayShow) -> None:
    """Answer the browser's questions. may_show: whether a vector file may be described to clients at all."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:  # ComfyUI is used as a library: there is no browser
        return
    routes = server.routes
    routes.get(CARD)(_answering(lambda asked: card_of(_shown_vector(asked, may_show))))
    routes.get(HOOK_POINTS)(
        _answering(
            lambda asked: steered_at(
                _shown_vector(asked, may_show) if asked.get("name") else None,
                asked.get("hook_points", "auto"),
                find_model(asked.get("folder", ""), asked.get("model", "")),
            )
        )
    )


def _answering(answer: Callable[[Mapping[str, str]], dict[str, Any]]) -> Callable[[web.Request], Any]:
    """A route that answers with JSON, or with status 404 and a sentence."""

    async def handle(request: web.Request) -> web.Response:
        asked = dict(request.query)
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, answer, asked)
        except (SafetySteeringError, OSError) as error:
            reason = str(error) if isinstance(error, SafetySteeringError) else "The file cannot be read."
            return web.json_response({"problem": reason}, status=404)
        return web.json_response(found, dumps=lambda value: json.dumps(value, allow_nan=False))

    return handle


def _shown_vector(asked: Mapping[str, str], may_show: MayShow) -> Path:
    name = asked.get("name", "")
    try:
        path = find(VECTORS, name)
    except SafetySteeringError:
        if may_show is show_any:
            raise
    else:
        if may_show(path):
            return path
    raise SafetySteeringError(f"The file {vector_name(name)} is not described on this server.")


def find_model(folder: str, name: str) -> Path | None:
    """The path of a diffusion model that a stock loader offers; None for any other."""
    if folder not in MODEL_FOLDERS or name not in folder_paths.get_filename_list(folder):
        return None
    path = folder_paths.get_full_path(folder, name)
    return Path(path) if path else None


def card_of(path: Path) -> dict[str, Any]:
    """A vector's card as plain data. sha256: of the file's bytes, as in a host's policy.

    Raises:
        VectorFileError: the file is damaged, or not a safety vector.
    """
    vector, info = _vector(path), _vector(path).info
    points = vector.hook_points
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "fits": read_label(path),
        "origin": origin_of(vector, path),
        "kind": info.kind,
        "family": info.family,
        "model": info.model_name,
        "spaces": list(dict.fromkeys(point.space for point in points.values()))[:LONGEST_LIST],
        "hook_points": len(points),
        "categories": list(vector.categories),
        "method": info.method,
        "auc": {name: auc for name, auc in info.validation_auc.items() if math.isfinite(auc)},
        "measured_on": list(info.validated_on),
        "licence": info.licence,
        "suggested": {
            "strength": info.suggestion.strength,
            "intervention": info.suggestion.intervention,
            "hook_points": list(info.suggestion.hook_points)[:LONGEST_LIST],
            "mix": dict(info.suggestion.mix),
        },
    }


def origin_of(vector: SafetyVector, path: Path) -> str:
    """A short text on where to get the vector."""
    if VECTORS.bundled and path.is_relative_to(VECTORS.bundled):
        return "comes with Safety Steering: update the node pack"
    for record in vector.info.provenance:
        for key in ("url", "source", "made_by"):
            if isinstance(record.get(key), str):
                return str(record[key])[:200]
    made_for = vector.info.model_name or vector.info.family
    made = {
        "native": f"fitted on {made_for or 'a model'} with Capture Activations and Fit Safety Direction",
        "source": "made with Extract LLM Direction",
        "transferred": "made with Transfer Direction from LLM",
    }
    return f"{made[vector.info.kind]}; ask whoever made the workflow for the file"


def steered_at(path: Path | None, hook_points: str, model: Path | None) -> dict[str, Any]:
    """Where a vector acts, for a choice of hook points, on a model file or on the model that it was made for.

    path: None for a vector that the graph makes; hook_points are then names, separated by commas. Returns
    blocks: one entry a block list, in running order, with the indices of the blocks whose output is steered and of
    those where it is what they read. states: kinds of steered hook points outside of blocks. model: possible names of
    the model, or None without a recognised file. problem: why it does not work, in a sentence, or an empty string.

    Raises:
        VectorFileError: as `card_of`.
    """
    vector = None if path is None else _vector(path)
    found = None if model is None else _recognised(model)
    counts: Mapping[str, int] = {}
    if found is not None:
        counts = found.block_counts
    elif vector is not None:
        counts = vector.info.block_counts
    chosen, problem = _chosen(vector, hook_points)
    if vector is not None and found is not None and not problem:
        try:
            # a text encoder is in another file: whether the vector fits it shows in the run
            check_fits(vector, [point for point in chosen if not point.in_encoder], found)
        except MismatchError as error:
            problem = str(error)
    return {
        "hook_points": list(chosen),
        "blocks": [
            {
                "list": name,
                "count": count,
                "steered": sorted({p.number for p in chosen if p.list == name and p.is_block}),
                "reads": sorted({p.number for p in chosen if p.list == name and not p.is_block}),
            }
            for name, count in _with_beside(counts, chosen).items()
        ],
        "states": list(dict.fromkeys(point.kind for point in chosen if not point.in_blocks)),
        "model": None if found is None else list(found.names) or [found.name],
        "problem": problem,
    }


def _with_beside(counts: Mapping[str, int], chosen: Sequence[HookPoint]) -> dict[str, int]:
    """Block counts with the chosen lists that no depth counts, as long as they must be; nothing without counts."""
    beside: dict[str, int] = {}
    for point in chosen:
        if point.in_blocks and counts and point.list not in counts:
            beside[point.list] = max(beside.get(point.list, 0), point.number + 1)
    return {**counts, **beside}


def _chosen(vector: SafetyVector | None, hook_points: str) -> tuple[tuple[HookPoint, ...], str]:
    if vector is None:
        return tuple(HookPoint(part.strip()) for part in hook_points.split(",") if part.strip()), ""
    info = vector.info
    try:
        suggested = info.suggestion.hook_points
        return select_hook_points(hook_points, vector.hook_points, info.block_counts, suggested), ""
    except SafetySteeringError as error:
        return (), str(error)


@cached_by_file_version(64)
def _recognised(path: Path) -> HeaderShape | None:
    try:
        found = recognise(read_header(path).shapes, FAMILIES)
    except SafetySteeringError:  # not safetensors: unknown until it is loaded
        return None
    return None if found is None else header_shape(found, next(row for row in FAMILIES if row.name == found.family))


_vector = cached_by_file_version(8)(load_vector)


def trace_teller(node_id: str | None) -> Callable[[RunTrace], None]:
    """A function that sends a run's trace to the client that queued it, under this node's id."""

    def tell(trace: RunTrace) -> None:
        from server import PromptServer

        server = getattr(PromptServer, "instance", None)
        client = getattr(server, "client_id", None)
        if server is None or client is None:  # without a client id the message would go to all
            return
        try:
            server.send_sync(EVENT, {"node": node_id, **condense(trace)}, client)
        except Exception:  # a failed message must not fail the run
            logging.exception("Safety Steering: the browser could not be told what steering did")

    return tell


def traces_for_cache(traces: Iterable[RunTrace]) -> dict[str, Any]:
    """The ui of a node that shows a steered run: each steering's last trace, in the order they were applied.

    ComfyUI caches a node's ui with its results, so a cached prompt shows the trace of its run.
    """
    return {"safety_steering_traces": [condense(trace) for trace in traces]}


def condense(trace: RunTrace) -> dict[str, Any]:
    """A trace as plain data of bounded size for the browser: one entry a noise level, in the order of the run."""
    hooks = [hook for call in trace.calls for hook in call.hooks]
    return {
        "status": trace.status,
        "summary": trace.summary(),
        "texts": trace.texts,
        "reason": trace.reason,
        "warnings": list(trace.warnings),
        "prompt_id": trace.prompt_id,
        "steps": trace.steps,
        "steered_steps": trace.steered_steps,
        "hook_points": sorted({hook.hook_point for hook in hooks}),
        "gaps": _mean([abs(gap) for hook in hooks for gap in hook.shift_gaps.values()]),
        "shift": _mean([hook.shift for hook in hooks]),
        "series": [
            _at(sigma, [call for call in trace.calls if call.sigma == sigma])
            for sigma in dict.fromkeys(call.sigma for call in trace.calls)
        ],
    }


def _at(sigma: float, calls: Sequence[CallTrace]) -> dict[str, Any]:
    hooks = [hook for call in calls for hook in call.hooks]
    return {
        "sigma": sigma,
        "note": "" if hooks else next((call.note for call in calls if call.note), ""),
        "before": _mean([value for hook in hooks for value in hook.before.values()]),
        "after": _mean([value for hook in hooks for value in hook.after.values()]),
        "shift": _mean([hook.shift for hook in hooks]),
    }


def _mean(values: Sequence[float]) -> float | None:
    """The mean of the finite values; None if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None
