"""The demo's runs by name: what each shows and what a diagnosis must say. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from initscope.hooks.vocabulary import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """One training of the demo. Runs of a group share architecture, data and budget, so their losses compare."""

    name: str
    title: str
    group: str
    steps: int
    cause: Cause = Cause.NONE
    """The cause that a diagnosis must name; NONE for a healthy run."""
    may_warn: bool = False
    """Whether a warning is fair although the run is healthy."""

    @property
    def is_broken(self) -> bool:
        """Whether the run is made to fail."""
        return self.cause is not Cause.NONE


RUNS: Final = (
    DemoRun(
        name="mlp-relu-normal",
        title="deep ReLU MLP, N(0, 1)",
        group="mlp-relu",
        steps=200,
        cause=Cause.TOO_LARGE_EXPLODE,
    ),
    DemoRun(
        name="mlp-relu-default",
        title="deep ReLU MLP, PyTorch default",
        group="mlp-relu",
        steps=200,
        cause=Cause.TOO_SMALL_VANISH,
    ),
    DemoRun(name="mlp-relu-he", title="deep ReLU MLP, He", group="mlp-relu", steps=200),
    DemoRun(
        name="mlp-tanh-zero",
        title="tanh MLP, zero weights",
        group="mlp-tanh",
        steps=200,
        cause=Cause.ZERO_SYMMETRIC,
    ),
    DemoRun(name="mlp-tanh-xavier", title="tanh MLP, Xavier", group="mlp-tanh", steps=200),
    DemoRun(
        name="cnn-plain-small",
        title="deep CNN, N(0, 0.01), no normalization",
        group="cnn",
        steps=160,
        cause=Cause.TOO_SMALL_VANISH,
    ),
    DemoRun(name="cnn-batchnorm-small", title="deep CNN, N(0, 0.01), BatchNorm", group="cnn", steps=160),
    DemoRun(name="gpt-scaled", title="small GPT, N(0, 0.02), scaled residuals", group="gpt", steps=200),
    DemoRun(
        name="gpt-unscaled", title="small GPT, N(0, 0.02), unscaled residuals", group="gpt", steps=200, may_warn=True
    ),
    DemoRun(
        name="gpt-embedding",
        title="small GPT, embedding × 100, tied head",
        group="gpt",
        steps=200,
        cause=Cause.BAD_EMBEDDING_SCALE,
    ),
    DemoRun(name="fine-tune", title="fine-tune of a network that the demo trained", group="fine-tune", steps=160),
)


def find(name: str) -> DemoRun:
    """The run of that name; `KeyError` with the known names otherwise."""
    for run in RUNS:
        if run.name == name:
            return run
    raise KeyError(f"no demo run {name!r}; there are {', '.join(r.name for r in RUNS)}")
