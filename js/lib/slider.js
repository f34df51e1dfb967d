// A slider that keyboards and screen readers reach. No <input type=range>: the frontend leaves undo to focused inputs.

import { element, short } from "./dom.js";

const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };

/**
 * { root, show(value) }. onInput is called with each new value while it moves, onCommit once it rests. Values outside of
 * min and max can be shown, and stay until somebody moves the slider.
 */
export function makeSlider({ label, min, max, step, mark, onInput, onCommit }) {
    const fill = element("div", { class: "ss-fill" });
    const thumb = element("div", { class: "ss-thumb" });
    const tick = mark == null ? null : element("div", { class: "ss-tick", style: `left: ${share(mark) * 100}%` });
    const track = element("div", { class: "ss-track" }, fill, tick, thumb);
    const root = element(
        "div",
        {
            class: "ss-slider",
            role: "slider",
            tabindex: "0",
            "aria-label": label,
            "aria-valuemin": min,
            "aria-valuemax": max,
            pointerdown: grab,
            keydown: press,
        },
        track,
    );
    let value = min;
    let rest = null;

    function share(number) {
        return Math.min(1, Math.max(0, (number - min) / (max - min)));
    }

    function show(number) {
        value = number;
        fill.style.width = thumb.style.left = `${share(number) * 100}%`;
        root.setAttribute("aria-valuenow", short(number, 4));
        root.setAttribute("aria-valuetext", short(number, 4));
    }

    function move(number) {
        const next = Number(Math.min(max, Math.max(min, Math.round(number / step) * step)).toFixed(6));
        if (next === value) return;
        show(next);
        onInput(next);
    }

    function grab(event) {
        if (event.button !== 0) return;
        event.preventDefault();
        event.stopPropagation();
        root.focus({ preventScroll: true });
        root.setPointerCapture(event.pointerId);
        const follow = (at) => {
            const box = track.getBoundingClientRect();
            move(min + ((at.clientX - box.left) / box.width) * (max - min));
        };
        const release = () => {
            root.removeEventListener("pointermove", follow);
            onCommit();
        };
        root.addEventListener("pointermove", follow);
        root.addEventListener("lostpointercapture", release, { once: true });
        follow(event);
    }

    function press(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key in STEPS) move(value + STEPS[event.key] * step);
        else if (event.key === "Home") move(min);
        else if (event.key === "End") move(max);
        else return;
        event.preventDefault();
        event.stopPropagation(); // the canvas would move the node
        clearTimeout(rest);
        rest = setTimeout(onCommit, 400); // keys in a row are one step of undo
    }

    show(value);
    return { root, show };
}
