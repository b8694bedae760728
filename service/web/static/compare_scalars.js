// Every number that a run has logged in a small chart, both runs over each other.

import { getJson, toNumber } from "./api.js";
import { el } from "./dom.js";
import { padded, Plot } from "./plot.js";
import { formatCount, formatNumber } from "./words.js";

export class SharedScalars {
  constructor(pair) {
    this.pair = pair;
    this.box = document.getElementById("scalars");
    this.panels = new Map();
    this.turn = 0;
  }

  async refresh() {
    const turn = ++this.turn;
    const answers = await Promise.all(this.pair.ids.map((id) => getJson(`/runs/${id}/scalars`, { max_points: 800 })));
    if (turn !== this.turn || answers.some((answer) => !answer)) return;
    const curves = answers.map((answer) => new Map(answer.scalars.map((scalar) => [scalar.name, scalar])));
    // The loss first, whatever else was logged.
    const names = [...new Set(curves.flatMap((side) => [...side.keys()]))].sort((a, b) => (b === "loss") - (a === "loss") || a.localeCompare(b));
    if (!names.length) this.box.replaceChildren(el("p", { class: "quiet" }, "Neither run has logged a number."));
    else for (const hint of this.box.querySelectorAll(":scope > p")) hint.remove();
    for (const name of names) this.draw(name, curves.map((side) => side.get(name)));
  }

  draw(name, sides) {
    const panel = this.panels.get(name) ?? this.makePanel(name);
    const steps = [...new Set(sides.flatMap((side) => side?.steps ?? []))].sort((a, b) => a - b);
    const columns = sides.map((side) => {
      const known = new Map(side?.steps.map((step, i) => [step, toNumber(side.values[i])]));
      return steps.map((step) => known.get(step));
    });
    panel.curve = { steps, columns };
    const crosses = steps.filter((_, i) => columns.some((column) => column[i] !== undefined && !Number.isFinite(column[i])));
    const drawn = columns.map((column) => column.map((value) => (value === undefined ? undefined : Number.isFinite(value) ? value : null)));
    panel.plot.show([steps, ...drawn], { crosses });
    this.tell(panel, null);
  }

  makePanel(name) {
    const box = el("div", { class: "plot" });
    const note = el("p", { class: "note", "aria-live": "polite" });
    const panel = { note, curve: null };
    const key = (swatch, text) => el("span", { class: "key" }, el("span", { class: `swatch ${swatch}` }), text);
    panel.plot = new Plot(box, {
      height: 180,
      label: `${name} of both runs over steps.`,
      series: [{ stroke: "forward", width: 1.5, points: "few" }, { stroke: "backward", width: 1.5, points: "few", dash: [6, 4] }],
      yFormat: formatNumber,
      yRange: (low, high) => padded(low, high, 1e-9),
      sync: "scalars",
      zoom: true,
      onHover: (index) => this.tell(panel, index),
    });
    this.box.append(el("div", { class: "panel" }, el("h3", {}, name, key("forward", "A"), key("dashed", "B")), box, note));
    this.panels.set(name, panel);
    return panel;
  }

  tell(panel, index) {
    const { steps, columns } = panel.curve;
    const isNow = index === null || index === undefined;
    const newest = (column) => column.findLastIndex((value) => value !== undefined);
    const texts = columns.map((column, i) => {
      const at = isNow ? newest(column) : index;
      const value = at < 0 || column[at] === undefined ? "–" : formatNumber(column[at]);
      return `${"AB"[i]} ${value}${isNow && at >= 0 ? ` at step ${formatCount(steps[at])}` : ""}`;
    });
    panel.note.textContent = `${isNow ? "newest: " : `step ${formatCount(steps[index])} · `}${texts.join(" · ")}`;
  }
}
