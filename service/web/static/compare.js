// The page of a comparison: one answer of the read API, drawn by depth, summed up by kind and sorted by size.

import { getJson, showAway, toNumber, Unreachable } from "./api.js";
import { Depth } from "./compare_depth.js";
import { Differences } from "./compare_table.js";
import { SharedScalars } from "./compare_scalars.js";
import { showSchemes } from "./compare_schemes.js";
import { follow } from "./live.js";
import { change, onChange, read } from "./state.js";
import { formatCount } from "./words.js";

const root = document.getElementById("compare");
const sides = () => document.querySelector('[data-live="sides"]');

const pair = {
  ids: [root.dataset.runA, root.dataset.runB],
  steps: [],
  answer: null,

  /** Steps that either run has sampled, ascending. */
  async load() {
    const runs = await Promise.all(this.ids.map((id) => getJson(`/runs/${id}`)));
    if (runs.some((run) => !run)) return;
    this.steps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
  },

  isLive: () => [...sides().querySelectorAll("[data-status]")].some((side) => ["live", "stalled"].includes(side.dataset.status)),
};

const depth = new Depth(pair);
const table = new Differences();
const scalars = new SharedScalars(pair);
const slider = document.getElementById("step");
const first = document.getElementById("step-first");
slider.addEventListener("input", () => change({ step: pair.steps[slider.value] ?? null }));
first.addEventListener("click", () => change({ step: null }));
let turn = 0;
let hasSchemes = false;

async function compare() {
  const mine = ++turn;
  showStep();
  const answer = await getJson("/compare", { run: pair.ids, step: read().step, limit: 5000, schemes: !hasSchemes });
  if (mine !== turn || !answer) return;
  answer.differences = answer.differences.map(parsed);
  for (const kind of answer.kinds) for (const name of ["first", "largest"]) kind[name] &&= parsed(kind[name]);
  if (answer.schemes.length) showSchemes(answer);
  hasSchemes ||= answer.schemes.length > 0;
  pair.answer = answer;
  showSteps(answer.runs);
  depth.draw();
  table.draw(answer);
}

/** Numbers of a difference as numbers; `size` is what it is sorted by. */
function parsed(difference) {
  const octaves = toNumber(difference.octaves);
  const isBroken = octaves === null && difference.parts;
  const record = (one) => one && { ...one, rms: toNumber(one.rms) };
  return { ...difference, octaves, a: record(difference.a), b: record(difference.b), size: isBroken ? Infinity : octaves === null ? -1 : Math.abs(octaves) };
}

function showStep() {
  const wanted = read().step;
  let index = 0;
  if (wanted !== undefined) while (index < pair.steps.length - 1 && pair.steps[index + 1] <= Number(wanted)) index += 1;
  slider.max = String(Math.max(0, pair.steps.length - 1));
  slider.value = String(index);
  first.setAttribute("aria-pressed", String(wanted === undefined));
}

function showSteps(runs) {
  const [a, b] = runs.map((run) => (run.step === null ? "–" : formatCount(run.step)));
  const text = a === b ? a : `${a} and ${b}`;
  document.getElementById("step-now").textContent = text;
  slider.setAttribute("aria-valuetext", `step ${text}`);
}

async function refresh() {
  document.getElementById("charts").hidden = sides().dataset.hasRows !== "true";
  if (sides().dataset.hasRows !== "true") return;
  await pair.load();
  await Promise.all([compare(), scalars.refresh()]);
}

/** Runs a refresh that nobody waits for; a collector that is away is shown, anything else is a bug and stays one. */
async function attemptTo(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    showAway(true);
  }
}

onChange((names) => {
  if (names.includes("step")) attemptTo(compare);
  if (names.includes("kind") && pair.answer) {
    depth.draw();
    table.mark();
  }
});

attemptTo(refresh);
follow(() => pair.isLive(), refresh);
