// What stands upstream of a node: across reroutes, bypassed nodes and the borders of subgraphs.

import { app } from "../../../scripts/app.js";
import { inputNumber, isConnected, linkInto } from "./links.js";
import { widgetOf } from "./panel.js";

export const LOADER = "SafetySteering_LoadSafetyVector";
export const MIXER = "SafetySteering_CategoryMixer";
export const TRANSFER = "SafetySteering_TransferDirection";
export const APPLY = "SafetySteering_ApplySafetySteering";
export const SAFE = "SafetySteering_SafeModel";
export const AUTO = "auto"; // Safe Model's own choice of a vector
export const BUNDLED = "smollm2_135m_portable.safetensors"; // stands for it until a run says what was taken
export const FIT = "SafetySteering_FitBenignAlignment";

const SUBGRAPH_INPUT = -10; // the id that links give the inner side of a subgraph's inputs
const [MUTED, BYPASSED] = [2, 4];
const FARTHEST = 60;
// what an alignment carries vectors to -> the hook point, where that is known before the run
const TARGETS = { conditioning: "conditioning", clip_vision: "clip_vision" };
// widget of a stock loader -> the folder whose files it offers
const MODEL_WIDGETS = { unet_name: "diffusion_models", ckpt_name: "checkpoints" };

const root = () => app.rootGraph ?? app.graph;

/** The node that an input's value comes from, or null. */
export function sourceOf(node, inputName) {
    return originOf(node, inputNumber(node, (one) => one.name === inputName));
}

/** The node that the value of an input, by its number, comes from, or null. */
function originOf(node, slot, far = 0) {
    return node ? senderOf(node.graph, linkInto(node, slot), far) : null;
}

function senderOf(graph, link, far) {
    if (!link || far > FARTHEST) return null;
    if (Number(link.origin_id) === SUBGRAPH_INPUT) return originOf(hostOf(graph), link.origin_slot, far + 1);
    const node = graph.getNodeById(link.origin_id);
    if (!node || node.mode === MUTED) return null;
    if (node.mode === BYPASSED || node.type === "Reroute") {
        const type = node.outputs?.[link.origin_slot]?.type;
        const same = (input, slot) => isConnected(node, slot) && (input.type === type || node.type === "Reroute");
        return originOf(node, inputNumber(node, same), far + 1);
    }
    if (!node.subgraph) return node;
    const inner = node.subgraph.outputs?.[link.origin_slot]?.linkIds?.[0];
    return inner == null ? null : senderOf(node.subgraph, node.subgraph.getLink(inner), far + 1);
}

/** The node that stands for a subgraph in the graph around it. */
function hostOf(subgraph, graph = root()) {
    for (const node of graph?.nodes ?? []) {
        if (!node.subgraph) continue;
        if (node.subgraph === subgraph) return node;
        const deeper = hostOf(subgraph, node.subgraph);
        if (deeper) return deeper;
    }
    return null;
}

/** The id by which the server knows a node: "12", or "5:12" inside of the subgraph node 5. */
export function serverId(node) {
    const host = node.graph === root() ? null : hostOf(node.graph);
    return host ? `${serverId(host)}:${node.id}` : `${node.id}`;
}

/** The node that the server calls by this id, if it is in the open workflow. */
export function nodeOf(id) {
    let [graph, node] = [root(), null];
    for (const part of String(id).split(":")) {
        node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
        graph = node?.subgraph;
    }
    return node ?? null;
}

/**
 * The widget that decides a value: the node's own, or the one on a subgraph's outside that stands for it. Null if a node
 * gives the value.
 */
export function decidingWidget(node, name) {
    const link = linkInto(node, inputNumber(node, (one) => one.widget?.name === name));
    if (!link) return widgetOf(node, name);
    const host = Number(link.origin_id) === SUBGRAPH_INPUT ? hostOf(node.graph) : null;
    const outer = host?.inputs?.[link.origin_slot]?.widget;
    return outer ? decidingWidget(host, outer.name) : null;
}

/**
 * The vector that comes into a node: { file } as Load Safety Vector names it; { made: true } if the graph makes it, with
 * the hook point `at` if that is known; null if nothing is connected. `through` lists the kinds of nodes behind which it
 * is still the same vector.
 */
export function upstreamVector(node, through) {
    let at = sourceOf(node, "safety_vector");
    for (let hops = 0; at && hops < FARTHEST; hops++) {
        if (at.type === LOADER) {
            const chosen = decidingWidget(at, "vector");
            return chosen ? { file: chosen.value } : { made: true };
        }
        if (!through.includes(at.type)) return { made: true, at: at.type === TRANSFER ? targetOf(at) : null };
        at = sourceOf(at, "safety_vector");
    }
    return null;
}

function targetOf(transfer) {
    const fit = sourceOf(transfer, "safety_alignment");
    return fit?.type === FIT ? (TARGETS[widgetOf(fit, "target")?.value] ?? null) : null;
}

/** The file of the model that comes into a node, { folder, file }, if a stock loader gives it; else null. */
export function upstreamModel(node) {
    for (const at of modelsBehind(node)) {
        const widget = at.widgets?.find((one) => one.name in MODEL_WIDGETS);
        if (widget) return { folder: MODEL_WIDGETS[widget.name], file: widget.value };
    }
    return null;
}

/** Whether a node steers the model that it puts out. */
export function steers(node) {
    return node?.type === APPLY || node?.type === SAFE;
}

/** The nodes that steer the model that comes into a node, in the order in which they do. */
export function upstreamApplies(node) {
    return [...modelsBehind(node)].filter(steers).reverse();
}

/** The nodes that a model comes through on its way to a node, the nearest first. */
function* modelsBehind(node) {
    let at = sourceOf(node, "model");
    for (let hops = 0; at && hops < FARTHEST; hops++) {
        yield at;
        const from = at;
        at = originOf(from, inputNumber(from, (one, slot) => one.type === "MODEL" && isConnected(from, slot)));
    }
}
