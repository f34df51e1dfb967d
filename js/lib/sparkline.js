// What steering did in the last run: one sentence, and one small chart over the noise levels of the run, or over the
// texts that a text encoder has read.

import { element, shape, short } from "./dom.js";
import { say } from "./words.js";

const [WIDTH, HEIGHT, BARS] = [300, 54, 16];

/** The elements for a trace. */
export function drawTrace(trace) {
    const acted = trace.status === "acted";
    const quiet = ["nothing found", "off"].includes(trace.status);
    const kind = acted ? "ss-good" : quiet ? "ss-quiet" : "ss-note ss-caution";
    const parts = [element("p", { class: `ss-happened ${kind}`, role: "status" }, trace.summary)];
    const cached = say("Nothing ran anew: this is the earlier run that the result in the cache comes from.");
    if (trace.cached) parts.push(element("p", { class: "ss-quiet" }, cached));
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
        const words = acted ? say("shift {percent} %", { percent: short(100 * shift, 1) }) : note || say("left alone");
        const box = { x: index * wide + 0.5, y: HEIGHT - tall, width: Math.max(0.5, wide - 1), height: tall };
        const bar = shape("rect", { ...box, class: acted ? "ss-shift" : "ss-alone" });
        bar.append(shape("title", {}, `${texts ? say("text") : "sigma"} ${short(sigma, 3)}: ${words}`));
        return bar;
    });
    for (const side of ["before", "after"]) {
        const points = series
            .map((entry, index) => (entry[side] == null ? null : `${x(index)},${y(entry[side])}`))
            .filter(Boolean);
        if (points.length > 1) parts.push(shape("polyline", { class: `ss-line ss-${side}`, points: points.join(" ") }));
    }
    const count = series.filter(({ shift }) => shift != null).length;
    return shape(
        "svg",
        {
            class: "ss-spark",
            viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
            preserveAspectRatio: "none",
            role: "img",
            "aria-label": texts
                ? say("Texts that were read; {count} steered", { count })
                : say("Steps of the run from noise to picture; {count} steered", { count }),
        },
        ...parts,
    );
}

function legend() {
    const entry = (kind, words) => element("span", { class: `ss-key ss-key-${kind}` }, words);
    return element(
        "div",
        { class: "ss-legend ss-quiet" },
        entry("before", say("before")),
        entry("after", say("after: up is safe")),
        entry("shift", say("shift")),
        entry("alone", say("left alone")),
    );
}
