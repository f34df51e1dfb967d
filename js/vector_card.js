// Load Safety Vector: the card of the chosen file, and what to do about a file that is not there.

import { app } from "../../scripts/app.js";
import { element, short } from "./lib/dom.js";
import { addPanel, chain, refreshPanels, soon, widgetOf } from "./lib/panel.js";
import { askCard } from "./lib/server.js";
import { showPanels } from "./settings.js";
import { LOADER, decidingWidget } from "./lib/upstream.js";
import { noteChange } from "./lib/undo.js";
import { say } from "./lib/words.js";

// what is written into the workflow about the chosen file, so that whoever opens it elsewhere can find the same one
const RECORD = "safety_vector";
const warned = new Set();

app.registerExtension({
    name: "SafetySteering.VectorCard",
    nodeCreated(node) {
        if (node.comfyClass === LOADER && showPanels()) addCard(node);
    },
    refreshComboInNodes() {
        soon(() => refreshPanels(true));
    },
});

function addCard(node) {
    const own = widgetOf(node, "vector");
    const deciding = () => decidingWidget(node, "vector") ?? own;
    let shown;
    let fresh = true; // not from a workflow: the choice is the user's own
    relabel(own);
    const panel = addPanel(node, "Safety vector", async (force = false) => {
        relabel(deciding());
        const name = deciding().value;
        if (name === shown && !force) return;
        const chosen = fresh || (shown !== undefined && plainName(shown) !== plainName(name)); // by the user
        shown = name;
        const card = await askCard(name);
        if (deciding().value !== name) return; // another was chosen meanwhile
        if (card?.file && chosen) record(node, card);
        draw(panel.body, node, name, card, () => lookAgain(node));
        if (card?.problem) warn(node, name);
    });
    chain(node, "onConfigure", () => {
        fresh = false;
        shown = undefined;
        relabel(own);
    });
    chain(own, "callback", () => soon(() => refreshPanels()));
}

/**
 * A file keeps its name and may get another label; workflows written by hand have the bare name. The frontend calls
 * whatever is not in the list a missing model, so a file that is there gets the label that the list has.
 */
function relabel(widget) {
    const values = widget.options?.values;
    if (!Array.isArray(values) || values.includes(widget.value)) return;
    const listed = values.find((label) => plainName(label) === plainName(widget.value));
    if (listed) widget.value = listed;
}

function record(node, card) {
    const { file, sha256, fits, origin } = card;
    if (node.properties[RECORD]?.sha256 === sha256 && node.properties[RECORD]?.file === file) return;
    node.properties[RECORD] = { file, sha256, fits, origin };
    setTimeout(noteChange, 300); // with the size that the card gives the node
}

function draw(body, node, name, card, again) {
    const kept = node.properties[RECORD];
    const recorded = kept?.file && plainName(name).endsWith(kept.file) ? kept : null;
    if (!card) body.replaceChildren();
    else if (card.problem) body.replaceChildren(missing(name, card.problem, recorded, again));
    else body.replaceChildren(table(card), ...otherVersion(card, recorded));
}

/** The file's name in a picker's label, `name.safetensors (what it fits)`. */
function plainName(label) {
    return String(label ?? "").replace(/(\.safetensors).*$/s, "$1");
}

function table(card) {
    const auc = (name) => (name in card.auc ? `${name} (AUC ${short(card.auc[name])})` : name);
    const { strength, intervention, hook_points: points } = card.suggested;
    const [space, ...more] = card.spaces;
    const measured = say("measured");
    const rows = {
        [say("made for")]: card.model || card.family || say("another model's language"),
        [say("steers")]: card.categories.map(auc).join(", "),
        [say("space")]: more.length ? say("{space} and {count} more", { space, count: more.length }) : space,
        [measured]: card.measured_on.length
            ? say("on {models}", { models: card.measured_on.join(", ") })
            : say("on no model yet: judge it yourself"),
        [say("suggested")]: [
            say("strength {number}", { number: short(strength) }),
            intervention,
            points.length ? say("at {place}", { place: points[0] }) : "",
        ]
            .filter(Boolean)
            .join(", "),
        [say("licence")]: card.licence || say("not given"),
        sha256: card.sha256,
    };
    const cells = Object.entries(rows).flatMap(([name, value]) => {
        const quiet = name === measured && !card.measured_on.length ? "ss-caution" : null;
        return [element("dt", {}, name), element("dd", { title: value, class: quiet }, value)];
    });
    return element("dl", { class: "ss-card" }, ...cells);
}

function otherVersion(card, recorded) {
    if (!recorded || recorded.sha256 === card.sha256) return [];
    const { sha256 } = recorded;
    const sentence = say("This workflow was made with another version of the file (sha256 {sha256}).", { sha256 });
    return [element("p", { class: "ss-note ss-caution", role: "status" }, sentence)];
}

function missing(name, problem, recorded, again) {
    const absent = problem.includes("was not found");
    const title = absent ? say("This safety vector is missing") : say("This safety vector cannot be used");
    const lines = [element("strong", {}, title)];
    lines.push(element("p", { class: "ss-file" }, plainName(name)));
    if (recorded?.fits) lines.push(element("p", {}, say("For {fits}.", recorded)));
    if (recorded?.sha256) lines.push(element("p", { class: "ss-hash" }, `sha256 ${recorded.sha256}`));
    if (recorded?.origin) lines.push(element("p", {}, say("Where from: {origin}.", recorded)));
    else if (absent) lines.push(element("p", {}, say("The workflow does not say where it comes from: ask its maker.")));
    const advice = absent ? say("Put the file into models/safety_vectors, or choose another above.") : problem;
    lines.push(element("p", {}, advice));
    lines.push(element("button", { type: "button", class: "ss-button", click: again }, say("Look again")));
    return element("div", { class: "ss-note ss-wrong", role: "alert" }, ...lines);
}

async function lookAgain(node) {
    await app.refreshComboInNodes();
    widgetOf(node, "vector").callback?.(widgetOf(node, "vector").value);
    refreshPanels(true);
}

/** Once a session for each node and file. */
function warn(node, name) {
    const key = `${node.id} ${name}`;
    if (warned.has(key)) return;
    warned.add(key);
    const sha256 = node.properties[RECORD]?.sha256;
    const file = `${plainName(name)}${sha256 ? `, sha256 ${sha256.slice(0, 16)}…` : ""}`;
    app.extensionManager?.toast?.add({
        severity: "warn",
        summary: say("A safety vector is missing"),
        detail: say("{file}. The node says what to do.", { file }),
        life: 8000,
    });
}
