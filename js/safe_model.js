// Safe Model: sliders, what it chose, and the menu entry that replaces it by the five nodes that it stands for.

import { app } from "../../scripts/app.js";
import { addStrip } from "./apply_panel.js";
import { addSliders } from "./category_mixer.js";
import { linkInto, linksFrom } from "./lib/links.js";
import { lastOutput, refreshPanels, setWidget, widgetOf } from "./lib/panel.js";
import { askCard } from "./lib/server.js";
import { showPanels } from "./settings.js";
import { APPLY, AUTO, BUNDLED, FIT, LOADER, MIXER, SAFE, TRANSFER } from "./lib/upstream.js";
import { noteChange } from "./lib/undo.js";
import { say } from "./lib/words.js";

const [SUBGRAPH_INPUT, SUBGRAPH_OUTPUT, BYPASSED] = [-10, -20, 4];
const [GAP, BELOW] = [60, 120];
// Safe Model's inputs and outputs -> the nodes' own
const INPUTS = {
    model: [[FIT, "model"], [APPLY, "model"]],
    clip: [[FIT, "clip"], [APPLY, "clip"]],
    benign_prompts: [[FIT, "benign_prompts"]],
    vector: [[LOADER, "vector"]],
    level: [[APPLY, "settings.level"]],
    mix: [[MIXER, "mix"]],
};
const OUTPUTS = { model: [APPLY, 0], clip: [APPLY, 1], safety_vector: [MIXER, 0], report: [FIT, 1] };

app.registerExtension({
    name: "SafetySteering.SafeModel",
    nodeCreated(node) {
        if (node.comfyClass !== SAFE || !showPanels()) return;
        addSliders(node);
        addStrip(node);
    },
    getNodeMenuItems(node) {
        return node.comfyClass === SAFE ? [{ content: say("Open as nodes"), callback: () => openAsNodes(node) }] : [];
    },
});

/** Replaces the node by the five, below everything else. A vector made for the model needs no fit: both are bypassed. */
async function openAsNodes(node) {
    const file = fileOf(node);
    const card = await askCard(file);
    const { graph } = node;
    graph.beforeChange();
    const bottom = Math.max(...graph.nodes.map(({ pos, size }) => pos[1] + size[1]));
    let x = node.pos[0];
    const made = {};
    for (const type of [LOADER, FIT, TRANSFER, MIXER, APPLY]) {
        const one = (made[type] = LiteGraph.createNode(type));
        graph.add(one);
        one.pos = [x, bottom + BELOW];
        [one.color, one.bgcolor] = [node.color, node.bgcolor];
        x += one.size[0] + GAP;
    }
    const label = widgetOf(made[LOADER], "vector").options.values.find((value) => value.startsWith(file));
    setWidget(widgetOf(made[LOADER], "vector"), label ?? file);
    setWidget(widgetOf(made[MIXER], "mix"), widgetOf(node, "mix").value);
    setWidget(widgetOf(made[APPLY], "settings.level"), widgetOf(node, "level").value);
    made[LOADER].connect(0, made[FIT], "safety_vector");
    made[LOADER].connect(0, made[TRANSFER], "safety_vector");
    made[FIT].connect(0, made[TRANSFER], "safety_alignment");
    made[TRANSFER].connect(0, made[MIXER], "safety_vector");
    made[MIXER].connect(0, made[APPLY], "safety_vector");
    if (card?.kind && card.kind !== "source") made[FIT].mode = made[TRANSFER].mode = BYPASSED;
    node.inputs.forEach(({ name }, slot) => {
        const link = linkInto(node, slot);
        for (const [type, input] of (link && INPUTS[name]) || []) feed(graph, link, made[type], input);
    });
    node.outputs.forEach(({ name }, slot) => {
        for (const link of linksFrom(node, slot)) read(graph, link, made, OUTPUTS[name]);
    });
    graph.remove(node);
    graph.afterChange();
    refreshPanels(true);
    setTimeout(noteChange, 300);
}

/** The vector's file: as chosen, as the last run took it, or the one that `auto` takes most often. */
function fileOf(node) {
    const chosen = widgetOf(node, "vector").value;
    const [ran] = String(lastOutput(node)?.text ?? "").split(": ");
    return chosen !== AUTO ? chosen.replace(/ \(.*/s, "") : ran || BUNDLED;
}

/** Connects what feeds a link to another input too. */
function feed(graph, link, target, name) {
    if (Number(link.origin_id) === SUBGRAPH_INPUT) {
        const input = target.inputs.find((one) => one.name === name);
        graph.inputs[link.origin_slot].connect(input, target);
    } else graph.getNodeById(link.origin_id).connect(link.origin_slot, target, name);
}

/** Connects what reads a link to the new nodes' output. */
function read(graph, { target_id: targetId, target_slot: slot }, made, [type, number]) {
    if (Number(targetId) === SUBGRAPH_OUTPUT) graph.outputs[slot].connect(made[type].outputs[number], made[type]);
    else made[type].connect(number, graph.getNodeById(targetId), slot);
}
