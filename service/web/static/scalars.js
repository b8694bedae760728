// Every logged number in a small chart, findings as dashed lines at the step where they began.

import { getJson, toNumber } from "./api.js";
import { el } from "./dom.js";
import { padded, Plot } from "./plot.js";
import { formatCount, formatNumber } from "./words.js";

export class Scalars {
  constructor(run) {
    this.run = run;
    this.box = document.getElementById("scalars");
    this.panels = new Map();
    this.turn = 0;
  }

  async refresh() {
    const turn = ++this.turn;
    const answer = await getJson(`/runs/${this.run.id}/scalars`, { attempt: this.run.attempt, max_points: 800 });
    if (turn !== this.turn || !answer) return;
    if (!answer.scalars.length) {
      this.box.replaceChildren(el("p", { class: "quiet" }, "Nothing logged. ", el("code", {}, "monitor.log(loss=loss)"), " shows the loss here."));
      return;
    }
    for (const hint of this.box.querySelectorAll(":scope > p")) hint.remove();
    for (const scalar of answer.scalars) this.draw(scalar);
  }

  draw(scalar) {
    const values = scalar.values.map(toNumber);
    const panel = this.panels.get(scalar.name) ?? this.makePanel(scalar.name);
    panel.curve = { steps: scalar.steps, values };
    const crosses = scalar.steps.filter((_, i) => !Number.isFinite(values[i]));
    const data = [scalar.steps, values.map((value) => (Number.isFinite(value) ? value : null))];
    panel.plot.show(data, { crosses, lines: this.run.findingLines() });
    this.tell(panel, null);
  }

  makePanel(name) {
    const box = el("div", { class: "plot" });
    const note = el("p", { class: "note", "aria-live": "polite" });
    const panel = { note, curve: null };
    panel.plot = new Plot(box, {
      height: 160,
      label: `${name} over steps.`,
      series: [{ stroke: "accent", width: 1.5, points: "few" }],
      yFormat: formatNumber,
      yRange: (low, high) => padded(low, high, 1e-9),
      sync: "scalars",
      zoom: true,
      onHover: (index) => this.tell(panel, index),
    });
    this.box.append(el("div", { class: "panel" }, el("h3", {}, name), box, note));
    this.panels.set(name, panel);
    return panel;
  }

  tell(panel, index) {
    const { steps, values } = panel.curve;
    const last = steps.length - 1;
    const at = index === null || index === undefined ? last : index;
    const lines = this.run.findingLines();
    const near = index === null ? [] : lines.filter((line) => line.x === steps[at]);
    const found = near.length ? ` · ${near.map((line) => line.title).join(", ")}` : "";
    panel.note.textContent = `${at === last && index !== at ? "newest: " : ""}step ${formatCount(steps[at])} · ${formatNumber(values[at])}${found}`;
  }
}
