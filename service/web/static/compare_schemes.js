// By which schemes both runs were initialized, and the matrices where these differ.

import { pairName } from "./compare_depth.js";
import { el } from "./dom.js";
import { formatCount, formatNumber } from "./words.js";

const MOST = 30;

/** Shows what an answer with schemes says; it is the same for every step. */
export function showSchemes(answer) {
  const section = document.getElementById("schemes");
  section.hidden = !answer.schemes.length;
  if (section.hidden) return;
  const differ = answer.schemes.filter((pair) => !pair.is_same);
  const [a, b] = answer.runs.map((run) => (run.is_trained ? "trained before" : (run.scheme ?? "mixed").replaceAll("_", " ")));
  const of = `${formatCount(differ.length)} of ${formatCount(answer.schemes.length)} matrices`;
  const most = differ.length > MOST ? `; the first ${MOST}` : "";
  document.getElementById("schemes-said").textContent = `A: ${a} · B: ${b} · ${differ.length ? `${of} differ${most}` : "no matrix differs"}`;
  document.getElementById("schemes-differ").hidden = !differ.length;
  document.getElementById("schemes-rows").replaceChildren(...differ.slice(0, MOST).map(row));
}

function row(pair) {
  return el("tr", {}, el("td", {}, el("code", {}, pairName(pair))), cell(pair.a), cell(pair.b));
}

function cell(scheme) {
  const formula = scheme.formula ? ` ${scheme.formula}` : "";
  return el("td", {}, scheme.name.replaceAll("_", " "), el("span", { class: "quiet" }, `${formula} · std ${formatNumber(scheme.std)}`));
}
