// What the page shows, kept in the address: a link shows somebody else the same.

const NAMES = ["attempt", "step", "kind", "statistic", "tensor", "of"];
const listeners = new Set();

/** The state as plain strings; what is not in the address is undefined. */
export function read() {
  const query = new URLSearchParams(window.location.search);
  return Object.fromEntries(NAMES.filter((name) => query.has(name)).map((name) => [name, query.get(name)]));
}

/** Changes some of the state; null removes. Listeners get the names that changed. */
export function change(patch) {
  const query = new URLSearchParams(window.location.search);
  const changed = [];
  for (const [name, value] of Object.entries(patch)) {
    const before = query.get(name);
    const after = value === null || value === undefined ? null : String(value);
    if (before === after) continue;
    if (after === null) query.delete(name);
    else query.set(name, after);
    changed.push(name);
  }
  if (!changed.length) return;
  const text = query.toString();
  window.history.replaceState(null, "", text ? `?${text}` : window.location.pathname);
  for (const listener of listeners) listener(changed);
}

/** Calls back after each change. */
export function onChange(listener) {
  listeners.add(listener);
}
