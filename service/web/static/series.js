// One statistic of one tensor over steps.

import { getJson, toNumber } from "./api.js";
import { fillSelect, say } from "./dom.js";
import { padded, Plot } from "./plot.js";
import { change, read } from "./state.js";
import { formatCount, formatNumber, kindName, KINDS, log2, powerOfTwo, scaleOf, statisticName, STATISTICS, tensorName } from "./words.js";

export class Series {
  constructor(run) {
    this.run = run;
    this.box = document.getElementById("series");
    this.box.classList.add("panel");
    this.readout = document.getElementById("series-readout");
    this.tensor = document.getElementById("series-tensor");
    this.statistic = document.getElementById("series-statistic");
    this.tensor.addEventListener("change", () => change({ tensor: this.tensor.value }));
    this.statistic.addEventListener("change", () => change({ of: this.statistic.value }));
    this.turn = 0;
  }

  /** Offers the run's tensors, in forward order, grouped by kind. */
  offer() {
    const groups = KINDS.map(([kind, label]) => ({
      label,
      options: this.run.tensors.filter((t) => t.kind === kind).map((t) => [t.tensor_no, tensorName(t)]),
    }));
    fillSelect(this.tensor, groups.filter((group) => group.options.length), this.chosen()?.tensor_no);
    fillSelect(this.statistic, STATISTICS, read().of ?? "rms");
  }

  chosen() {
    const wanted = Number(read().tensor);
    return this.run.tensors.find((t) => t.tensor_no === wanted) ?? this.run.suggestTensor();
  }

  async refresh() {
    const turn = ++this.turn;
    this.offer();
    const tensor = this.chosen();
    const statistic = read().of ?? "rms";
    if (!tensor) return;
    const answer = await getJson(`/runs/${this.run.id}/stats/series`, {
      tensor: tensor.tensor_no,
      statistic,
      attempt: this.run.attempt,
      max_points: 800,
    });
    if (turn !== this.turn || !answer) return;
    this.draw(tensor, statistic, answer.series[0]);
  }

  draw(tensor, statistic, curve) {
    const isLog = scaleOf(statistic) === "log";
    const values = curve.values.map(toNumber);
    this.curve = { ...curve, values, statistic, tensor };
    const at = (test) => curve.steps.filter((_, i) => test(i));
    const crosses = at((i) => curve.nonfinite[i] > 0);
    const zeros = isLog ? at((i) => values[i] === 0) : [];
    this.plotFor(isLog).show([curve.steps, isLog ? values.map(log2) : values], { crosses, zeros, lines: this.run.findingLines() });
    this.tell(null);
  }

  plotFor(isLog) {
    if (this.plot && this.isLog === isLog) return this.plot;
    this.plot?.clear();
    this.box.replaceChildren();
    this.isLog = isLog;
    this.plot = new Plot(this.box, {
      height: 260,
      label: "One statistic of one tensor over steps.",
      series: [{ stroke: "accent", points: "few" }],
      yFormat: isLog ? powerOfTwo : formatNumber,
      yRange: (low, high) => (isLog ? padded(low, high, 2) : padded(low, high, 1e-9)),
      integers: isLog,
      zoom: true,
      onHover: (index) => this.tell(index),
    });
    return this.plot;
  }

  tell(index) {
    const { curve } = this;
    if (!curve) return;
    const name = [kindName(curve.tensor.kind), " ", tensorName(curve.tensor)];
    if (index === null || index === undefined || index >= curve.steps.length) {
      const broken = curve.nonfinite.reduce((sum, count) => sum + count, 0);
      const measured = curve.values.some((value) => value !== null);
      const about = !curve.steps.length ? "no records yet" : measured || broken ? `${statisticName(curve.statistic)} at ${formatCount(curve.total_points)} steps` : "not measured for this tensor";
      say(this.readout, name, ` · ${about}`, broken ? ` · × ${formatCount(broken)} elements NaN or Inf` : "", curve.steps.length > 1 ? " · drag to zoom, double-click to see all" : "");
      return;
    }
    const broken = curve.nonfinite[index] ? ` · ${formatCount(curve.nonfinite[index])} elements NaN or Inf` : "";
    say(this.readout, name, ` · step ${formatCount(curve.steps[index])} · ${statisticName(curve.statistic)} `, [formatNumber(curve.values[index])], broken);
  }
}
