// Builds elements in a line, and brings the stylesheet in once.

const SVG = "http://www.w3.org/2000/svg";

document.head.append(element("link", { rel: "stylesheet", href: new URL("../safety_steering.css", import.meta.url).href }));

/** An HTML element. Attributes that are null are left out; functions become event listeners. */
export function element(tag, attributes = {}, ...children) {
    return furnish(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function shape(tag, attributes = {}, ...children) {
    return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === "function") made.addEventListener(name, value);
        else if (value != null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child != null));
    return made;
}

/** A number for people: few digits, no trailing zeros. */
export function short(number, digits = 2) {
    return String(Number(number.toFixed(digits)));
}
