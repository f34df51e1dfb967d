// Apply Safety Steering: widgets that `settings` leaves unread are hidden, and a node that was saved before there was
// this choice opens as manual, with its own values.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { chain, soon, widgetOf } from "./lib/panel.js";
import { APPLY } from "./lib/upstream.js";

const [RECOMMENDED, MANUAL] = ["recommended", "manual"];
const READ_BY_MANUAL = /^(strength|intervention|norm|window_start|window_end|branch|gate(\..+)?|hook_points)$/;

app.registerExtension({
    name: "SafetySteering.ApplySettings",
    setup() {
        api.addEventListener("graphChanged", () => {
            for (const node of app.canvas?.graph?.nodes ?? []) if (node.comfyClass === APPLY) hideUnread(node);
        });
    },
    nodeCreated(node) {
        if (node.comfyClass !== APPLY) return;
        const { configure } = node;
        let fresh = true; // not from a file: its size is ours
        node.configure = function (saved) {
            fresh = false;
            return configure.call(this, withSettings(saved));
        };
        chain(node, "onConfigure", () => hideUnread(node));
        chain(widgetOf(node, "settings"), "callback", () => {
            hideUnread(node);
            soon(() => fitHeight(node));
        });
        soon(() => {
            hideUnread(node);
            if (fresh) fitHeight(node);
        });
    },
});

/** The saved node, as manual if it knows no `settings`. */
function withSettings(saved) {
    const values = saved.widgets_values;
    if (!Array.isArray(values) || !values.length || [RECOMMENDED, MANUAL].includes(values[0])) return saved;
    return { ...saved, widgets_values: [MANUAL, ...values] };
}

function hideUnread(node) {
    const hidden = widgetOf(node, "settings")?.value === RECOMMENDED;
    for (const widget of node.widgets ?? []) {
        if (!READ_BY_MANUAL.test(widget.name) || Boolean(widget.hidden) === hidden) continue;
        widget.hidden = hidden;
        // the canvas reads the widget; Vue nodes watch the options of its state, a proxy of the widget's own
        (widget._state?.options ?? widget.options).hidden = hidden;
    }
}

function fitHeight(node) {
    node.setSize([node.size[0], node.computeSize()[1]]);
}
