"""What the browser tests do in ComfyUI's frontend, and what they read off it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Locator, Page

NODE_PROBLEMS = """() => app.graph.nodes.flatMap(node => {
    const known = node.type in LiteGraph.registered_node_types || ["Note", "MarkdownNote"].includes(node.type);
    const unknownChoices = (node.widgets ?? []).filter(widget => {
        const values = typeof widget.options?.values === "function" ? widget.options.values() : widget.options?.values;
        return Array.isArray(values) && values.length && !values.includes(widget.value);
    }).map(widget => `${node.type}: ${widget.name} = ${widget.value} is not on offer`);
    return [...(known ? [] : [`${node.type} is unknown`]), ...(node.has_errors ? [`${node.type} is red`] : []),
            ...unknownChoices];
})"""
LOAD = "([workflow, name]) => app.loadGraphData(workflow, true, true, name)"
GRAPH_BOUNDS = """() => {
    const boxes = [...app.graph.groups.map(g => [...g.pos, ...g.size]),
                   ...app.graph.nodes.map(n => [n.pos[0], n.pos[1] - 30, n.size[0], n.size[1] + 30])];
    const [left, top] = [0, 1].map(axis => Math.min(...boxes.map(b => b[axis])));
    const [right, bottom] = [0, 1].map(axis => Math.max(...boxes.map(b => b[axis] + b[axis + 2])));
    const { scale, offset } = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect();
    return { x: canvas.x + (left + offset[0]) * scale, y: canvas.y + (top + offset[1]) * scale,
             width: (right - left) * scale, height: (bottom - top) * scale };
}"""
PAIRS = """boxes => boxes.flatMap((a, i) => boxes.slice(i + 1)
    .filter(b => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h)
    .map(b => `${a.type} overlaps ${b.type}`))"""
OVERLAPS = f"""() => ({PAIRS})(app.graph.nodes.map(n =>
    ({{ type: n.type, x: n.pos[0], y: n.pos[1] - 30, w: n.size[0], h: n.size[1] + 30 }})))"""
# of Vue nodes: as the browser has laid them out, which may be larger than the graph says
DRAWN_BOXES = """() => app.graph.nodes.map(node => {
    const box = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    return { type: node.type, x: box?.x, y: box?.y, w: box?.width ?? 0, h: box?.height ?? 0 };
})"""
# wires that run behind nodes: their curve crosses a node's outline, a little inside of its edge, where sockets are
WIRES_BEHIND = """() => {
    const context = document.createElement("canvas").getContext("2d"), inside = 14, step = 2;
    context.lineWidth = 2 * step;
    const { scale, offset } = app.canvas.ds, view = app.canvas.canvas.getBoundingClientRect();
    const boxes = app.graph.nodes.map(node => {
        const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
        const [x, y, w, h] = drawn
            ? [(drawn.x - view.x) / scale - offset[0], (drawn.y - view.y) / scale - offset[1],
               drawn.width / scale, drawn.height / scale]
            : [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30];
        return { title: node.title, left: x + inside, top: y + inside, right: x + w - inside, bottom: y + h - inside };
    });
    const outline = ({ left, top, right, bottom }) => {
        const points = [];
        for (let x = left; x <= right; x += step) points.push([x, top], [x, bottom]);
        for (let y = top; y <= bottom; y += step) points.push([left, y], [right, y]);
        return points;
    };
    const name = id => app.graph.getNodeById(id)?.title ?? id;
    return boxes.flatMap(box => [...app.canvas.renderedPaths]
        .filter(({ path }) => path && outline(box).some(([x, y]) => context.isPointInStroke(path, x, y)))
        .map(wire => `a wire from ${name(wire.origin_id)} runs behind ${box.title}`));
}"""


PATIENCE = 120_000  # ms; other work may keep the machine busy


@contextmanager
def open_frontend(browser: Browser, address: str, width: int = 1600, height: int = 900) -> Iterator[Page]:
    """The frontend, ready, with the classic canvas, in a window of this size."""
    context = browser.new_context(viewport={"width": width, "height": height})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.goto(address)
    wait_until_ready(opened)
    opened.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
    yield opened
    context.close()


def wait_until_ready(page: Page) -> None:
    """Wait for the frontend, and close the side panel: the server keeps what another test has opened."""
    page.wait_for_function("window.app?.extensionManager && window.app.graph", timeout=PATIENCE)
    page.evaluate("app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")


def open_template(page: Page, pack: str, name: str) -> None:
    """Open a pack's workflow as an artist does: through the template browser."""
    page.get_by_role("button", name="Templates").first.click()
    page.get_by_text(pack).click()
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow?.filename === name", arg=name)
    fit_view(page)


