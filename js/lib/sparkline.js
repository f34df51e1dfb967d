// What steering did in the last run: one sentence, and one small chart over the noise levels of the run, or over the
// texts that a text encoder has read.

import { element, shape, short } from "./dom.js";

const [WIDTH, HEIGHT, BARS] = [300, 54, 16];
const CACHED = "Nothing ran anew: this is the earlier run that the result in the cache comes from.";

/** The elements for a trace. */
export function drawTrace(trace) {
    const acted = trace.status === "acted";
    const quiet = ["nothing found", "off"].includes(trace.status);
    const kind = acted ? "ss-good" : quiet ? "ss-quiet" : "ss-note ss-caution";
    const parts = [element("p", { class: `ss-happened ${kind}`, role: "status" }, trace.summary)];
    if (trace.cached) parts.push(element("p", { class: "ss-quiet" }, CACHED));
    for (const warning of trace.warnings) parts.push(element("p", { class: "ss-note ss-caution" }, warning));
    if (acted) parts.push(chart(trace), legend());
    return parts;
}

function chart({ series, texts }) {
    const values = series.flatMap(({ before, after }) => [before, after]).filter((value) => value != null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const most = Math.max(...series.map(({ shift }) => shift ?? 0), 1e-9);
    const wide = WIDTH / series.length;
    const x = (index) => (index + 0.5) * wide;
    const y = (value) => 4 + (1 - (value - low) / (high - low || 1)) * (HEIGHT - BARS - 8);
    const parts = series.map(({ sigma, note, shift }, index) => {
        const acted = shift != null;
        const tall = acted ? Math.max(1, (BARS * shift) / most) : HEIGHT;
        const words = acted ? `shift ${short(100 * shift, 1)} %` : note || "left alone";
        const box = { x: index * wide + 0.5, y: HEIGHT - tall, width: Math.max(0.5, wide - 1), height: tall };
        const bar = shape("rect", { ...box, class: acted ? "ss-shift" : "ss-alone" });
        bar.append(shape("title", {}, `${texts ? "text" : "sigma"} ${short(sigma, 3)}: ${words}`));
        return bar;
    });
    for (const side of ["before", "after"]) {
        const points = series
            .map((entry, index) => (entry[side] == null ? null : `${x(index)},${y(entry[side])}`))
            .filter(Boolean);
        if (points.length > 1) parts.push(shape("polyline", { class: `ss-line ss-${side}`, points: points.join(" ") }));
    }
    return shape(
        "svg",
        {
            class: "ss-spark",
            viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
            preserveAspectRatio: "none",
            role: "img",
            "aria-label": `${texts ? "Texts that were read" : "Steps of the run from noise to picture"}; ${series.filter(({ shift }) => shift != null).length} steered`,
        },
        ...parts,
    );
}

function legend() {
    const entry = (kind, words) => element("span", { class: `ss-key ss-key-${kind}` }, words);
    return element(
        "div",
        { class: "ss-legend ss-quiet" },
        entry("before", "before"),
        entry("after", "after: up is safe"),
        entry("shift", "shift"),
        entry("alone", "left alone"),
    );
}
