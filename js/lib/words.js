// The panels' words in ComfyUI's language. The English sentence is the key, and what is shown where a locale lacks it.
// tools/locales.py finds the sentences by their calls: say("...") with the whole sentence in one pair of quotes.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const SECTION = "safetySteering"; // in locales/<language>/main.json
let words = {};

app.registerExtension({
    name: "SafetySteering.Words",
    /** Before any node is made. A page keeps its language: the frontend, too, tells people to reload after a change. */
    async init() {
        const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
        if (language === "en") return;
        try {
            words = (await api.getCustomNodesI18n())[language]?.[SECTION] ?? {};
        } catch {
            // the panels stay English
        }
    },
});

/** A sentence in the frontend's language. {name} in it is replaced by the value of that name. */
export function say(sentence, values = {}) {
    return (words[sentence] ?? sentence).replace(/\{(\w+)\}/g, (hole, name) => values[name] ?? hole);
}
