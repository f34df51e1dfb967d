"""What the browser tests of this pack's panels do with them, on the Vue nodes and on the classic canvas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from frontend import PATIENCE, wait_until_ready
from playwright.sync_api import Browser, Locator, Page, expect

MODES = ("vue", "classic")
expect.set_options(timeout=60_000)  # a busy machine takes long to draw; what is there takes none
LOADER, MIXER, APPLY, AB, SAFE = (
    f"SafetySteering_{name}"
    for name in ("LoadSafetyVector", "CategoryMixer", "ApplySafetySteering", "SafetyAB", "SafeModel")
)
# Makes nodes and links from a list of [type, x, y, {widget: value}, {input: [number of the node, output]}].
BUILD = """async parts => {
    await app.extensionManager.command.execute("Comfy.NewBlankWorkflow");
    // the frontend keeps widgets' values by node id: ids of former graphs are not used again
    app.graph.last_node_id = window.nodesMade = (window.nodesMade ?? 100) + 50;
    const nodes = parts.map(([type, x, y, widgets]) => {
        const node = LiteGraph.createNode(type);
        node.pos = [x, y];
        app.graph.add(node);
        for (const [name, value] of Object.entries(widgets)) {
            const widget = node.widgets.find(one => one.name === name);
            widget.value = value;
            widget.callback?.(value, app.canvas, node);
        }
        return node;
    });
    parts.forEach(([, , , , inputs], i) => {
        for (const [name, [from, slot]] of Object.entries(inputs ?? {})) nodes[from].connect(slot, nodes[i], name);
    });
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [120, 120];
    app.canvas.setDirty(true, true);
    app.extensionManager.workflow.activeWorkflow?.changeTracker?.captureCanvasState();
    return nodes.map(node => String(node.id));
}"""
GHOST = "() => app.graph.nodes.some(node => node.flags.ghost)"
WIDGETS = """type => app.graph.nodes.filter(node => node.type === type).map(node => Object.fromEntries(
    node.widgets.filter(widget => widget.serialize !== false).map(widget => [widget.name, widget.value])))"""


@contextmanager
def opened(browser: Browser, address: str, mode: str) -> Iterator[Page]:
    """The frontend, ready, with Vue nodes or the classic canvas."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    try:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        wait_until_ready(page)
        page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", mode == "vue")
        yield page
    finally:
        context.close()


def build(page: Page, *parts: list[Any]) -> list[str]:
    """A graph on an empty canvas; the ids of its nodes."""
    return page.evaluate(BUILD, [[*part, {}, {}][:5] if len(part) < 5 else part for part in parts])


def widgets(page: Page, node_type: str) -> list[dict[str, Any]]:
    """Name and value of the saved widgets of each node of a type."""
    return page.evaluate(WIDGETS, node_type)


def panel(page: Page, label: str) -> Locator:
    """The panels with this label."""
    return page.get_by_role("group", name=label, exact=True)


def sliders(page: Page) -> Locator:
    return panel(page, "Category weights").get_by_role("slider")


def search_nodes(page: Page, words: str) -> Locator:
    """Type words into the node search; its box. The dialog closes a frame after a choice, so one may still be there."""
    expect(page.get_by_role("search")).to_have_count(0)
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = page.get_by_role("search").get_by_role("combobox", name="Add a node")
    box.fill(words)
    return box


def add_by_search(page: Page, title: str) -> str:
    """Find a node by its title and put it on the canvas, as people do; its id."""
    before = set(page.evaluate("app.graph.nodes.map(node => String(node.id))"))
    box = search_nodes(page, title)
    page.get_by_test_id("result-item").filter(has_text=title).first.wait_for()
    box.press("Enter")
    page.wait_for_function("count => app.graph.nodes.length > count", arg=len(before))
    expect(page.get_by_role("search")).to_have_count(0)
    while page.evaluate(GHOST):  # a new node follows the cursor until it is put down
        page.mouse.click(800, 120)
        page.wait_for_timeout(100)
    (new,) = set(page.evaluate("app.graph.nodes.map(node => String(node.id))")) - before
    return new
