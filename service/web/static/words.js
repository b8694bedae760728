// Numbers and names for reading.

const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

export const KINDS = [
  ["activation", "Output"],
  ["activation_gradient", "Gradient of output"],
  ["weight", "Weight"],
  ["gradient", "Gradient of weight"],
  ["update", "Update"],
];

/** scale: log (octaves), unit (0 to 1), signed (around zero) or count. */
export const STATISTICS = [
  ["rms", "rms", "log"],
  ["std", "standard deviation", "log"],
  ["abs_max", "largest |value|", "log"],
  ["norm", "norm", "log"],
  ["mean", "mean", "signed"],
  ["skewness", "skewness", "signed"],
  ["kurtosis", "kurtosis", "count"],
  ["zero_fraction", "share of zeros", "unit"],
  ["signal_fraction", "share of signal", "unit"],
  ["dead_fraction", "share of dead channels", "unit"],
  ["saturated_fraction", "share saturated", "unit"],
  ["row_similarity", "similarity of rows", "unit"],
  ["nonfinite_count", "non-finite elements", "count"],
];

export const scaleOf = (statistic) => STATISTICS.find(([name]) => name === statistic)?.[2] ?? "signed";
export const statisticName = (statistic) => STATISTICS.find(([name]) => name === statistic)?.[1] ?? statistic;
export const kindName = (kind) => KINDS.find(([name]) => name === kind)?.[1] ?? kind;

/** Three significant digits; powers of ten where a decimal would be long. */
export function formatNumber(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "Inf" : "−Inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 }).replace("-", "−");
}

export const formatCount = (value) => Number(value).toLocaleString("en");

/** 2⁻³ for −3. */
export function powerOfTwo(exponent) {
  return `2${[...String(Math.round(exponent))].map((digit) => SUPERSCRIPTS[digit]).join("")}`;
}

/** log2 of a positive number; null for zero, negative and absent ones. */
export const log2 = (value) => (value > 0 && Number.isFinite(value) ? Math.log2(value) : null);

/** Path and name of a tensor; the usual names of the only tensor of a module are left out. */
export function tensorName(tensor) {
  const path = tensor.module_path || "(model)";
  return ["weight", "output"].includes(tensor.name) ? path : `${path} ${tensor.name}`;
}

/** 5 s ago, 3 min ago, … */
export function ago(date, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - date) / 1000));
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}
