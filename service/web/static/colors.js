// Colours that also work for colour-blind readers, light and dark. Maps are interpolated in sRGB between few stops.

const DIVERGING = {
  light: ["#08306b", "#2b6cb0", "#8fbbe0", "#f1f1ee", "#f3b871", "#c7651a", "#6b2a04"],
  dark: ["#a8d3ff", "#4f9bdc", "#2b5f8f", "#30353a", "#92581f", "#e08a3a", "#ffd09a"],
};
const SEQUENTIAL = {
  light: ["#f1f1ee", "#b8d2c8", "#6ba79c", "#2c7377", "#123f4f"],
  dark: ["#30353a", "#2d5a60", "#3d8a86", "#79bfa7", "#d3f0c8"],
};

const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** A colour of the style sheet. */
export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Calls back when the reader changes between light and dark. */
export const onTheme = (listener) => dark.addEventListener("change", listener);

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function ramp(stops) {
  const parsed = stops.map(channels);
  return (t) => {
    const at = Math.min(1, Math.max(0, t)) * (parsed.length - 1);
    const low = Math.min(Math.floor(at), parsed.length - 2);
    const mixed = parsed[low].map((from, i) => Math.round(from + (parsed[low + 1][i] - from) * (at - low)));
    return `rgb(${mixed.join(" ")})`;
  };
}

const theme = () => (dark.matches ? "dark" : "light");

/** Colour of −1 … 0 … 1. */
export function diverging() {
  const color = ramp(DIVERGING[theme()]);
  return (t) => color((t + 1) / 2);
}

/** Colour of 0 … 1. */
export const sequential = () => ramp(SEQUENTIAL[theme()]);
