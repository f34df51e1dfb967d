// The pack's settings, in ComfyUI's settings dialog.

import { app } from "../../scripts/app.js";

const PANELS = "SafetySteering.Nodes.Panels";
const WARNINGS = "SafetySteering.Nodes.Warnings";
const AUTOPLAY = "SafetySteering.Compare.Autoplay";

app.registerExtension({
    name: "SafetySteering.Settings",
    settings: [
        {
            id: PANELS,
            category: ["Safety Steering", "Nodes", "Panels"],
            name: "Draw cards, sliders and charts on the nodes",
            tooltip: "Off: plain widgets only. Holds for nodes that are added or opened from then on.",
            type: "boolean",
            defaultValue: true,
        },
        {
            id: WARNINGS,
            category: ["Safety Steering", "Nodes", "Warnings"],
            name: "Show a message when steering did not act",
            tooltip: "The node says so in any case.",
            type: "boolean",
            defaultValue: true,
        },
        {
            id: AUTOPLAY,
            category: ["Safety Steering", "Compare", "Autoplay"],
            name: "Play compared videos by themselves",
            tooltip: "Off: Safety A/B waits for its play button.",
            type: "boolean",
            defaultValue: true,
        },
    ],
});

const read = (id) => app.extensionManager?.setting?.get(id) ?? true;

export const showPanels = () => read(PANELS);
export const showWarnings = () => read(WARNINGS);
export const autoplay = () => read(AUTOPLAY);
