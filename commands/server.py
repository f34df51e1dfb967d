"""`capture` and `calibrate` on the command line: through a running ComfyUI server, which has the models.

The graph is one of stock loaders, or yours, exported from ComfyUI with Export (API). Ctrl-C stops the run on the
server; the same command goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..safety_steering.errors import SafetySteeringError
from .api_graph import Graph, Link, PromptGraph, node_of, read_graph, with_defaults, with_widgets
from .comfy_client import ComfyClient, PromptRejected, Run
from .connection import add_server_options, connected
from .progress import progress_bar

CAPTURE, CALIBRATE = "SafetySteering_CaptureActivations", "SafetySteering_CalibrateSteering"
SAVE = "SafetySteering_SaveSafetyVector"
LONGEST_RUN = 30 * 24 * 3600.0
EXAMPLE = "CaptureActivations.steps=8"


def add_server_commands(commands: Any) -> None:
    """Add them to argparse's subparsers; each sets `run`, which takes the options and returns what is to be printed."""
    capture = commands.add_parser("capture", help="capture a model's activations, through a running ComfyUI server")
    capture.set_defaults(run=lambda options: _run(options, CAPTURE))
    calibrate = commands.add_parser(
        "calibrate", help="find where and how strongly to steer a model, through a running ComfyUI server"
    )
    calibrate.add_argument("--vae", default="", help="the VAE's file, as VAELoader lists it")
    calibrate.add_argument("--vector", default="", help="the safety vector's file, as Load Safety Vector lists it")
    calibrate.add_argument("--save", default="", metavar="NAME", help="save the vector with its suggestion as NAME")
    calibrate.set_defaults(run=lambda options: _run(options, CALIBRATE))
    for parser in (capture, calibrate):
        add_server_options(parser)
        parser.add_argument("--graph", type=Path, help="a graph with the node in it, exported with Export (API)")
        stock = parser.add_argument_group("without --graph, a text-to-video graph of stock loaders")
        stock.add_argument("--model", default="", help="the diffusion model's file, as UNETLoader lists it")
        stock.add_argument("--text-encoder", default="", help="the text encoder's file, as CLIPLoader lists it")
        stock.add_argument("--type", default="wan", help="the text encoder's type in CLIPLoader (default wan)")
        stock.add_argument("--prompts", default="", help="the prompt file, as Load Safety Prompts lists it")
        stock.add_argument(
            "--latent", default="EmptyHunyuanLatentVideo", help="the node that makes the empty latent (default: Wan's)"
        )
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NODE.WIDGET=VALUE",
            help=f"set a widget of any node, as often as you like: --set {EXAMPLE}",
        )


def _run(options: argparse.Namespace, class_type: str) -> str:
    with connected(options) as client:
        graph = with_widgets(read_graph(options.graph) if options.graph else _stock_graph(options), options.set)
        if not options.graph:
            graph = with_defaults(graph, client.object_info())
        return _follow(client, graph, node_of(graph, class_type))


def _stock_graph(options: argparse.Namespace) -> Graph:
    """Loaders, prompts, latent, judge and the node itself, without the widgets that keep their defaults."""
    _demand(options, "model", "text_encoder")
    graph = PromptGraph()
    links: dict[str, Link] = {
        "model": graph.add("UNETLoader", unet_name=options.model)[0],
        "clip": graph.add("CLIPLoader", clip_name=options.text_encoder, type=options.type)[0],
        "prompts": graph.add("SafetySteering_LoadSafetyPrompts", **_given(prompts=options.prompts))[0],
        "latent": graph.add(options.latent)[0],
    }
    if options.command == "capture":
        graph.add(CAPTURE, **links)
        return graph.prompt
    _demand(options, "vae", "vector")
    links |= {
        "vae": graph.add("VAELoader", vae_name=options.vae)[0],
        "safety_vector": graph.add("SafetySteering_LoadSafetyVector", vector=options.vector)[0],
        "judge": graph.add("SafetySteering_SafetyJudge")[0],
    }
    calibrated = graph.add(CALIBRATE, **links)
    if options.save:
        graph.add(SAVE, safety_vector=calibrated[0], filename=options.save)
    return graph.prompt


def _demand(options: argparse.Namespace, *names: str) -> None:
    missing = [f"--{name.replace('_', '-')}" for name in names if not getattr(options, name)]
    if missing:
        raise SafetySteeringError(f"Give {' and '.join(missing)}, or a graph of your own with --graph.")


def _given(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _follow(client: ComfyClient, graph: Graph, node_id: str) -> str:
    """Queue the graph, show its progress on stderr, and return what the node showed."""
    try:
        prompt_id = client.submit(graph)
    except PromptRejected as error:
        raise SafetySteeringError(_refusal(error.node_errors) or str(error)) from error
    try:
        with progress_bar("steps") as show:
            run = client.result(prompt_id, LONGEST_RUN, show)
    except KeyboardInterrupt:
        client.interrupt()
        raise SafetySteeringError("Stopped. The same command goes on where it was.") from None
    return _told(run, node_id)


def _told(run: Run, node_id: str) -> str:
    if run.node_errors:  # the server runs what it can of a graph, and leaves out what it cannot
        raise SafetySteeringError(_refusal(run.node_errors))
    if run.error is not None:
        raise SafetySteeringError(f"{run.error.node_type}: {run.error.message.strip()}")
    if run.status != "success":
        raise SafetySteeringError(f"The run ended: {run.status}. The same command goes on where it was.")
    if node_id not in run.outputs:  # the server remembered a run with the same inputs
        return "Nothing was to be done: the server has run this graph before, and its folder is as it left it."
    return run.text(node_id)


def _refusal(node_errors: Mapping[str, Any]) -> str:
    """The server's reasons for not running nodes, as a sentence each."""
    return "\n".join(
        f"{node['class_type']}: {error['message']}. {error['details']}"
        for node in node_errors.values()
        for error in node["errors"]
    )
