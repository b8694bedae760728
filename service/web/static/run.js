// The page of one run: what it knows of the run, and which chart looks again when.

import { getJson, showAway, Unreachable } from "./api.js";
import { Heatmap } from "./heatmap.js";
import { follow } from "./live.js";
import { Profile } from "./profile.js";
import { Scalars } from "./scalars.js";
import { Series } from "./series.js";
import { change, onChange, read } from "./state.js";

const root = document.getElementById("run");
const head = () => document.querySelector('[data-live="head"]');

const run = {
  id: root.dataset.run,
  attempt: read().attempt,
  steps: [],
  tensors: [],

  /** Steps and, if there are new ones, descriptions of tensors. */
  async load() {
    const answer = await getJson(`/runs/${this.id}`);
    if (!answer) return;
    this.steps = answer.steps;
    const count = Object.values(answer.tensors).reduce((sum, n) => sum + n, 0);
    if (count !== this.tensors.length) this.tensors = (await getJson(`/runs/${this.id}/tensors`))?.tensors ?? this.tensors;
  },

  /** Standing findings, as the page shows them. */
  findings() {
    return [...document.querySelectorAll('[data-live="findings"] > [data-finding]')].map((node) => node.dataset);
  },

  findingLines() {
    // The worst comes last and is drawn over the others.
    return this.findings()
      .filter((finding) => finding.finding !== "info")
      .map((finding) => ({ x: Number(finding.step), color: finding.finding === "critical" ? "critical" : "warning-mark", title: finding.title }))
      .reverse();
  },

  isLive() {
    return ["live", "stalled"].includes(head().dataset.status);
  },

  /** Where the worst finding began, else the first step. */
  tellingStep() {
    return this.findingLines().at(-1)?.x ?? this.steps[0];
  },

  /** The tensor of the worst finding, else the first output. */
  suggestTensor() {
    const path = this.findings().find((finding) => finding.path)?.path;
    const outputs = this.tensors.filter((t) => t.kind === "activation");
    return outputs.find((t) => t.module_path === path) ?? this.tensors.find((t) => t.module_path === path) ?? outputs[0] ?? this.tensors[0];
  },

  findTensor({ layer, kind, name }) {
    const here = this.tensors.filter((t) => t.module_path === layer);
    return here.find((t) => t.kind === kind && (!name || t.name === name)) ?? here.find((t) => t.kind === kind) ?? here[0];
  },
};

const profile = new Profile(run);
const map = new Heatmap(run);
const series = new Series(run);
const scalars = new Scalars(run);

async function refresh() {
  document.getElementById("charts").hidden = head().dataset.hasRows !== "true";
  if (head().dataset.hasRows !== "true") return;
  await run.load();
  await Promise.all([profile.refresh(), map.refresh(), series.refresh(), scalars.refresh()]);
}

/** Runs a refresh that nobody waits for; a collector that is away is shown, anything else is a bug and stays one. */
async function attemptTo(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    showAway(true);
  }
}

onChange((names) => {
  if (names.includes("step")) attemptTo(() => profile.refresh());
  if (names.includes("kind") || names.includes("statistic")) attemptTo(() => map.refresh());
  if (names.includes("tensor") || names.includes("of")) attemptTo(() => series.refresh());
  if (names.includes("tensor")) map.mark();
});

document.addEventListener("click", (event) => {
  const layer = event.target.closest("[data-layer]");
  const copy = event.target.closest("[data-copy]");
  if (layer) {
    const tensor = run.findTensor(layer.dataset);
    if (tensor) change({ tensor: tensor.tensor_no });
    document.getElementById("h-series").scrollIntoView({ behavior: "smooth" });
  }
  if (copy) copyText(copy);
});

async function copyText(button) {
  const code = button.closest(".remedy").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // Without HTTPS a page may not write to the clipboard: select the text, so that the keys for copying do it.
    window.getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  window.setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

attemptTo(refresh);
follow(() => run.isLive(), refresh);
