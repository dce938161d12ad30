// The only way text gets onto the page: as text. Nodes are kept and changed only where something changed, so a
// selection, the focus and what was unfolded survive every update.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a string child becomes a text node. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Words with commands between backquotes: what is between two of them becomes code. */
export function setWords(node, words) {
  if (node.dataset.words === words) return;
  node.dataset.words = words;
  node.replaceChildren(...words.split("`").map((part, index) => (index % 2 === 0 ? part : element("code", {}, part))));
}

/** `undefined` and `null` take the attribute away. */
export function setAttribute(node, name, value) {
  if (value === undefined || value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/**
 * Makes `parent`'s children those of `items`: one node per key, made once by `make`, brought up to date by `update`,
 * in the order of the items.
 */
export function keep(parent, items, { key, make, update }) {
  const before = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    const node = before.get(name) ?? make(item);
    before.delete(name);
    node.dataset.key = name;
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const node of before.values()) node.remove();
}
