// Elements without markup in strings: names from a training job are text, whatever they hold.

/** An element with attributes (`class`, `data-…`, `on…` functions) and children (text is escaped by being text). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Fills a select with [value, text] pairs or {label, options} groups, and chooses one. */
export function fillSelect(select, options, chosen) {
  const option = ([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text);
  const nodes = options.map((entry) =>
    Array.isArray(entry) ? option(entry) : el("optgroup", { label: entry.label }, ...entry.options.map(option)),
  );
  select.replaceChildren(...nodes);
}

/** Writes a readout: strings are text, arrays are bold text. */
export function say(node, ...parts) {
  node.replaceChildren(...parts.map((part) => (Array.isArray(part) ? el("strong", {}, part.join("")) : part)));
}
