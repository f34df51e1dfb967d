// What a run told about a node, in words: shown on nodes of this pack that have no panel of their own.

import { app } from "../../scripts/app.js";
import { element } from "./lib/dom.js";
import { addPanel, chain } from "./lib/panel.js";
import { showPanels } from "./settings.js";
import { APPLY, LOADER, MIXER, SAFE } from "./lib/upstream.js";

const OWN = "SafetySteering_";
const TALLEST = 170; // how far the words make a node grow; the rest is scrolled
// all but the last draw what a run tells; the report is a picture that holds its words
const OTHERS = [LOADER, MIXER, APPLY, SAFE, "SafetySteering_SafetyAB", "SafetySteering_SteeringReport"];

app.registerExtension({
    name: "SafetySteering.Text",
    nodeCreated(node) {
        if (node.comfyClass?.startsWith(OWN) && !OTHERS.includes(node.comfyClass) && showPanels()) addText(node);
    },
});

function addText(node) {
    let panel = null; // there is none until there is something to say
    chain(node, "onExecuted", (output) => {
        const lines = [output?.text ?? []].flat().flatMap((text) => String(text).split("\n"));
        if (!lines.some((line) => line.trim())) return;
        panel ??= addPanel(node, "What the run told", () => {}, TALLEST);
        panel.body.replaceChildren(element("div", { class: "ss-words" }, ...lines.map(paragraph)));
    });
}

function paragraph(line) {
    const warns = /^(warning|not steered)/i.test(line);
    return element("p", { class: warns ? "ss-note ss-caution" : null }, line);
}
