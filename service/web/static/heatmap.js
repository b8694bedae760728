// The step × depth map: canvas cells, a cursor that mouse and keys share, a legend that explains every colour.

import { getJson, toNumber } from "./api.js";
import { onTheme } from "./colors.js";
import { el, fillSelect, say } from "./dom.js";
import { makeScale, paintCell, paintLegend } from "./heatscale.js";
import { change, read } from "./state.js";
import { formatCount, formatNumber, kindName, KINDS, powerOfTwo, scaleOf, statisticName, STATISTICS, tensorName } from "./words.js";

const MIN_ROW = 7;
const MAX_ROW = 20;
const GOOD_HEIGHT = 420;
const LABEL_HEIGHT = 13;

export class Heatmap {
  constructor(run) {
    this.run = run;
    this.turn = 0;
    this.grid = null;
    this.at = null;
    this.readout = document.getElementById("map-readout");
    this.kind = document.getElementById("map-kind");
    this.statistic = document.getElementById("map-statistic");
    this.kind.addEventListener("change", () => change({ kind: this.kind.value }));
    this.statistic.addEventListener("change", () => change({ statistic: this.statistic.value }));
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.holder);
    onTheme(() => this.draw());
  }

  build() {
    this.canvas = el("canvas", { tabindex: 0, role: "application", "aria-label": "Map of steps and layers. Arrow keys move, Enter selects the tensor." });
    this.cursor = el("div", { class: "cursor", hidden: true });
    this.holder = el("div", { class: "map-canvas" }, this.canvas, this.cursor);
    this.rows = el("div", { class: "map-rows", "aria-hidden": "true" });
    this.steps = el("div", { class: "map-steps", "aria-hidden": "true" });
    this.legend = el("div", { class: "map-legend" });
    this.body = el("div", { class: "map-body" }, this.rows, this.holder, this.steps);
    this.hint = el("p", { class: "hint", hidden: true });
    document.getElementById("map").append(this.body, this.hint, this.legend);
    this.canvas.addEventListener("pointermove", (event) => this.point(this.cellAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (event) => { this.point(this.cellAt(event)); this.select(); });
    this.canvas.addEventListener("keydown", (event) => this.press(event));
    this.canvas.addEventListener("focus", () => this.at ?? this.point([0, 0]));
  }

  async refresh() {
    const turn = ++this.turn;
    const { kind = "activation", statistic = "rms" } = read();
    fillSelect(this.kind, KINDS, kind);
    fillSelect(this.statistic, STATISTICS, statistic);
    const answer = await getJson(`/runs/${this.run.id}/stats/grid`, { kind, statistic, attempt: this.run.attempt });
    if (turn !== this.turn || !answer) return;
    const numbers = (plane) => plane?.map((row) => row.map(toNumber));
    const high = numbers(answer.high);
    const nonfinite = new Map(answer.nonfinite.map(([row, column, count]) => [row * answer.steps.length + column, count]));
    this.grid = { ...answer, high, low: numbers(answer.low) ?? high, nonfinite };
    this.scale = makeScale(this.grid, scaleOf(statistic));
    this.draw();
    this.point(this.at);
  }

  draw() {
    const { grid } = this;
    if (!grid) return;
    const isEmpty = !grid.rows.length || !grid.steps.length;
    const isUnknown = !isEmpty && !grid.nonfinite.size && grid.high.every((row) => row.every((value) => value === null));
    this.hint.hidden = !(isEmpty || isUnknown);
    this.hint.textContent = isEmpty ? "No rows of this kind yet." : `The ${statisticName(grid.statistic)} is not measured for this kind of tensor.`;
    this.body.hidden = this.legend.hidden = isEmpty || isUnknown;
    if (isEmpty || isUnknown || !this.holder.clientWidth) return;
    const width = this.holder.clientWidth;
    this.cell = { width: width / grid.steps.length, height: Math.min(MAX_ROW, Math.max(MIN_ROW, GOOD_HEIGHT / grid.rows.length)) };
    const height = this.cell.height * grid.rows.length;
    this.rows.style.height = this.canvas.style.height = `${height}px`;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.paint(ratio);
    this.label();
    paintLegend(this.legend, this.scale, grid);
    this.mark();
  }

  paint(ratio) {
    const { grid, scale, canvas } = this;
    const ctx = canvas.getContext("2d");
    const columns = grid.steps.length;
    const x = (column) => Math.round((column * canvas.width) / columns);
    const y = (row) => Math.round(row * this.cell.height * ratio);
    for (let row = 0; row < grid.rows.length; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const box = [x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row)];
        paintCell(ctx, box, scale, grid.low[row][column], grid.high[row][column], grid.nonfinite.get(row * columns + column) ?? 0);
      }
    }
  }

  label() {
    const { grid, cell } = this;
    const every = Math.ceil(LABEL_HEIGHT / cell.height);
    const worst = new Map(this.run.findings().reverse().map((finding) => [finding.path, finding.finding]));
    this.rows.replaceChildren(
      ...grid.rows.flatMap((group, row) => {
        const severity = group.map((tensor) => worst.get(tensor.module_path)).find(Boolean);
        if (row % every && !severity) return [];
        const span = el("span", { class: severity ?? "", title: tensorName(group[0]) }, el("bdi", {}, tensorName(group[0])));
        span.style.top = `${(row + 0.5) * cell.height}px`;
        return [span];
      }),
    );
    const room = Math.max(1, Math.ceil(44 / cell.width));
    this.steps.replaceChildren(
      ...grid.steps.flatMap(([from], column) => {
        if (column % room) return [];
        const span = el("span", {}, formatCount(from));
        span.style.left = `${(column + 0.5) * cell.width}px`;
        return [span];
      }),
    );
  }

  cellAt(event) {
    if (!this.grid || !this.cell) return null;
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / this.cell.height);
    const column = Math.floor((event.clientX - box.left) / this.cell.width);
    return this.grid.rows[row] && this.grid.steps[column] ? [row, column] : null;
  }

  press(event) {
    if (!this.grid) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -1e9], End: [0, 1e9] };
    if (event.key in moves) {
      event.preventDefault();
      const clamp = (value, length) => Math.max(0, Math.min(length - 1, value));
      const [row, column] = this.at ?? [0, 0];
      const [down, right] = moves[event.key];
      this.point([clamp(row + down, this.grid.rows.length), clamp(column + right, this.grid.steps.length)]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.select();
    }
  }

  select() {
    if (this.at) change({ tensor: this.grid.rows[this.at[0]][0].tensor_no });
  }

  /** Moves the cursor to a cell, or away. */
  point(at) {
    const isThere = at && this.grid?.rows[at[0]] && this.grid.steps[at[1]];
    this.at = isThere ? at : null;
    this.mark();
    this.tell();
  }

  mark() {
    this.cursor.hidden = !this.at || !this.cell;
    if (this.cursor.hidden) return;
    const [row, column] = this.at;
    const { width, height } = this.cell;
    Object.assign(this.cursor.style, { left: `${column * width - 1}px`, top: `${row * height - 1}px`, width: `${width + 2}px`, height: `${height + 2}px` });
  }

  tell() {
    const { grid, at } = this;
    if (!grid || !at) {
      say(this.readout, grid && !this.body.hidden ? "Point at a cell for its numbers." : "");
      return;
    }
    const [row, column] = at;
    const group = grid.rows[row];
    const [from, to] = grid.steps[column];
    const low = grid.low[row][column];
    const high = grid.high[row][column];
    const power = (value) => (this.scale.kind === "log" && value > 0 ? ` (${powerOfTwo(Math.log2(value))})` : "");
    const name = group.length === 1 ? tensorName(group[0]) : `${tensorName(group[0])} … ${tensorName(group.at(-1))} (${group.length} tensors)`;
    const when = from === to ? `step ${formatCount(from)}` : `steps ${formatCount(from)} to ${formatCount(to)}`;
    const value = high === null ? ["no value"] : low === high ? [formatNumber(high), power(high)] : [`${formatNumber(low)} to ${formatNumber(high)}`];
    const bad = grid.nonfinite.get(row * grid.steps.length + column);
    say(this.readout, [name], ` · ${kindName(grid.kind)} · ${when} · ${statisticName(grid.statistic)} `, value, bad ? ` · ${formatCount(bad)} elements NaN or Inf` : "");
  }
}
