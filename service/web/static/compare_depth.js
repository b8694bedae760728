// Both runs by depth for one kind of tensor: rms over each other, and the octaves between them with the band of luck.

import { el, fillSelect, say } from "./dom.js";
import { padded, Plot } from "./plot.js";
import { change, read } from "./state.js";
import { formatCount, formatNumber, KINDS, log2, powerOfTwo, tensorName } from "./words.js";

const LEAST_OCTAVES = 4;
const LUCKS = 2;

export class Depth {
  constructor(pair) {
    this.pair = pair;
    this.rows = [];
    this.readout = document.getElementById("depth-readout");
    this.select = document.getElementById("kind");
    this.select.addEventListener("change", () => change({ kind: this.select.value }));
    const box = document.getElementById("depth");
    this.over = this.panel(box, ["rms", key("forward", "A"), key("dashed", "B")], {
      label: "Root mean square by depth of both runs, on a scale of powers of two.",
      series: [{ stroke: "forward", points: true, spanGaps: true }, { stroke: "backward", points: true, spanGaps: true, dash: [6, 4] }],
      yFormat: powerOfTwo,
      yRange: (low, high) => padded(low, high, LEAST_OCTAVES),
    });
    this.between = this.panel(box, ["Octaves from A to B"], {
      label: "Octaves between the runs by depth.",
      // The band is boxes (marks); the first two lines just make room for them.
      series: [{ stroke: null, width: 0 }, { stroke: null, width: 0 }, { stroke: "ink", points: true }],
      yFormat: (value) => (value > 0 ? `+${value}` : String(value).replace("-", "−")),
      yRange: (low, high) => padded(low, high, 2),
    });
  }

  panel(parent, title, options) {
    const box = el("div", { class: "plot" });
    const note = el("p", { class: "note" });
    const plot = new Plot(box, { height: 240, integers: true, sync: "depth", onHover: (index) => this.tell(index), ...options });
    parent.append(el("div", { class: "panel" }, el("h3", {}, ...title), box, note));
    return { plot, note };
  }

  /** The kind of the address, else outputs; one that was recorded. */
  kind() {
    const kinds = this.pair.answer.kinds.map((summary) => summary.kind);
    const wanted = [read().kind, "activation"].find((kind) => kinds.includes(kind));
    return wanted ?? kinds[0] ?? "activation";
  }

  draw() {
    const { answer } = this.pair;
    const kind = this.kind();
    const recorded = KINDS.filter(([name]) => answer.kinds.some((summary) => summary.kind === name));
    fillSelect(this.select, recorded.length ? recorded : KINDS, kind);
    this.rows = answer.differences.filter((difference) => difference.kind === kind);
    const at = (test) => this.rows.flatMap((row, i) => (test(row) ? [i + 1] : []));
    const x = this.rows.map((_, i) => i + 1);
    const broken = (row) => row.a?.nonfinite_count > 0 || row.b?.nonfinite_count > 0;
    const first = answer.kinds.find((summary) => summary.kind === kind)?.first;
    const lines = first ? at((row) => row.layer === first.layer && row.name === first.name).map((line) => ({ x: line, color: "critical" })) : [];
    const crosses = at(broken);
    const zeros = at((row) => row.a?.rms === 0 || row.b?.rms === 0);
    this.over.plot.show([x, ...["a", "b"].map((side) => this.rows.map((row) => log2(row[side]?.rms)))], { crosses, zeros, lines });
    const room = this.rows.map((row) => answer.threshold + LUCKS * row.luck);
    const octaves = this.rows.map((row) => (Number.isFinite(row.octaves) ? row.octaves : null));
    const boxes = room.map((high, i) => ({ x: i + 1, low: -high, high }));
    this.between.plot.show([x, room, room.map((value) => -value), octaves], { crosses, boxes, zeros: at((row) => Math.abs(row.octaves) === Infinity), lines });
    this.over.note.textContent = this.note(crosses, zeros, first);
    this.between.note.textContent = "band: tolerance, and twice what two seeds differ by";
    this.tell(null);
  }

  note(crosses, zeros, first) {
    const parts = [];
    if (!this.rows.length) parts.push("Nothing recorded in both runs at this step.");
    if (crosses.length) parts.push(`× NaN or Inf in ${crosses.length} layer${crosses.length > 1 ? "s" : ""}`);
    if (zeros.length) parts.push(`○ exactly zero in ${zeros.length}`);
    if (first) parts.push("dashed line: where they part first");
    return parts.join(" · ");
  }

  tell(index) {
    const row = index === null || index === undefined ? null : this.rows[index];
    if (!row) {
      say(this.readout, this.rows.length ? `${formatCount(this.rows.length)} tensors, first layer on the left. Point at one for its numbers.` : "");
      return;
    }
    const value = (record) => (record ? formatNumber(record.rms) : "–");
    say(this.readout, `${index + 1}. `, [pairName(row)], " · A ", [value(row.a)], " · B ", [value(row.b)], ` · ${octavesText(row)} octaves${row.parts ? ", beyond tolerance and luck" : ""}`);
  }
}

function key(swatch, text) {
  return el("span", { class: "key" }, el("span", { class: `swatch ${swatch}` }), text);
}

/** Path and name of a pair; both paths where they differ. */
export function pairName(row) {
  const name = tensorName(row);
  return row.module_path === row.module_path_b ? name : `${name} = ${tensorName({ module_path: row.module_path_b, name: row.name_b })}`;
}

/** +1.25, or a word where there is no number. */
export function octavesText(row) {
  if (row.octaves === null) return row.parts ? "not finite in one" : "–";
  if (!Number.isFinite(row.octaves)) return row.octaves > 0 ? "from zero" : "to zero";
  const text = Math.abs(row.octaves).toFixed(2);
  return text === "0.00" ? "0" : `${row.octaves > 0 ? "+" : "−"}${text}`;
}
