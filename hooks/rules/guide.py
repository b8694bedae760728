"""The part of docs/rules.md that is for users who change thresholds or write rules."""

from __future__ import annotations

from typing import Final

GUIDE: Final = """\
## Thresholds

A threshold can be changed, and a rule switched off, for one run:
`watch(model, rules={"forward-drift": {"warning": 4.0}, "initial-loss": False})`.
Or by a file, for everything that reads it:

```toml
plugins = ["my_company.rules"]   # modules that register rules of their own when they are imported

[forward-drift]
warning = 4.0

[initial-loss]
enabled = false
```

A job takes the file from `INITSCOPE_RULES` or `watch(model, rules="rules.toml")`, a collector from `INITSCOPE_RULES`
or `initscope serve --rules rules.toml`. A keyword's limits go over those of the variable's file. An unknown rule or
limit, or a value that is no number, is refused at the start, with what there is.

With a collector, its file holds for every run. What a job changes travels with the run and goes on top: its limits
replace the collector's one by one, and what it switches off is off for that run. What the collector has no rule for
is left out. The page `/rules` and `GET /api/v1/rules` show the thresholds that hold, with `?run=` those of a run.

## Rules of your own

A rule of your own is the same kind of object as those below, and its findings are told, stored and shown as theirs.
`register` adds it to the catalogue of the process: `watch`, `check` and the collector take rules from there.

```python
import torch
from torch import nn

from initscope.hooks import register, watch
from initscope.hooks.rules import Cause, Finding, Kind, Rule, Severity


def check_gates(window, limits):
    for tensor, stats in window.each(Kind.WEIGHT):
        bias = stats.moments.mean
        if tensor.module_path.endswith("gate") and tensor.name == "bias" and bias > limits["warning"]:
            yield Finding(
                rule="open-gate",
                severity=Severity.WARNING,
                cause=Cause.BAD_BIAS,
                step=window.step,
                module_path=tensor.module_path,
                tensor_name=tensor.name,
                kind=Kind.WEIGHT,
                diagnosis=f"The gate {tensor.module_path} begins open: its biases are {bias:.2g} on average.",
                remedy=f"nn.init.constant_(model.{tensor.module_path}.bias, -3.0)",
                evidence={"bias": bias},
            )


register(
    Rule(
        id="open-gate",
        family="ours",
        check=check_gates,
        limits={"warning": -1.0},
        needs=(Kind.WEIGHT,),
        baseline_only=True,
        title="A gate that begins open",
        statistic="Mean of the biases of modules named gate; warning above `warning`.",
        harmless="Gates of pretrained layers: switch the rule off for a fine-tune.",
        remedy="Biases of -3, so that a new branch begins almost closed.",
        source="Our own experience with gated branches.",
    )
)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.gate, self.head = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)) * torch.sigmoid(self.gate(x)))


model = Gated()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with watch(model) as monitor:
    for _ in range(3):
        x = torch.randn(32, 16)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :4].argmax(dim=1)).backward()
        optimizer.step()
    print(monitor.report())
```

`check` is called for each sampled step with a `Window` and the limits by name; it reads nothing else.
`window.each(kind)` gives tensors and their records in forward order, `window.stats(tensor, step)` and
`window.first(tensor)` those of another step and of the first one, `window.scalar("loss", step)` what was logged, and
`window.model.layers` every weight matrix with what is around it. A check that raises is told in the log; the other
rules judge on. `watch(model, rules=[rule])` judges by that rule alone.

In a job with a collector, the collector judges: name the module in the `plugins` of its file, or set `on_finding`, to
judge by registered rules in the job as well. A rules file runs the code of its plugins, so it is trusted like a
script.
"""
