// From a value to a colour, and the legend that says it.

import { css, diverging, sequential } from "./colors.js";
import { el } from "./dom.js";
import { formatNumber, log2, powerOfTwo } from "./words.js";

const LEAST_OCTAVES = 4;
const MOST_OCTAVES = 16;

const median = (values) => {
  const ordered = [...values].sort((a, b) => a - b);
  return ordered.length ? ordered[Math.floor(ordered.length / 2)] : 0;
};

/** kind: log, unit, signed or count; `position(value)` is what `color` takes. */
export function makeScale(grid, kind) {
  const values = [...grid.low, ...grid.high].flat().filter((value) => Number.isFinite(value));
  if (kind === "log") return logScale(grid, values);
  if (kind === "unit") return { kind, low: 0, high: 1, isDiverging: false, position: (value) => value };
  const size = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  if (kind === "signed") return { kind, low: -size, high: size, isDiverging: true, position: (value) => value / size };
  return { kind, low: 0, high: size, isDiverging: false, position: (value) => value / size };
}

/** Octaves away from the median of the first step: what the colours tell is change over depth and time. */
function logScale(grid, values) {
  const first = grid.high.map((row) => log2(row[0])).filter((value) => value !== null);
  const octaves = values.map(log2).filter((value) => value !== null);
  const center = Math.round(median(first.length ? first : octaves));
  const furthest = octaves.reduce((most, value) => Math.max(most, Math.abs(value - center)), 0);
  const reach = Math.ceil(Math.min(MOST_OCTAVES, Math.max(LEAST_OCTAVES, furthest)));
  return {
    kind: "log",
    center,
    low: center - reach,
    high: center + reach,
    isDiverging: true,
    position: (value) => (Math.log2(value) - center) / reach,
  };
}

let shades = null;
let shadesOf = "";

function colorOf(scale, position) {
  const name = `${scale.isDiverging}${css("paper")}`;
  if (shadesOf !== name) {
    shades = scale.isDiverging ? diverging() : sequential();
    shadesOf = name;
  }
  return shades(position);
}

/** Of two values of a binned cell the one that is further from the ordinary. */
function telling(scale, low, high) {
  if (low === high || low === null || high === null) return high ?? low;
  if (!scale.isDiverging) return high;
  if (scale.kind === "log" && low <= 0) return low;
  return Math.abs(scale.position(low)) > Math.abs(scale.position(high)) ? low : high;
}

/** One cell: missing stays empty, zero and non-finite have colours of their own. */
export function paintCell(ctx, [x, y, width, height], scale, low, high, nonfinite) {
  const value = telling(scale, low, high);
  if (nonfinite) {
    ctx.fillStyle = css("nonfinite");
    ctx.fillRect(x, y, width, height);
    hatch(ctx, x, y, width, height);
  } else if (value !== null && value !== undefined) {
    const isZero = scale.kind === "log" && !(value > 0);
    ctx.fillStyle = isZero ? css("ink") : colorOf(scale, Number.isFinite(value) ? scale.position(value) : 1);
    ctx.fillRect(x, y, width, height);
  }
}

function hatch(ctx, x, y, width, height) {
  if (width < 4 || height < 4) return;
  ctx.strokeStyle = css("card");
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(x, y + height);
  ctx.lineTo(x + width, y);
  ctx.stroke();
}

/** The ramp with its ends, and a key for each special colour that the map shows. */
export function paintLegend(box, scale, grid) {
  const ramp = el("canvas", { width: 240, height: 14, "aria-hidden": "true" });
  const ctx = ramp.getContext("2d");
  for (let x = 0; x < 240; x += 1) {
    const t = x / 239;
    ctx.fillStyle = colorOf(scale, scale.isDiverging ? 2 * t - 1 : t);
    ctx.fillRect(x, 0, 1, 14);
  }
  const text = scale.kind === "log" ? powerOfTwo : formatNumber;
  const parts = [el("span", { class: "ramp" }, text(scale.low), ramp, text(scale.high))];
  if (scale.kind === "log") parts.push(el("span", {}, `middle: ${powerOfTwo(scale.center)}, the median at the first step`));
  const cells = [...grid.low, ...grid.high].flat();
  if (grid.nonfinite.size) parts.push(key(scale, 1, 1, "NaN or Inf"));
  if (scale.kind === "log" && cells.some((value) => value === 0)) parts.push(key(scale, 0, 0, "exactly zero"));
  box.replaceChildren(...parts);
}

function key(scale, value, nonfinite, text) {
  const canvas = el("canvas", { width: 16, height: 16, "aria-hidden": "true" });
  paintCell(canvas.getContext("2d"), [0, 0, 16, 16], scale, value, value, nonfinite);
  return el("span", { class: "key" }, canvas, text);
}
