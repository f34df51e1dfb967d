// Apply Safety Steering: where and when it will act, whether the vector fits the model, and what it did in the last run.
// Safe Model: what it chose and why, and what it did.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { drawDepth, drawWindow } from "./lib/depth_strip.js";
import { element } from "./lib/dom.js";
import { addPanel, chain, lastOutput, soon, widgetOf } from "./lib/panel.js";
import { askHookPoints } from "./lib/server.js";
import { drawTrace } from "./lib/sparkline.js";
import { say } from "./lib/words.js";
import { showPanels, showWarnings } from "./settings.js";
import {
    APPLY,
    MIXER,
    SAFE,
    decidingWidget,
    nodeOf,
    serverId,
    steers,
    upstreamApplies,
    upstreamModel,
    upstreamVector,
} from "./lib/upstream.js";

const TRACE = "safety_steering.trace";
const WATCHED = ["settings", "hook_points", "window_start", "window_end", "strength"];
const UNTIL_RUN = {
    [APPLY]: () => say("As recommended for the vector, times level. A run shows what that is and why."),
    [SAFE]: () => say("A run shows which vector and settings were taken, and why."),
};
// how far a panel makes its node grow: two Safe Models stand above other nodes on one screen
const TALLEST = { [APPLY]: 260, [SAFE]: 170 };
const panels = new WeakMap();

app.registerExtension({
    name: "SafetySteering.Apply",
    setup() {
        api.addEventListener(TRACE, ({ detail }) => receiveTrace(detail));
        api.addEventListener("executed", ({ detail }) => receiveCachedTraces(detail));
    },
    nodeCreated(node) {
        if (node.comfyClass === APPLY && showPanels()) addStrip(node);
    },
});

export function addStrip(node) {
    const names = ["trace", "notices", "choice", "points", "window"]; // what happened comes first
    const parts = Object.fromEntries(names.map((name) => [name, element("div")]));
    let asked;
    let points = null;
    const value = (name) => (decidingWidget(node, name) ?? widgetOf(node, name))?.value;
    const manual = () => node.type === APPLY && value("settings") === "manual";
    const told = (output) => {
        const lines = [output?.text ?? []].flat().flatMap((text) => String(text).split("\n"));
        const [warnings, choice] = [true, false].map((is) => lines.filter((line) => line.startsWith("Warning") === is));
        parts.notices.replaceChildren(...warnings.map((line) => element("p", { class: "ss-note ss-caution" }, line)));
        const shown = choice.some(Boolean) || manual() ? choice : [UNTIL_RUN[node.type]()];
        parts.choice.replaceChildren(...shown.map((line) => element("p", { class: "ss-quiet ss-choice" }, line)));
    };
    const panel = addPanel(node, "Steering", async (force = false) => {
        told(lastOutput(node));
        draw();
        if (node.type === SAFE) return;
        const vector = upstreamVector(node, [MIXER]);
        const model = upstreamModel(node);
        const choice = vector?.made ? vector.at : manual() ? String(value("hook_points") ?? "auto") : "auto";
        const question = JSON.stringify([vector, model, choice]);
        if (question === asked && !force) return;
        asked = question;
        const found = vector && choice ? await askHookPoints(vector.file ?? "", choice, model) : null;
        if (question !== asked) return;
        points = { vector, ...found };
        draw();
    }, TALLEST[node.comfyClass]);
    panel.body.append(...Object.values(parts));
    panels.set(node, panel);

    const number = (name) => Number(value(name) ?? 0);
    const draw = () => {
        const off = number(manual() ? "strength" : node.type === SAFE ? "level" : "settings.level") === 0;
        parts.points.replaceChildren(...(points ? drawDepth(points, off) : []));
        parts.window.replaceChildren(...(manual() ? [drawWindow(number("window_start"), number("window_end"))] : []));
        const trace = recall(node);
        parts.trace.replaceChildren(...(trace ? drawTrace(trace) : []));
    };
    for (const name of WATCHED) {
        const widget = widgetOf(node, name);
        if (widget) chain(widget, "callback", () => soon(() => panel.refresh()));
    }
    chain(node, "onExecuted", told);
}

/** The server's message at the end of a sampler run. */
function receiveTrace(trace) {
    const node = nodeOf(trace.node);
    if (!node || !steers(node)) return; // of a workflow that is not open now
    remember(node, trace);
    panels.get(node)?.refresh();
    if (!["acted", "nothing found", "off"].includes(trace.status) && showWarnings()) {
        app.extensionManager?.toast?.add({
            severity: "warn",
            summary: say("Nothing was steered"),
            detail: trace.summary,
            life: 10_000,
        });
    }
}

/**
 * The traces in the outputs of Safety A/B and Steering Report. They are also sent when the server takes the outputs from
 * its cache: then no sampler runs, and a browser that was opened later has received no trace.
 */
function receiveCachedTraces({ node: id, display_node: shown, output, prompt_id: prompt }) {
    const traces = output?.safety_steering_traces;
    const teller = traces && nodeOf(shown ?? id);
    const applies = teller ? upstreamApplies(teller) : [];
    if (applies.length !== traces?.length) return; // the workflow has changed since
    applies.forEach((node, index) => {
        if (recall(node)?.prompt_id === prompt) return; // the trace of this prompt's own run is there
        remember(node, { ...traces[index], cached: traces[index].prompt_id !== prompt });
        panels.get(node)?.refresh();
    });
}

// The last traces are kept for the session: undo, a change of tabs and a reload recreate nodes.

function remember(node, trace) {
    try {
        sessionStorage.setItem(key(node), JSON.stringify(trace));
    } catch {
        // the storage is full or forbidden; the Steering Report has the trace too
    }
}

function recall(node) {
    try {
        return JSON.parse(sessionStorage.getItem(key(node)));
    } catch {
        return null;
    }
}

function key(node) {
    return `${TRACE}/${(app.rootGraph ?? app.graph)?.id}/${serverId(node)}`;
}
