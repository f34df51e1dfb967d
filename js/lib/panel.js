// A panel at the bottom of a node: plain HTML in a DOM widget, which both the Vue nodes and the classic canvas show.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { element } from "./dom.js";
import { say } from "./words.js";

const NAME = "safety_steering_panel";
const MARGIN = 6;
const WIDTH = 360; // of a new node; a saved one keeps its own
const panels = new Set();
let count = 0;

api.addEventListener("graphChanged", () => refreshPanels());

/**
 * Adds a panel. It comes after the node's own widgets and is never saved, so a workflow is the same with and without it.
 * `refresh` is called whenever something in the graph may have changed; it should return quickly when nothing has.
 * `limit`: the height in pixels up to which the panel makes its node grow; what does not fit then is scrolled.
 */
export function addPanel(node, label, refresh, limit = Infinity) {
    const body = element("div", { class: "safety-steering", role: "group", "aria-label": say(label) });
    const host = element("div", { class: "safety-steering-host" }, body);
    const bounded = Number.isFinite(limit);
    if (bounded) {
        host.classList.add("ss-bounded");
        host.tabIndex = 0;
        host.dataset.captureWheel = "true"; // with the focus in it the wheel scrolls it, else it zooms the canvas
    }
    let height = 40;
    // Vue nodes tell widgets apart by name and type: with a type of its own, a node that undo has made anew is drawn anew
    const number = node.widgets?.filter(({ name }) => name.startsWith(NAME)).length ?? 0;
    const widget = node.addDOMWidget(`${NAME}${number || ""}`, `safety_steering_${count++}`, host, {
        serialize: false,
        hideInPanel: true,
        margin: MARGIN,
        getMinHeight: () => height,
    });
    widget.serialize = false;
    if (node.size[0] < WIDTH) node.setSize([WIDTH, node.size[1]]);
    const observer = new ResizeObserver(() => {
        const needed = Math.min(body.offsetHeight + 2 * MARGIN, limit);
        if (body.offsetHeight === 0 || Math.abs(needed - height) < 2) return;
        height = needed;
        if (bounded) host.style.minHeight = `${height - 2 * MARGIN}px`;
        growToFit(node);
    });
    observer.observe(body);
    const panel = { body, refresh, node };
    panels.add(panel);
    chain(node, "onRemoved", () => {
        observer.disconnect();
        panels.delete(panel);
    });
    chain(node, "onConfigure", () => soon(refresh));
    chain(node, "onConnectionsChange", () => soon(refresh));
    soon(refresh);
    return panel;
}

/** Calls a node's (or widget's) own method first, then `after` with the same arguments. */
export function chain(owner, method, after) {
    const own = owner[method];
    owner[method] = function (...given) {
        const result = own?.apply(this, given);
        after.apply(this, given);
        return result;
    };
}

/** Once the graph is whole: links are not there yet while a node is made or configured. */
export function soon(action) {
    setTimeout(action, 0);
}

/** Lets every panel look at the graph again. */
export function refreshPanels(force = false) {
    for (const panel of panels) panel.refresh(force);
}

/** Vue nodes grow by themselves. */
function growToFit(node) {
    if (globalThis.LiteGraph?.vueNodesMode || !node.graph) return;
    const needed = node.computeSize()[1];
    if (node.size[1] < needed) node.setSize([node.size[0], needed]);
    app.canvas?.setDirty(true, true);
}

/** What the last run told about a node, as the frontend keeps it: undo and a change of tabs make nodes anew. */
export function lastOutput(node) {
    const outer = !node.graph || node.graph === (app.rootGraph ?? app.graph);
    return app.nodeOutputs?.[outer ? `${node.id}` : `${node.graph.id}:${node.id}`];
}

export function widgetOf(node, name) {
    return node.widgets?.find((widget) => widget.name === name);
}

/** Sets a widget's value as a user does: its own callback runs. */
export function setWidget(widget, value) {
    widget.value = value;
    widget.callback?.(value, app.canvas, widget.node);
}
