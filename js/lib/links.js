// The links of nodes. `input.link` and `output.links` are deprecated from frontend 1.58 on; what is used here, both have.

/** The number of the first input that passes a test; -1 for none. */
export function inputNumber(node, test) {
    return node.inputs?.findIndex(test) ?? -1;
}

/** The link into an input, by its number or -1 for none; null if nothing is connected. */
export function linkInto(node, slot) {
    if (slot < 0 || !node.graph || !node.inputs?.[slot]) return null;
    // a subgraph's own method of that name answers for its outputs, from inside
    return LiteGraph.LGraphNode.prototype.getInputLink.call(node, slot);
}

/** Whether an input, by its number, is connected. */
export function isConnected(node, slot) {
    return linkInto(node, slot) !== null;
}

/** The links out of an output, by its number. */
export function linksFrom(node, slot) {
    const leaves = (link) => String(link.origin_id) === String(node.id) && link.origin_slot === slot;
    return [...node.graph.links.values()].filter(leaves);
}
