// Forward and backward rms by depth at one step, on a scale of octaves: measured, predicted from the weights, and the
// band of a healthy start.

import { getJson, toNumber } from "./api.js";
import { el, say } from "./dom.js";
import { padded, Plot } from "./plot.js";
import { change, read } from "./state.js";
import { formatCount, formatNumber, log2, powerOfTwo, tensorName } from "./words.js";

const SIDES = [
  { kind: "activation", name: "Forward: outputs", color: "forward" },
  { kind: "activation_gradient", name: "Backward: gradients of outputs", color: "backward" },
];
const LEAST_OCTAVES = 4;

const NEWEST = "newest";

export class Profile {
  constructor(run) {
    this.run = run;
    this.readout = document.getElementById("profile-readout");
    this.layers = [];
    this.turn = 0;
    this.sides = SIDES.map((side) => this.makeSide(side));
    document.getElementById("profile").append(...this.sides.map((side) => side.panel));
    this.slide();
  }

  makeSide(side) {
    const box = el("div", { class: "plot" });
    const note = el("p", { class: "note" });
    const title = el("h3", {}, el("span", { class: `swatch ${side.color}` }), side.name);
    const plot = new Plot(box, {
      height: 240,
      label: `${side.name} by depth, rms on a scale of powers of two.`,
      series: [
        // Theory speaks of some layers only: their bands are boxes (marks), these two lines just make room for them.
        { stroke: null, width: 0 },
        { stroke: null, width: 0 },
        { stroke: "ink", width: 1.5, dash: [5, 4], points: true },
        { stroke: side.color, points: true },
      ],
      yFormat: powerOfTwo,
      yRange: (low, high) => padded(low, high, LEAST_OCTAVES),
      integers: true,
      sync: "depth",
      onHover: (index) => this.tell(index),
      onSelect: (index) => this.choose(index, side.kind),
    });
    return { ...side, plot, note, panel: el("div", { class: "panel" }, title, box, note) };
  }

  slide() {
    this.slider = document.getElementById("step");
    this.latest = document.getElementById("step-latest");
    this.slider.addEventListener("input", () => change({ step: this.run.steps[this.slider.value] ?? null }));
    this.latest.addEventListener("click", () => change({ step: NEWEST }));
  }

  /** The step of the address; else the newest while the run lives, and afterwards the one that tells of its start. */
  wantedStep() {
    const step = read().step ?? (this.run.isLive() ? NEWEST : this.run.tellingStep());
    return step === NEWEST ? undefined : step;
  }

  /** Fetches and draws the wanted step. */
  async refresh() {
    const turn = ++this.turn;
    const step = this.wantedStep();
    this.showStep(step);
    const answer = await getJson(`/runs/${this.run.id}/stats/profile`, {
      step,
      attempt: this.run.attempt,
      kind: SIDES.map((side) => side.kind),
      statistic: "rms,count,nonfinite_count",
    });
    if (turn !== this.turn || !answer) return;
    this.collect(answer.tensors);
    for (const side of this.sides) this.draw(side);
    this.tell(null);
  }

  showStep(step) {
    const steps = this.run.steps;
    let index = steps.length - 1;
    if (step !== undefined) while (index > 0 && steps[index] > Number(step)) index -= 1;
    this.slider.max = String(Math.max(0, steps.length - 1));
    this.slider.value = String(index);
    const now = steps[index];
    document.getElementById("step-now").textContent = now === undefined ? "–" : formatCount(now);
    this.slider.setAttribute("aria-valuetext", `step ${now ?? "none"}`);
    this.latest.setAttribute("aria-pressed", String(step === undefined));
  }

  collect(tensors) {
    const layers = new Map();
    for (const tensor of tensors) {
      const key = JSON.stringify([tensor.module_path, tensor.name]);
      if (!layers.has(key)) layers.set(key, { tensor, activation: null, activation_gradient: null });
      layers.get(key)[tensor.kind] = tensor;
    }
    this.layers = [...layers.values()];
  }

  draw(side) {
    const records = this.layers.map((layer) => layer[side.kind]);
    const rms = records.map((record) => record && toNumber(record.statistics.rms));
    const expected = (name) => records.map((record) => {
      const value = record?.expected?.[name];
      return value === null || value === undefined ? null : log2(toNumber(value));
    });
    const at = (test) => this.layers.flatMap((_, i) => (test(i) ? [i + 1] : []));
    const crosses = at((i) => records[i]?.statistics.nonfinite_count > 0);
    const zeros = at((i) => rms[i] === 0);
    const [high, low, predicted] = [expected("high"), expected("low"), expected("predicted")];
    const boxes = high.flatMap((top, i) => (top === null ? [] : [{ x: i + 1, low: low[i], high: top }]));
    const data = [this.layers.map((_, i) => i + 1), high, low, predicted, rms.map((value) => log2(value))];
    side.plot.show(data, { crosses, zeros, boxes });
    const parts = [];
    if (!records.some(Boolean)) parts.push("Nothing recorded at this step.");
    if (crosses.length) parts.push(`× NaN or Inf in ${crosses.length} layer${crosses.length > 1 ? "s" : ""}`);
    if (zeros.length) parts.push(`○ exactly zero in ${zeros.length}`);
    if (predicted.some((value) => value !== null)) parts.push("dashed: predicted from these weights");
    if (boxes.length) parts.push("band: expected of a healthy start");
    side.note.textContent = parts.join(" · ");
  }

  tell(index) {
    const layer = index === null || index === undefined ? null : this.layers[index];
    if (!layer) {
      const count = this.layers.length;
      say(this.readout, count ? `${count} layers, first layer on the left. Point at one for its numbers, select it to follow it below.` : "");
      return;
    }
    const side = (record, word) => {
      if (!record) return [];
      const { rms, nonfinite_count: bad, count } = record.statistics;
      const value = toNumber(rms);
      const power = value > 0 ? ` (${powerOfTwo(Math.log2(value))})` : "";
      const told = (name) => formatNumber(toNumber(record.expected[name]));
      const has = (name) => (record.expected?.[name] ?? null) !== null;
      const band = (has("predicted") ? `, predicted ${told("predicted")}` : "") + (has("low") ? `, healthy ${told("low")} to ${told("high")}` : "");
      const broken = bad ? `, ${formatCount(bad)} of ${formatCount(count)} elements not finite` : "";
      return [` · ${word} `, [formatNumber(value)], `${power}${band}${broken}`];
    };
    say(this.readout, `${index + 1}. `, [tensorName(layer.tensor)], ...side(layer.activation, "forward"), ...side(layer.activation_gradient, "backward"));
  }

  choose(index, kind) {
    const layer = this.layers[index];
    const record = layer?.[kind] ?? layer?.tensor;
    if (record) change({ tensor: record.tensor_no });
  }
}
