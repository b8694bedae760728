"""Rules on the loss before anything was learned."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Final

from initscope.hooks.rules.blame import Blame, blame_scale, blamed, hot_stream, tied_logit_std, token_table
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import number, redraw
from initscope.hooks.rules.signals import is_trained, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.theory import initial_loss, logit_std_of_loss, trivial_loss
from initscope.hooks.vocabulary import Cause, Kind, Severity

LOUD_STREAM: Final = 2.0
"""Octaves from the first output to the head's input that explain logits that are too large."""
_RECENT: Final = 5
"""Losses whose median says whether anything was learned."""
_LEARNED: Final = 0.9
"""Share of the loss of knowing nothing under which something was."""
_ROOM: Final = 1.2
"""Times the largest cross entropy of some logits that a mean over a batch is allowed to be: formats round."""
_LOSSES: Final = (None, "cross_entropy", "nll_loss", "crossentropyloss")


def loss_excess(window: Window) -> tuple[float, float] | None:
    """(initial loss − ln C, ln C); None where no loss, no classes or another loss is known.

    A loss that these logits cannot have is another one: a sum over samples or heads, or times a weight. A sample's
    cross entropy is at most ln C + the largest logit − the smallest.
    """
    description = window.model.description
    classes = description.output_classes
    loss = window.scalar("loss", window.baseline_step)
    if loss is None or not math.isfinite(loss) or classes is None or classes < 2 or description.loss not in _LOSSES:
        return None
    uniform = trivial_loss(classes)
    spread = _logit_spread(window)
    if spread is not None and loss > _ROOM * (uniform + spread):
        return None
    return loss - uniform, uniform


def _logit_spread(window: Window) -> float | None:
    """Largest logit of the first step less the smallest; None where no module makes the logits."""
    head = next((x for x in window.model.layers if x.is_head and x.is_plain), None)
    logits = window.first(head.output) if head is not None else None
    spread = logits.moments.max - logits.moments.min if logits is not None else math.nan
    return spread if math.isfinite(spread) else None


def uniform_loss(window: Window) -> float:
    """The cross entropy of a uniform guess, ln C; 0 for another loss and where no loss was logged."""
    known = loss_excess(window)
    return known[1] if known is not None else 0.0


def loss_rise(window: Window, step: int | None = None) -> float | None:
    """The loss at a step ÷ what it was before anything was learned; None where one of them is unknown.

    Before: the larger of the first loss and, for a cross entropy, ln C, which a small first loss may be below of.
    """
    first = window.scalar("loss", window.baseline_step)
    now = window.scalar("loss", window.step if step is None else step)
    if first is None or now is None or not math.isfinite(first) or math.isnan(now):
        return None
    before = max(first, uniform_loss(window))
    return now / before if before > 0.0 else None


def is_stuck(window: Window, wait: float) -> bool:
    """Whether after `wait` steps the loss is still what knowing nothing costs: ln C, or the first loss if not known."""
    before = uniform_loss(window) or window.scalar("loss", window.baseline_step)
    recent = [loss for step in sorted(window.steps)[-_RECENT:] if (loss := window.scalar("loss", step)) is not None]
    if before is None or not recent or window.step - window.baseline_step < wait:
        return False
    return not median(recent) < _LEARNED * before


def blame_loss(window: Window) -> Blame:
    """What makes the outputs too large: what was too large at the start, a residual stream, else the head."""
    return (
        blame_scale(window)
        or _residual_stream(window)
        or Blame(Cause.BAD_OUTPUT_HEAD, None, "the outputs are too large", _smaller_head(window))
    )


def check_initial(window: Window, limits: Limits) -> Iterable[Finding]:
    """A first loss above that of a uniform guess: the logits say more than the model can know."""
    known = loss_excess(window)
    if known is None:
        return
    excess, uniform = known
    if excess <= max(limits["info_nats"], limits["info_share"] * uniform):
        return
    share = excess / max(uniform, 1.0)
    # What was trained for other labels is sure of them.
    severity = Severity.WARNING if share > limits["warning_share"] and not is_trained(window) else Severity.INFO
    classes = window.model.description.output_classes or 2
    std = logit_std_of_loss(classes, uniform + excess)
    blame = blame_loss(window)
    if share > limits["critical_share"] and blame.cause is Cause.TOO_LARGE_EXPLODE:
        severity = Severity.CRITICAL
    diagnosis = (
        f"The first loss is {number(uniform + excess)}, a uniform guess over {classes} classes has "
        f"{number(uniform)}: {blame.why}, which fits logits of std {number(std)}."
    )
    evidence = {"loss": uniform + excess, "trivial_loss": uniform, "excess": excess, "implied_logit_std": std}
    yield blamed(INITIAL_LOSS.id, severity, blame, window.step, diagnosis, evidence)


