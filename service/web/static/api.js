// The read API, seen from a page. A collector that is away is a state of the page, not an error in its console.

export class Unreachable extends Error {}

const away = document.getElementById("away");

/** Shows or hides the word that the collector does not answer. */
export function showAway(isAway) {
  if (away && away.hidden === isAway) away.hidden = !isAway;
}

/** Fetches a path of this service; `Unreachable` while there is no good answer, a new login if the old one ended. */
export async function get(path, accept) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: accept }, cache: "no-store" });
  } catch {
    throw new Unreachable(path);
  }
  if (response.status === 401 || new URL(response.url).pathname === "/login") {
    window.location.assign(`/login?next=${encodeURIComponent(window.location.pathname + window.location.search)}`);
    throw new Unreachable(path);
  }
  if (response.status >= 500 || response.status === 429) throw new Unreachable(path);
  return response;
}

/** JSON of the read API. `parameters` may hold arrays; undefined and null are left out. */
export async function getJson(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") query.append(name, one);
    }
  }
  const text = query.toString();
  const response = await get(`/api/v1${path}${text ? `?${text}` : ""}`, "application/json");
  if (!response.ok) return null;
  try {
    return await response.json();
  } catch {
    throw new Unreachable(path);
  }
}

const WORDS = { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity };

/** A number of the API: non-finite ones travel as words, absent ones are null. */
export function toNumber(value) {
  return typeof value === "string" ? (WORDS[value] ?? null) : value;
}
