// Where two runs part, by kind, and their differences from the largest to the smallest.

import { octavesText, pairName } from "./compare_depth.js";
import { el } from "./dom.js";
import { change, read } from "./state.js";
import { formatCount, formatNumber, kindName } from "./words.js";

const SHORT = 30;
const FULL_BAR = 8;

export class Differences {
  constructor() {
    this.answer = null;
    this.isLong = false;
    this.body = document.getElementById("differences");
    this.more = document.getElementById("more");
    this.more.addEventListener("click", () => {
      this.isLong = !this.isLong;
      this.list();
    });
  }

  draw(answer) {
    this.answer = answer;
    this.sorted = answer.differences.filter((row) => row.size >= 0).sort((one, other) => other.size - one.size);
    document.getElementById("kinds").replaceChildren(...answer.kinds.map(kindRow));
    this.tellUnmatched();
    this.conclude();
    this.list();
  }

  list() {
    const shown = this.isLong ? this.sorted : this.sorted.slice(0, SHORT);
    const rows = shown.map((row) => differenceRow(row));
    this.body.replaceChildren(...(rows.length ? rows : [el("tr", {}, el("td", { colspan: 6, class: "quiet" }, "Nothing was recorded in both runs."))]));
    this.more.hidden = this.sorted.length <= SHORT;
    this.more.textContent = this.isLong ? "Show the largest" : `Show all ${formatCount(this.sorted.length)}`;
    this.mark();
  }

  /** Marks the rows of the kind that is drawn by depth. */
  mark() {
    for (const row of this.body.children) row.classList.toggle("wanted", row.dataset.kind !== undefined && row.dataset.kind === read().kind);
  }

  tellUnmatched() {
    const { only_a: onlyA, only_b: onlyB } = this.answer;
    const list = (paths) => `${paths.slice(0, 8).map((path) => path || "(model)").join(", ")}${paths.length > 8 ? ` and ${paths.length - 8} more` : ""}`;
    const parts = [onlyA.length ? `Only in A: ${list(onlyA)}.` : "", onlyB.length ? `Only in B: ${list(onlyB)}.` : ""];
    document.getElementById("unmatched").textContent = parts.filter(Boolean).join(" ");
  }

  conclude() {
    const { answer } = this;
    const box = document.getElementById("conclusion");
    const firsts = answer.kinds.filter((kind) => kind.first);
    box.classList.toggle("equal", answer.is_equal && answer.differences.length > 0);
    if (!answer.differences.length) box.textContent = "There is no step that both have recorded.";
    else if (answer.is_equal) box.textContent = `Equal within ${answer.threshold} octaves of rms and the luck of seeds.`;
    else if (!firsts.length) box.textContent = "The models differ: layers have no counterpart.";
    else box.textContent = `They part: ${firsts.map((kind) => `${kindName(kind.kind).toLowerCase()} from ${pairName(kind.first)}`).join("; ")}.`;
  }
}

function kindRow(kind) {
  const place = (row) => (row ? [el("code", {}, pairName(row)), ` ${octavesText(row)}`] : ["nowhere"]);
  const median = kind.median_octaves === null ? "–" : octavesText({ octaves: kind.median_octaves });
  return el(
    "tr",
    {},
    el("td", {}, kindName(kind.kind)),
    el("td", { class: `right${kind.parted ? " parts" : ""}` }, `${formatCount(kind.parted)} of ${formatCount(kind.compared)}`),
    el("td", { class: "right" }, median),
    el("td", {}, ...place(kind.first)),
    el("td", {}, ...place(kind.largest)),
  );
}

function differenceRow(row) {
  const value = (record) => el("td", { class: "right" }, record ? formatNumber(record.rms) : "–");
  const length = Math.min(1, row.size / FULL_BAR) * 100;
  const show = () => {
    change({ kind: row.kind });
    document.getElementById("h-depth").scrollIntoView({ behavior: "smooth" });
  };
  return el(
    "tr",
    { class: row.parts ? "parts" : null, "data-kind": row.kind },
    el("td", {}, el("button", { type: "button", class: "layer", title: "Show this kind by depth", onclick: show }, pairName(row))),
    el("td", {}, kindName(row.kind)),
    el("td", { class: "right octaves" }, octavesText(row)),
    value(row.a),
    value(row.b),
    el("td", { "aria-hidden": "true" }, bar(row, length)),
  );
}

function bar(row, length) {
  const node = el("span", { class: `bar ${row.octaves >= 0 ? "up" : "down"}` });
  node.style.width = `${length}%`;
  return node;
}
