// The depth strip: the model's blocks in a row, those that are steered in colour; and the window over denoising.

import { element, short } from "./dom.js";
import { say } from "./words.js";

const NAMES = {
    conditioning: () => say("prompt"),
    clip_vision: () => say("start image"),
    encoder: () => say("text encoder"),
};

/** The elements for an answer of the hook_points route, joined with { vector }. */
export function drawDepth(points, off) {
    if (!points.vector) return [quiet(say("Connect a safety vector."))];
    if (points.vector.made && !points.vector.at) return [quiet(say("The vector is made by this workflow: a run shows where it acts."))];
    if (!points.blocks) return points.problem ? [element("p", { class: "ss-note ss-wrong", role: "alert" }, points.problem)] : [];
    const parts = [];
    if (points.problem) parts.push(element("p", { class: "ss-note ss-wrong", role: "alert" }, points.problem));
    const words = describe(points);
    const cells = points.states.map((state) => cell(true, nameOf(state), "ss-state"));
    if (!cells.length && points.blocks.length) cells.push(cell(false, say("prompt"), "ss-state"));
    for (const { list, count, steered, reads } of points.blocks) {
        const [writing, reading] = [new Set(steered), new Set(reads)];
        for (let index = 0; index < count; index++) {
            const place = say("{list} {index} of {count}", { list, index, count });
            const title = reading.has(index) ? say("{place}: what it reads", { place }) : place;
            const kind = `${index === 0 ? "ss-first" : ""}${reading.has(index) && !writing.has(index) ? " ss-reads" : ""}`;
            cells.push(cell(writing.has(index) || reading.has(index), title, kind));
        }
    }
    const classes = `ss-depth${off ? " ss-off" : ""}${points.problem ? " ss-misfit" : ""}`;
    parts.push(element("div", { class: classes, role: "img", "aria-label": words }, ...cells));
    const model = points.model ? ` · ${points.model.join(" or ")}` : "";
    parts.push(element("div", { class: "ss-legend" }, element("span", {}, words), element("span", { class: "ss-quiet" }, model.slice(3))));
    return parts;
}

/** The window as a bar from noise (left) to the finished picture (right). */
export function drawWindow(start, end) {
    const share = say("{start} to {end} % of denoising", { start: short(start * 100, 0), end: short(end * 100, 0) });
    const span = element("div", { class: "ss-span", style: `left: ${start * 100}%; width: ${Math.max(0, end - start) * 100}%` });
    return element(
        "div",
        { class: "ss-window", title: say("Denoising runs from left (noise) to right (picture).") },
        element("div", { class: "ss-rail", role: "img", "aria-label": say("Acts from {share}", { share }) }, span),
        element("div", { class: "ss-legend" }, element("span", {}, end > start ? share : say("The window is empty."))),
    );
}

function nameOf(state) {
    return NAMES[state]?.() ?? state;
}

function describe(points) {
    const parts = points.states.map((state) => say("the {state}", { state: nameOf(state) }));
    const [which, read] = [blocksOf(points, "steered"), blocksOf(points, "reads")];
    if (which) parts.push(which.words);
    if (read) parts.push(read.one ? say("what {blocks} reads", { blocks: read.words }) : say("what {blocks} read", { blocks: read.words }));
    if (!parts.length) return say("Steers nothing");
    return say("Steers {what}", { what: parts.reduce((one, other) => say("{one} and {other}", { one, other })) });
}

/** { words, one }: "block 2 of 4" or "3 of 4 blocks" of those in a field of the entries; null for none. */
function blocksOf(points, field) {
    const number = points.blocks.reduce((sum, entry) => sum + entry[field].length, 0);
    if (!number) return null;
    const only = points.blocks.find((entry) => entry[field].length === 1);
    const all = points.blocks.filter((entry) => field === "steered" || entry[field].length).reduce((sum, { count }) => sum + count, 0);
    const words =
        number === 1
            ? say("block {index} of {count}", { index: only[field][0], count: only.count })
            : say("{number} of {all} blocks", { number, all });
    return { words, one: number === 1 };
}

function cell(steered, title, kind) {
    return element("span", { class: `ss-cell ${kind}${steered ? " ss-steered" : ""}`, title });
}

function quiet(sentence) {
    return element("p", { class: "ss-quiet" }, sentence);
}
