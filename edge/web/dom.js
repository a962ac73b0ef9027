// Small pieces for building the page: elements, numbers, times.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties (class, text, on… handlers, attributes) and children. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set the text only where it differs, so that a screen reader and the selection are left alone. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The text of a part of an address; one that is cut or mistyped is no text, and names nothing. */
export function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

export function number(value, digits = 0) {
  return Number.isFinite(value) ? value.toFixed(digits) : "–";
}

export function seconds(value) {
  if (value < 60) return `${Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  return `${Math.floor(value / 3600)} h`;
}

export function clock(iso) {
  return new Date(iso).toLocaleTimeString([], { hour12: false });
}

export function words(key) {
  return key.replaceAll("_", " ");
}
