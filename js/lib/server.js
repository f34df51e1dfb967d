// Questions to this pack's own routes on the server. They only read.

import { api } from "../../../scripts/api.js";

/** The card of a vector file, or { problem } if there is none. Null if the server cannot be asked. */
export function askCard(name) {
    return ask("/safety_steering/vector", { name });
}

/** Where a vector acts on a model, or { problem }. Null if the server cannot be asked. */
export function askHookPoints(name, hookPoints, model) {
    return ask("/safety_steering/hook_points", {
        name,
        hook_points: hookPoints,
        folder: model?.folder ?? "",
        model: model?.file ?? "",
    });
}

async function ask(route, question) {
    try {
        const response = await api.fetchApi(`${route}?${new URLSearchParams(question)}`);
        const answer = await response.json();
        return response.ok || response.status === 404 ? answer : null;
    } catch {
        return null; // an older server without the route, or none
    }
}

/** The address of a file that a node has announced. */
export function fileUrl(file) {
    return api.apiURL(`/view?${new URLSearchParams(file)}`);
}