def _residual_stream(window: Window) -> Blame | None:
    """A head of the usual size that gets too much from residual branches."""
    has_branches = any(x.is_residual for x in window.model.layers)
    return hot_stream(window, LOUD_STREAM) if has_branches else None


def _smaller_head(window: Window) -> str:
    head = next((x for x in window.model.layers if x.is_head), None)
    return (
        redraw(head, rms(window.stats(head.weight))) if head is not None else "# make the last layer's weights smaller"
    )


def check_embedding(window: Window, limits: Limits) -> Iterable[Finding]:
    """A token table that is the head too, and too large for it."""
    table = token_table(window)
    std = tied_logit_std(window, table) if table is not None else None
    if table is None or std is None or std <= limits["logit_std"] or is_trained(window):
        return
    known = loss_excess(window)
    classes = table.weight.shape[0]
    predicted = initial_loss(classes, std)
    critical = known is not None and known[0] > limits["critical_share"] * known[1] and predicted > 0.25 * sum(known)
    size = rms(window.stats(table.weight)) or 0.0
    healthy = 1.0 / math.sqrt(table.weight.shape[-1])
    heard = "" if known is None else f", and the first loss is {number(sum(known))} instead of {number(known[1])}"
    yield Finding(
        rule=EMBEDDING_SCALE.id,
        severity=Severity.CRITICAL if critical else Severity.WARNING,
        cause=Cause.BAD_EMBEDDING_SCALE,
        step=window.step,
        subject="table",
        module_path=table.path,
        tensor_name=table.weight.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{table.path} is embedding and head at once and has std {number(size)}: logits of a normalized "
        f"state get std {number(std)}{heard}.",
        remedy=f"{redraw(table, size)}, at most {number(healthy)}, which is 1/√{table.weight.shape[-1]}",
        evidence={
            "std": size,
            "logit_std": std,
            "predicted_loss": predicted,
            "loss": sum(known) if known else math.nan,
        },
    )


INITIAL_LOSS: Final = Rule(
    id="initial-loss",
    family="loss",
    check=check_initial,
    limits={"info_nats": 0.5, "info_share": 0.1, "warning_share": 6.0, "critical_share": 100.0},
    baseline_only=True,
    explained_by=(
        "embedding-scale",
        "forward-drift",
        "backward-drift",
        "residual-stream",
        "unscaled-input",
        "saturation",
        "nonfinite",
        "update-ratio",
    ),
    title="The first loss is above that of knowing nothing",
    statistic="First logged cross entropy − ln C. Info from the larger of `info_nats` and `info_share`·ln C, warning "
    "from `warning_share`·ln C (of one nat at least), critical from `critical_share`·ln C where the signal grew.",
    harmless="Some nats are common in healthy runs and vanish within steps, hence an info. A trained net "
    "with new labels starts high. Class weights, auxiliary losses, sums instead of means and label smoothing shift it. "
    "Off until a loss is logged.",
    remedy="Make what is named smaller: the head, the table, the stream, or scale the input.",
    source="Random logits of std σ cost ln C + σ²/2, and σ·√(2 ln C) for large σ (Derrida 1981).",
)
EMBEDDING_SCALE: Final = Rule(
    id="embedding-scale",
    family="loss",
    check=check_embedding,
    limits={"logit_std": 4.0, "critical_share": 3.0},
    needs=(Kind.WEIGHT,),
    baseline_only=True,
    title="A tied embedding that is too large to be a head",
    statistic="std · √width of a token table that is the head too is above `logit_std`. Critical where the first loss "
    "is more than `critical_share`·ln C above ln C and the table explains it.",
    harmless="Tables of their own, with a norm behind them, may have std 1. Trained tables are not judged.",
    remedy="`nn.init.normal_(table, std=0.02)`, at most 1/√width.",
    source="Logits of a normalized state h and rows e: std(e·h) = std(e)·√width.",
)
RULES: Final = (EMBEDDING_SCALE, INITIAL_LOSS)
