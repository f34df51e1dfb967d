// The depth strip: the model's blocks in a row, those that are steered in colour; and the window over denoising.

import { element, short } from "./dom.js";

const NAMES = { conditioning: "prompt", clip_vision: "start image", encoder: "text encoder" };

/** The elements for an answer of the hook_points route, joined with { vector }. */
export function drawDepth(points, off) {
    if (!points.vector) return [quiet("Connect a safety vector.")];
    if (points.vector.made && !points.vector.at) return [quiet("The vector is made by this workflow: a run shows where it acts.")];
    if (!points.blocks) return points.problem ? [element("p", { class: "ss-note ss-wrong", role: "alert" }, points.problem)] : [];
    const parts = [];
    if (points.problem) parts.push(element("p", { class: "ss-note ss-wrong", role: "alert" }, points.problem));
    const words = describe(points);
    const cells = points.states.map((state) => cell(true, NAMES[state] ?? state, "ss-state"));
    if (!cells.length && points.blocks.length) cells.push(cell(false, "prompt", "ss-state"));
    for (const { list, count, steered, reads } of points.blocks) {
        const [writing, reading] = [new Set(steered), new Set(reads)];
        for (let index = 0; index < count; index++) {
            const title = `${list} ${index} of ${count}${reading.has(index) ? ": what it reads" : ""}`;
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
    const share = `${short(start * 100, 0)} to ${short(end * 100, 0)} % of denoising`;
    const span = element("div", { class: "ss-span", style: `left: ${start * 100}%; width: ${Math.max(0, end - start) * 100}%` });
    return element(
        "div",
        { class: "ss-window", title: "Denoising runs from left (noise) to right (picture)." },
        element("div", { class: "ss-rail", role: "img", "aria-label": `Acts from ${share}` }, span),
        element("div", { class: "ss-legend" }, element("span", {}, end > start ? share : "The window is empty.")),
    );
}

function describe(points) {
    const states = points.states.map((state) => NAMES[state] ?? state);
    const [which, read] = [blocksOf(points, "steered"), blocksOf(points, "reads")];
    const verb = read.startsWith("block") ? "reads" : "read";
    const parts = [...states.map((state) => `the ${state}`), ...(which ? [which] : []), ...(read ? [`what ${read} ${verb}`] : [])];
    return parts.length ? `Steers ${parts.join(" and ")}` : "Steers nothing";
}

/** "block 2 of 4" or "3 of 4 blocks" of those in a field of the entries; an empty text for none. */
function blocksOf(points, field) {
    const number = points.blocks.reduce((sum, entry) => sum + entry[field].length, 0);
    if (!number) return "";
    const one = points.blocks.find((entry) => entry[field].length === 1);
    const all = points.blocks.filter((entry) => field === "steered" || entry[field].length).reduce((sum, { count }) => sum + count, 0);
    return number === 1 ? `block ${one[field][0]} of ${one.count}` : `${number} of ${all} blocks`;
}

function cell(steered, title, kind) {
    return element("span", { class: `ss-cell ${kind}${steered ? " ss-steered" : ""}`, title });
}

function quiet(sentence) {
    return element("p", { class: "ss-quiet" }, sentence);
}