def open_workflow(page: Page, workflow: dict[str, Any], name: str) -> None:
    """Open a workflow's JSON under a name."""
    page.evaluate(LOAD, [workflow, name])
    page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow?.filename === name", arg=name)
    fit_view(page)


@contextmanager
def vue_nodes(page: Page) -> Iterator[None]:
    """Vue nodes instead of the classic canvas, for a while."""
    switch = "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
    page.evaluate(switch, True)
    try:
        yield
    finally:
        page.evaluate(switch, False)


def drawn_overlaps(page: Page) -> list[str]:
    """Which Vue nodes overlap, or are not drawn, once all of them stand still."""
    boxes, before = page.evaluate(DRAWN_BOXES), None
    while boxes != before:
        page.wait_for_timeout(700)
        boxes, before = page.evaluate(DRAWN_BOXES), boxes
    missing = [f"{box['type']} is not drawn" for box in boxes if not box["w"]]
    return missing + list(page.evaluate(PAIRS, boxes))


def fit_view(page: Page) -> None:
    """Show the whole graph and wait for the animation's end."""
    page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1500)


def toasts(page: Page, kind: str) -> Locator:
    """The messages of a kind, warning or error, in the window's corner. Frontends before 1.58 name them differently."""
    older = {"warning": "warn"}.get(kind, kind)
    return page.locator(f".p-toast-message-{older}, [data-testid=toast][data-toast-kind={kind}]")


def saved_workflow(page: Page) -> dict[str, Any]:
    """The workflow as a save writes it: JSON, in which a value that is undefined is left out."""
    return dict(json.loads(page.evaluate("JSON.stringify((app.rootGraph ?? app.graph).serialize())")))


def api_prompt(page: Page) -> dict[str, Any]:
    """The API-format prompt that the Run button would send."""
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def press_run(page: Page) -> str:
    """Press Run; the id of the prompt that it sent. Raises RuntimeError when the server refuses it."""
    with page.expect_response(
        lambda response: response.url.endswith("/prompt") and response.request.method == "POST"
    ) as sent:
        page.get_by_role("button", name="Run", exact=True).first.click()
    answer = sent.value.json()
    if sent.value.status != 200:
        raise RuntimeError(f"the server refused the workflow's prompt: {json.dumps(answer)}")
    return str(answer["prompt_id"])


def ended(page: Page, prompt_id: str, timeout: float = 120.0) -> dict[str, Any]:
    """The status that the server's history gives a prompt, once it is there. Raises TimeoutError.

    Asked again and again from here: `wait_for_function` takes the promise of an async function for its answer.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        history = page.evaluate("id => fetch(`/history/${id}`).then(r => r.json())", prompt_id)
        if entry := history.get(prompt_id):
            return dict(entry["status"])
        page.wait_for_timeout(250)
    raise TimeoutError(f"the workflow was not done within {timeout} s")


def run_from_the_button(page: Page, timeout: float = 120.0) -> dict[str, Any]:
    """Press Run, wait for the end, and return what the frontend knows of the nodes' outputs.

    Raises RuntimeError when the server refuses the prompt or a node raises.
    """
    status = ended(page, press_run(page), timeout)
    if status["status_str"] != "success":
        raise RuntimeError(f"the workflow failed: {json.dumps(status)}")
    page.wait_for_timeout(2000)  # the previews load
    return page.evaluate("() => app.nodeOutputs")


def picture_of_graph(page: Page, margin: int = 20) -> Image.Image:
    """A screenshot cut to the graph."""
    box = page.evaluate(GRAPH_BOUNDS)
    screen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    edges = (box["x"] - margin, box["y"] - margin, box["x"] + box["width"] + margin, box["y"] + box["height"] + margin)
    limits = (0, 0, screen.width, screen.height)
    return screen.crop(
        tuple(
            round(max(edge, limit) if index < 2 else min(edge, limit))
            for index, (edge, limit) in enumerate(zip(edges, limits, strict=True))
        )
    )
