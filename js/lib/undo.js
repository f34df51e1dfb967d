// Steps of undo. A graph that undo or redo has loaded soon differs from the state it was loaded from: panels make nodes grow,
// inputs come in another order. The frontend takes that for a change at the next click or key, and forgets what can be
// redone. It is not the user's change, so it goes into the state.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const MODIFIERS = ["Control", "Meta", "Shift", "Alt"];
let restored = null; // the state that was loaded last
let begun = null; // the same, once the user may have begun to change it

for (const input of ["pointerdown", "keydown"]) window.addEventListener(input, settle, true);
api.addEventListener("graphChanged", () => {
    if (tracker()?._restoringState) restored = tracker().activeState;
});

/** Makes what was just changed one step of undo. */
export function noteChange() {
    tracker()?.captureCanvasState?.();
}

function settle({ key }) {
    const at = tracker();
    if (!at || at._restoringState) return;
    if (!at.redoQueue?.length && at.activeState !== restored) return; // the last step was not one of undo or redo
    const equal = at.constructor.graphEqual ?? (() => false);
    const now = JSON.parse(JSON.stringify((app.rootGraph ?? app.graph).serialize()));
    // sizes come late, and a user's change of a size is a step at once
    if (at.activeState === begun && !equal(withoutSizes(begun), withoutSizes(now))) return;
    const saved = equal(at.initialState, at.activeState);
    const first = at.activeState !== begun;
    restored = at.activeState = now;
    if (saved) at.initialState = now; // or the workflow would count as modified
    begun = first && MODIFIERS.includes(key) ? null : now;
}

function withoutSizes(state) {
    return JSON.parse(JSON.stringify(state, (key, value) => (key === "size" ? null : value)));
}

function tracker() {
    return app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
}
