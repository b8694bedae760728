// Follows a page by itself: fetches it again and exchanges the marked parts that changed. The server renders them once,
// escaped; here nothing is built from text.

import { get, showAway, Unreachable } from "./api.js";
import { ago } from "./words.js";

const SOON = 2000;
const LATER = 10000;
const known = new Map();

for (const part of document.querySelectorAll("[data-live]")) known.set(part.dataset.live, part.outerHTML);

/** Times become "5 s ago", the exact time stays as the title. */
function tellTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title ||= time.textContent;
    time.textContent = ago(Date.parse(time.dateTime));
  }
}

function exchange(fresh) {
  const part = document.querySelector(`[data-live="${CSS.escape(fresh.dataset.live)}"]`);
  const html = fresh.outerHTML;
  if (!part || known.get(fresh.dataset.live) === html) return false;
  known.set(fresh.dataset.live, html);
  for (const details of part.querySelectorAll("details[open][data-keep]")) {
    fresh.querySelector(`details[data-keep="${CSS.escape(details.dataset.keep)}"]`)?.setAttribute("open", "");
  }
  for (const box of part.querySelectorAll("input[type=checkbox][name]:checked")) {
    fresh.querySelector(`input[name="${CSS.escape(box.name)}"][value="${CSS.escape(box.value)}"]`)?.setAttribute("checked", "");
  }
  const focusables = "a, button, summary, input, select, [tabindex]";
  const focused = [...part.querySelectorAll(focusables)].indexOf(document.activeElement);
  const placed = document.importNode(fresh, true);
  part.replaceWith(placed);
  if (focused >= 0) placed.querySelectorAll(focusables)[focused]?.focus({ preventScroll: true });
  return true;
}

async function refresh() {
  const response = await get(window.location.pathname + window.location.search, "text/html");
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  let changed = false;
  for (const fresh of page.querySelectorAll("[data-live]")) changed = exchange(fresh) || changed;
  tellTimes();
  return changed;
}

/** Polls for ever: every 2 s while `isLive()`, else every 10 s, never in a hidden tab. Awaits `onChange` when parts changed. */
export function follow(isLive, onChange = async () => {}) {
  let timer = 0;
  let wait = SOON;
  const tick = async () => {
    window.clearTimeout(timer);
    if (document.hidden) return;
    try {
      if (await refresh()) await onChange();
      showAway(false);
      wait = isLive() ? SOON : LATER;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      showAway(true);
      wait = Math.min(LATER, Math.max(SOON, wait * 1.5));
    } finally {
      timer = window.setTimeout(tick, wait);
    }
  };
  timer = window.setTimeout(tick, SOON);
  document.addEventListener("visibilitychange", () => document.hidden || tick());
  window.setInterval(tellTimes, 1000);
  tellTimes();
}
