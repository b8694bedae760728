// One line chart: uPlot with this page's colours, marks for what a line cannot show, and keys for those without a mouse.

import { css, onTheme } from "./colors.js";

const INTEGERS = [1, 2, 4, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 250000, 500000, 1000000];

/** Room above and below; never less than `least` high, so that noise does not look like drama. */
export function padded(low, high, least) {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [-least / 2, least / 2];
  // Below one millionth of the value an axis has no room between two numbers for its ticks.
  const height = Math.max(least, 1e-6 * Math.max(Math.abs(low), Math.abs(high)));
  const missing = Math.max(0, height - (high - low)) / 2;
  const room = (high - low + 2 * missing) * 0.08;
  return [low - missing - room, high + missing + room];
}

export class Plot {
  /**
   * options: series [{stroke, width, dash, points}] (`stroke` names a colour of the style sheet, null hides),
   * height, yFormat, yRange, integers (of the y axis), label, sync, zoom, onHover(index or null), onSelect(index).
   */
  constructor(box, options) {
    this.box = box;
    this.options = options;
    this.data = null;
    this.marks = { crosses: [], zeros: [], lines: [], boxes: [] };
    this.zoomed = false;
    new ResizeObserver(() => this.resize()).observe(box);
    onTheme(() => this.rebuild());
  }

  /** Draws columns of data, x first. Marks: x of crosses (non-finite), of zeros, lines [{x, color}], boxes [{x, low, high}]. */
  show(data, marks = {}) {
    this.data = data;
    this.marks = { crosses: [], zeros: [], lines: [], boxes: [], ...marks };
    if (this.plot) this.plot.setData(data, !this.zoomed);
    else this.rebuild();
  }

  clear() {
    this.plot?.destroy();
    this.plot = null;
    this.data = null;
  }

  resize() {
    const width = this.box.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.options.height });
    else if (!this.plot && this.data && width > 0) this.rebuild();
  }

  rebuild() {
    if (!this.data || !this.box.clientWidth) return;
    this.plot?.destroy();
    this.plot = new window.uPlot(this.describe(), this.data, this.box);
    this.listen();
  }

  describe() {
    const { series, height, yFormat, yRange, integers, sync, zoom, onHover } = this.options;
    const axis = { stroke: css("quiet"), font: `12px ${css("sans")}`, grid: { stroke: css("line"), width: 1 }, ticks: { stroke: css("line"), size: 4 } };
    return {
      width: this.box.clientWidth,
      height,
      padding: [12, 10, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        drag: { x: Boolean(zoom), y: false },
        sync: sync ? { key: sync } : undefined,
        points: { size: 8, width: 2 },
      },
      scales: { x: { time: false, range: (u, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) }, y: { range: (u, low, high) => yRange(low, high) } },
      axes: [
        { ...axis, incrs: INTEGERS, size: 30, values: (u, ticks) => ticks.map((x) => x.toLocaleString("en")) },
        { ...axis, size: 58, ...(integers ? { incrs: INTEGERS } : {}), values: (u, ticks) => ticks.map(yFormat) },
      ],
      series: [{}, ...series.map((line) => describeLine(line))],
      hooks: {
        setCursor: [(u) => onHover?.(u.cursor.left >= 0 ? u.cursor.idx : null)],
        setSelect: [(u) => { if (u.select.width > 0) this.zoomed = true; }],
        drawAxes: [(u) => this.drawBoxes(u)],
        draw: [(u) => this.drawMarks(u)],
      },
    };
  }

  listen() {
    const { label, onSelect } = this.options;
    const { root, over } = this.plot;
    root.tabIndex = 0;
    root.setAttribute("role", "application");
    root.setAttribute("aria-label", `${label} Left and right move${onSelect ? ", Enter selects" : ""}.`);
    over.addEventListener("dblclick", () => { this.zoomed = false; });
    if (onSelect) {
      over.addEventListener("click", () => { if (this.plot.cursor.idx !== null && this.plot.select.width === 0) onSelect(this.plot.cursor.idx); });
    }
    root.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const last = this.data[0].length - 1;
    const now = this.plot.cursor.idx ?? -1;
    if (event.key in moves) {
      event.preventDefault();
      const index = Math.min(last, Math.max(0, now + moves[event.key]));
      this.plot.setCursor({ left: this.plot.valToPos(this.data[0][index], "x"), top: 10 });
    } else if (event.key === "Enter" && now >= 0) {
      this.options.onSelect?.(now);
    }
  }

  /** Boxes of one x each, below the lines; neighbours touch. */
  drawBoxes(u) {
    const { ctx, bbox } = u;
    const at = (y) => Math.min(bbox.top + bbox.height, Math.max(bbox.top, u.valToPos(y, "y", true)));
    ctx.save();
    ctx.fillStyle = `${css("band")}38`;
    for (const { x, low, high } of this.marks.boxes) {
      const left = Math.max(bbox.left, u.valToPos(x - 0.5, "x", true));
      const right = Math.min(bbox.left + bbox.width, u.valToPos(x + 0.5, "x", true));
      ctx.fillRect(left, at(high), Math.max(0, right - left), at(low) - at(high));
    }
    ctx.restore();
  }

  drawMarks(u) {
    const { ctx, bbox } = u;
    const ratio = window.devicePixelRatio || 1;
    const size = 4.5 * ratio;
    ctx.save();
    for (const { x, color } of this.marks.lines) {
      const at = u.valToPos(x, "x", true);
      if (at < bbox.left || at > bbox.left + bbox.width) continue;
      ctx.strokeStyle = css(color);
      ctx.lineWidth = 1.5 * ratio;
      ctx.setLineDash([4 * ratio, 3 * ratio]);
      stroke(ctx, [[at, bbox.top], [at, bbox.top + bbox.height]]);
    }
    ctx.setLineDash([]);
    ctx.lineWidth = 2 * ratio;
    ctx.strokeStyle = css("nonfinite");
    for (const x of this.marks.crosses) {
      const at = u.valToPos(x, "x", true);
      const top = bbox.top + size + ratio;
      stroke(ctx, [[at - size, top - size], [at + size, top + size]]);
      stroke(ctx, [[at - size, top + size], [at + size, top - size]]);
    }
    ctx.strokeStyle = css("ink");
    for (const x of this.marks.zeros) {
      const at = u.valToPos(x, "x", true);
      ctx.beginPath();
      ctx.arc(at, bbox.top + bbox.height - size - ratio, size * 0.8, 0, 2 * Math.PI);
      ctx.stroke();
    }
    ctx.restore();
  }
}

function stroke(ctx, points) {
  ctx.beginPath();
  points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.stroke();
}

function describeLine({ stroke: name, width = 2, dash, points = false, spanGaps = false }) {
  const color = name === null ? "transparent" : css(name);
  const show = points === "few" ? (u) => u.data[0].length <= 80 : points;
  return { stroke: color, width, dash, points: { show, size: 5, stroke: color, fill: color }, spanGaps };
}
