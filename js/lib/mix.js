// The mix string `violence=1, sexual=0.5` and the presets, by the same rule as safety_steering/mix.py. The string is the
// truth: what it names has the weight it gives; the rest has what the vector suggests, times the preset.

export const PRESETS = { off: 0, light: 0.5, standard: 1, strict: 1.5, custom: 0 };
export const CUSTOM = "custom";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Name -> weight in the order written, or null if the string does not parse. */
export function parseMix(text) {
    const weights = new Map();
    for (const part of text.split(",").map((piece) => piece.trim())) {
        if (!part) continue;
        const at = part.indexOf("=");
        const [name, number] = [part.slice(0, Math.max(at, 0)).trim(), part.slice(at + 1).trim()];
        if (!name || !NUMBER.test(number) || weights.has(name) || !Number.isFinite(Number(number))) return null;
        weights.set(name, Number(number));
    }
    return weights;
}

export function formatMix(weights) {
    return [...weights].map(([name, weight]) => `${name}=${weight}`).join(", ");
}

/** What a preset and a parsed mix come to: { known, unknown }, both name -> weight. suggested: category -> weight. */
export function resolveMix(preset, written, suggested) {
    const weigh = (name) => written.get(name) ?? round((PRESETS[preset] ?? 0) * suggested.get(name));
    const known = new Map([...suggested.keys()].map((name) => [name, weigh(name)]));
    const unknown = new Map([...written].filter(([name]) => !known.has(name)));
    return { known, unknown };
}

/** A vector's categories with the weights that its maker suggests, those that he leaves out last. */
export function suggestedMix(categories, suggestion) {
    const named = Object.keys(suggestion).length > 0;
    const weighed = categories.map((name) => [name, named ? (suggestion[name] ?? 0) : 1]);
    return new Map([...weighed.filter(([, weight]) => weight), ...weighed.filter(([, weight]) => !weight)]);
}

/** The same, read back from the weights that a run has come to. */
export function suggestedByRun(weights, preset, written) {
    const factor = PRESETS[preset];
    const base = ([name, weight]) => [name, factor && !written?.has(name) ? weight / factor : 1];
    return new Map(Object.entries(weights).map(base));
}

function round(number) {
    return Number(number.toFixed(6));
}
