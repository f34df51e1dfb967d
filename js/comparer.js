// Safety A/B: a slider that wipes between the unsteered and the steered side, for pictures and videos.

import { app } from "../../scripts/app.js";
import { element } from "./lib/dom.js";
import { addPanel, chain, lastOutput } from "./lib/panel.js";
import { fileUrl } from "./lib/server.js";
import { makeSlider } from "./lib/slider.js";
import { say } from "./lib/words.js";
import { autoplay, showPanels } from "./settings.js";

const NODE = "SafetySteering_SafetyAB";

app.registerExtension({
    name: "SafetySteering.Comparer",
    nodeCreated(node) {
        if (node.comfyClass === NODE && showPanels()) addComparer(node);
    },
});

function addComparer(node) {
    // core would show the same two pictures below one another
    node.hideOutputImages = true;
    node.onDrawBackground = () => {};
    let shown = "";
    const show = (output) => {
        const [unsteered, steered] = output?.images ?? [];
        const key = JSON.stringify([unsteered, steered]);
        if (!steered || key === shown) return;
        shown = key;
        const film = output.safety_ab?.[0]?.film;
        const [report, difference] = output.text ?? [];
        panel.body.replaceChildren(compare(unsteered, steered, film), told(difference), caption(report));
    };
    const panel = addPanel(node, "Unsteered and steered", () => show(lastOutput(node)));
    panel.body.append(element("p", { class: "ss-quiet" }, say("Run the workflow to compare.")));
    chain(node, "onExecuted", show);
}

function compare(unsteered, steered, film) {
    const stage = element("div", { class: "ss-stage" });
    const divider = element("div", { class: "ss-divider" });
    const show = (share) => stage.style.setProperty("--ss-share", `${share}%`);
    const slider = makeSlider({
        label: say("Steered from here to the right, unsteered to the left, in percent"),
        min: 0,
        max: 100,
        step: 1,
        onInput: show,
        onCommit: () => {},
    });
    // whatever its shape, a video makes the node no taller than the style sheet allows
    const shaped = (width, height) => stage.style.setProperty("--ss-ratio", width / height);
    const pictures = () => [picture(steered, say("Steered"), "", shaped), picture(unsteered, say("Unsteered"), "ss-left")];
    const tags = [
        element("span", { class: "ss-tag ss-tag-left" }, say("unsteered")),
        element("span", { class: "ss-tag ss-tag-right" }, say("steered")),
    ];
    if (film) {
        const screens = [screen(say("Steered")), screen(say("Unsteered"), "ss-left")];
        stage.append(...screens, divider, ...tags);
        const button = play(film, screens, shaped, () => stage.replaceChildren(...pictures(), divider, ...tags));
        stage.append(button);
    } else stage.append(...pictures(), divider, ...tags);
    stage.addEventListener("pointermove", (event) => {
        if (event.pointerType !== "mouse" || event.buttons) return;
        const box = stage.getBoundingClientRect();
        const share = Math.round((100 * (event.clientX - box.left)) / box.width);
        slider.show(share);
        show(share);
    });
    slider.show(50);
    show(50);
    return element("div", { class: "ss-compare" }, stage, slider.root);
}

function picture(file, alt, kind = "", shaped = () => {}) {
    const load = ({ target }) => shaped(target.naturalWidth, target.naturalHeight);
    return element("img", { class: `ss-side ${kind}`, src: fileUrl(file), alt, draggable: "false", load });
}

function screen(label, kind = "") {
    return element("canvas", { class: `ss-side ${kind}`, role: "img", "aria-label": label });
}

/** Plays the film, its right half on the first canvas and its left half on the second. Returns the play button. */
function play(film, [right, left], shaped, failed) {
    const video = element("video", { src: fileUrl(film), preload: "auto", loop: "", error: failed });
    [video.muted, video.playsInline] = [true, true];
    const paint = () => {
        const [width, height] = [video.videoWidth / 2, video.videoHeight];
        shaped(width, height);
        for (const [canvas, from] of [
            [left, 0],
            [right, width],
        ]) {
            if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
            canvas.getContext("2d").drawImage(video, from, 0, width, height, 0, 0, width, height);
        }
    };
    const loop = () => {
        if (video.paused || !left.isConnected) return video.pause();
        paint();
        requestAnimationFrame(loop);
    };
    const button = element("button", { type: "button", class: "ss-play", click: toggle });
    const mark = () => {
        button.textContent = video.paused ? "▶" : "❚❚";
        button.setAttribute("aria-label", video.paused ? say("Play") : say("Pause"));
    };
    function toggle(event) {
        event.stopPropagation();
        if (video.paused) video.play();
        else video.pause();
    }
    video.addEventListener("play", () => requestAnimationFrame(loop));
    for (const event of ["play", "pause"]) video.addEventListener(event, mark);
    for (const event of ["loadeddata", "seeked"]) video.addEventListener(event, paint);
    mark();
    if (autoplay()) video.play().catch(() => {});
    return button;
}

/** How different the sides are, beside the divider. */
function told(difference) {
    const kind = difference?.startsWith("Warning") ? "ss-note ss-caution" : "ss-difference";
    return difference ? element("p", { class: kind, role: "status" }, difference) : "";
}

function caption(report) {
    return report ? element("p", { class: "ss-quiet" }, report) : "";
}
