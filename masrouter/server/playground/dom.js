/* Elements from names and plain text. Nothing here reads markup: text stays text. */

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element: attributes by name, children that are nodes or text; null and false are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick" || name === "onkeydown") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

/** Cut the text of an SVG <text> so that it is at most `width` wide; true where it was cut. */
export function fit(text, width) {
  const whole = text.textContent;
  if (text.getComputedTextLength() <= width) return false;
  let low = 0;
  let high = whole.length;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    text.textContent = `${whole.slice(0, middle).trimEnd()}…`;
    if (text.getComputedTextLength() <= width) low = middle;
    else high = middle - 1;
  }
  text.textContent = `${whole.slice(0, low).trimEnd()}…`;
  return true;
}

/** Call `draw(width)` now and whenever the element's width changes; returns a way to redraw. */
export function drawnToWidth(element, draw) {
  let last = 0;
  const redraw = () => {
    const width = Math.floor(element.clientWidth);
    if (width > 0) draw(width);
    last = width;
  };
  new ResizeObserver(() => {
    if (Math.floor(element.clientWidth) !== last) redraw();
  }).observe(element);
  return redraw;
}
