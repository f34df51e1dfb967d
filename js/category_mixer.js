// Category Mixer and Safe Model: a slider for each category, drawn over the mix string and the preset (Safe Model has
// none: what the string does not name weighs as the vector suggests). The string stays the truth: nothing is written on
// load, and what is typed into it moves the sliders.

import { app } from "../../scripts/app.js";
import { element, short } from "./lib/dom.js";
import { CUSTOM, formatMix, parseMix, resolveMix, suggestedByRun, suggestedMix } from "./lib/mix.js";
import { addPanel, chain, setWidget, soon, widgetOf } from "./lib/panel.js";
import { askCard } from "./lib/server.js";
import { makeSlider } from "./lib/slider.js";
import { showPanels } from "./settings.js";
import { AUTO, BUNDLED, MIXER, TRANSFER, decidingWidget, upstreamVector } from "./lib/upstream.js";
import { noteChange } from "./lib/undo.js";
import { say } from "./lib/words.js";

const STANDARD = Object.freeze({ value: "standard" });
const RANGE = { min: 0, max: 2, step: 0.05, mark: 1 };

app.registerExtension({
    name: "SafetySteering.CategoryMixer",
    nodeCreated(node) {
        if (node.comfyClass === MIXER && showPanels()) addSliders(node);
    },
});

export function addSliders(node) {
    const own = { preset: widgetOf(node, "preset") ?? STANDARD, mix: widgetOf(node, "mix") };
    const vectorOf = () => {
        if (node.comfyClass === MIXER) return upstreamVector(node, [MIXER, TRANSFER]);
        const file = (decidingWidget(node, "vector") ?? widgetOf(node, "vector")).value;
        return { file: file === AUTO ? BUNDLED : file };
    };
    const deciding = (name) => decidingWidget(node, name) ?? own[name]; // asked anew: links come and go
    const written = () => parseMix(String(deciding("mix").value ?? ""));
    let [file, suggested, writing, rows, shown, seen] = [undefined, new Map(), false, null, null, undefined];

    const read = () => {
        const named = written();
        return named && resolveMix(deciding("preset").value, named, suggested);
    };

    /** Write without hearing our own echo. */
    const write = (text, choice = deciding("preset").value) => {
        writing = true;
        setWidget(deciding("mix"), text);
        if (own.preset !== STANDARD && deciding("preset").value !== choice) setWidget(deciding("preset"), choice);
        writing = false;
        draw();
    };

    const moved = (name, weight) => {
        const now = read();
        if (!now) return;
        const all = now.known.size ? now.known : now.unknown;
        all.set(name, weight);
        write(formatMix([...now.known, ...now.unknown]), CUSTOM);
    };

    const chosen = (choice) => {
        const now = read();
        if (writing || !now) return draw();
        // custom takes over what the sliders have just shown; the other presets stand for it
        write(formatMix(choice === CUSTOM ? [...(shown ?? now).known, ...now.unknown] : now.unknown));
        noteChange();
    };

    const draw = () => {
        const now = read();
        seen = deciding("preset").value;
        if (!now) {
            rows = null;
            const sentence = say("The mix does not read. Write it like: violence=1, sexual=0.5");
            panel.body.replaceChildren(element("p", { class: "ss-note ss-wrong", role: "status" }, sentence));
            return;
        }
        const guessed = !now.known.size; // no vector is known: the string's own names are all there is
        const weights = guessed ? now.unknown : now.known;
        if (!rows || rows.names.join() !== [...weights.keys()].join()) {
            rows = makeRows([...weights.keys()], moved);
            panel.body.replaceChildren(rows.root);
        }
        rows.show(weights, guessed ? new Map() : now.unknown);
        shown = now;
    };

    /** On the outside of a subgraph a widget changes without a callback. */
    const chosenOutside = () => {
        const preset = deciding("preset");
        if (preset !== own.preset && seen !== undefined && preset.value !== seen) chosen(preset.value);
    };

    const panel = addPanel(node, "Category weights", async (force = false) => {
        chosenOutside();
        const vector = vectorOf();
        if (vector?.file !== file || force) {
            file = vector?.file;
            const card = file ? await askCard(file) : null;
            if (card?.categories) suggested = suggestedMix(card.categories, card.suggested.mix);
            else if (!vector?.made) suggested = new Map();
        }
        draw();
    });

    chain(own.mix, "callback", () => writing || soon(draw));
    if (own.preset !== STANDARD) chain(own.preset, "callback", (choice) => writing || chosen(choice));
    chain(node, "onConfigure", () => (seen = undefined));
    chain(node, "onExecuted", (output) => {
        const ran = output?.mix?.[0];
        if (!ran) return;
        const learned = Object.keys(ran.weights);
        if (learned.some((name) => !suggested.has(name)) || learned.length !== suggested.size) {
            suggested = suggestedByRun(ran.weights, deciding("preset").value, written());
        }
        draw();
    });
}

/** The sliders and the bar. `show` moves them; it writes nothing. */
function makeRows(names, moved) {
    const parts = names.map((name, number) => {
        const output = element("output", { class: "ss-weight" });
        const slider = makeSlider({
            label: name,
            ...RANGE,
            onInput: (weight) => moved(name, weight),
            onCommit: noteChange,
        });
        slider.root.style.setProperty("--ss-colour", colour(number));
        const segment = element("div", { class: "ss-segment", style: `background: ${colour(number)}` });
        return { name, output, slider, segment };
    });
    const bar = element("div", { class: "ss-bar", role: "img" }, ...parts.map((part) => part.segment));
    const sum = element("span", { class: "ss-quiet" });
    const note = element("p", { class: "ss-note ss-caution", role: "status" });
    const lines = parts.map(({ name, output, slider }) =>
        element("div", { class: "ss-row" }, element("span", { class: "ss-name", title: name }, name), slider.root, output),
    );
    const empty = say("Connect a safety vector to see its categories.");
    const root = element(
        "div",
        {},
        ...(names.length ? [...lines, bar, sum] : [element("p", { class: "ss-quiet" }, empty)]),
        note,
    );

    const show = (weights, unknown) => {
        for (const { name, output, slider, segment } of parts) {
            const weight = weights.get(name);
            slider.show(weight);
            output.textContent = short(weight);
            segment.style.flexGrow = Math.abs(weight);
            segment.title = `${name} ${short(weight)}`;
            segment.classList.toggle("ss-against", weight < 0);
        }
        const steered = parts.filter(({ name }) => weights.get(name));
        const words = steered.map(({ name }) => `${name} ${short(weights.get(name))}`).join(", ");
        sum.textContent = steered.length
            ? say("{count} of {all} steered", { count: steered.length, all: names.length })
            : say("Off: nothing is steered");
        bar.setAttribute("aria-label", words || say("Off: nothing is steered"));
        note.hidden = !unknown.size;
        note.textContent = say("Not steered, the vector lacks: {names}", { names: [...unknown.keys()].join(", ") });
    };
    return { root, names, show };
}

function colour(number) {
    return `hsl(${(205 + number * 47) % 360} 62% 58%)`;
}
