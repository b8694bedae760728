"""Rules on parts of a model that stay asleep: branches that started at zero, experts that no token reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import code_path, healthy_std, listed, number, weight_code
from initscope.hooks.rules.signals import is_zero
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity
from initscope.hooks.wire import TensorInfo

_SHIFTS: Final = (Role.BIAS, Role.NORM_BIAS, Role.EMBEDDING, Role.POSITION)
_EXPERT: Final = "expert"


def check_stuck(window: Window, limits: Limits) -> Iterable[Finding]:
    """What started at zero, may learn, and is still zero after some steps that moved others."""
    if not _others_move(window):
        return
    age = window.step - window.baseline_step
    zero = [t for t in window.model.by_kind[Kind.WEIGHT] if _is_asleep(window, t)]
    pairs = [t for t in zero if _has_zero_partner(t, zero)]
    stuck = zero if age >= limits["steps"] else pairs if age >= limits["pair_steps"] else []
    if not stuck:
        return
    first = stuck[0]
    why = ": so is its partner, and each waits for the other's gradient" if first in pairs else ""
    yield Finding(
        rule=STUCK_BRANCH.id,
        severity=Severity.WARNING,
        cause=Cause.STUCK_BRANCH,
        step=window.step,
        subject="run",
        module_path=first.module_path,
        tensor_name=first.name,
        kind=Kind.WEIGHT,
        diagnosis=f"{_name(first)} started at zero and is zero after {age} steps that moved others{why}: what it gates "
        f"takes no part{_more(len(stuck))}.",
        remedy=_wake(window, first),
        evidence={"steps": float(age), "layers": listed([_name(t) for t in stuck])},
    )


def _is_asleep(window: Window, tensor: TensorInfo) -> bool:
    shifts = tensor.role in _SHIFTS or "bias" in tensor.name or _EXPERT in tensor.module_path.lower()
    return tensor.trainable and not shifts and is_zero(window.first(tensor)) and is_zero(window.stats(tensor))


def _others_move(window: Window) -> bool:
    """Whether the steps of the window moved anything: a warm-up that starts at a rate of zero moves nothing."""
    return any(s.moments.count > 0 and not is_zero(s) for _, s in window.each(Kind.UPDATE))


def _has_zero_partner(tensor: TensorInfo, zero: Iterable[TensorInfo]) -> bool:
    """Whether the two matrices of a low-rank pair (LoRA's A and B) are both zero."""
    pair = _pair(tensor)
    return pair is not None and any(_pair(other) == pair and other.key != tensor.key for other in zero)


def _pair(tensor: TensorInfo) -> str | None:
    """What the two matrices of a low-rank pair have in common; None for others."""
    name = f"{tensor.module_path}.{tensor.name}".lower()
    if "lora" not in name:
        return None
    for mark in ("lora_a", "lora_b", "lora_up", "lora_down"):
        name = name.replace(mark, "lora")
    return name


def _wake(window: Window, tensor: TensorInfo) -> str:
    layer = next((x for x in window.model.layers if x.weight.key == tensor.key), None)
    if layer is not None:
        return f"nn.init.normal_({weight_code(layer)}, std={number(healthy_std(layer))})  # one of two may be zero"
    return f"nn.init.constant_({code_path(tensor.module_path, tensor.name)}, 0.1)  # instead of 0; and look at its rate"


def check_experts(window: Window, limits: Limits) -> Iterable[Finding]:
    """Experts without a gradient in every step of a window, while their siblings had some."""
    if window.step - window.baseline_step < limits["steps"]:
        return
    fed = _fed_experts(window)
    for group in sorted({path.rpartition(".")[0] for path in fed}):
        experts = {path: is_fed for path, is_fed in fed.items() if path.rpartition(".")[0] == group}
        starved = [path for path, is_fed in experts.items() if not is_fed]
        if starved and len(starved) < len(experts):
            yield Finding(
                rule=STARVED_EXPERTS.id,
                severity=Severity.INFO,
                cause=Cause.STARVED_UPDATE,
                step=window.step,
                subject=group,
                module_path=starved[0],
                kind=Kind.GRADIENT,
                diagnosis=f"{len(starved)} of {len(experts)} experts of {group} had no gradient in the last "
                f"{len(window.steps)} sampled steps: the router sends them nothing.",
                remedy="loss = loss + 0.01 * router_balance_loss  # or noise on the router's logits while it starts",
                evidence={"starved": float(len(starved)), "experts": float(len(experts)), "layers": listed(starved)},
            )


def _fed_experts(window: Window) -> Mapping[str, bool]:
    """Path of each expert, and whether any of its matrices had a gradient in the window."""
    fed: dict[str, bool] = {}
    for layer in window.model.layers:
        parts = layer.path.split(".")
        at = next((i for i, part in enumerate(parts) if _EXPERT in part.lower()), None)
        if at is None or at + 1 >= len(parts) or not parts[at + 1].isdigit() or not layer.weight.trainable:
            continue
        path = ".".join(parts[: at + 2])
        records = [window.stats(layer.gradient, step) for step in window.steps]
        has = any(s is not None and not is_zero(s) for s in records)
        fed[path] = fed.get(path, False) or has
    return fed


def _name(tensor: TensorInfo) -> str:
    return f"{tensor.module_path}.{tensor.name}" if tensor.module_path else tensor.name


def _more(count: int) -> str:
    return "" if count < 2 else f"; so it is with {count - 1} more"


STUCK_BRANCH: Final = Rule(
    id="stuck-branch",
    family="weights",
    check=check_stuck,
    limits={"steps": 10, "pair_steps": 2},
    patience=2,
    needs=(Kind.WEIGHT, Kind.UPDATE),
    explained_by=("zero-weights", "norm-gain", "dead-units", "disconnected", "unoptimized"),
    title="A branch that started at zero and never wakes",
    statistic="A trainable matrix, gain or gate that was zero at the start is zero after `steps` steps that moved "
    "other weights; after `pair_steps` where both matrices of a LoRA pair are zero.",
    harmless="Zero heads, residual outputs, gains and LoRA's B move with the first step. A learning rate that warms "
    "up from zero moves nothing at first. Biases, tables and experts are not judged.",
    remedy="Start one of the two factors at random, or the gate a little above zero.",
    source="The gradient of a product a·b at a = b = 0 is zero for both.",
)
STARVED_EXPERTS: Final = Rule(
    id="starved-experts",
    family="weights",
    check=check_experts,
    limits={"steps": 100},
    patience=2,
    needs=(Kind.GRADIENT,),
    title="Experts that no token reaches",
    statistic="An expert (a numbered child of a module with `expert` in its name) had no gradient in any sampled step "
    "of the window, after `steps` steps, while a sibling had some.",
    harmless="In the first steps top-k routing leaves experts out by chance.",
    remedy="A load-balancing loss, or noise on the router's logits.",
    source="Shazeer et al. 2017: routers favour the experts that they have trained.",
)
RULES: Final = (STUCK_BRANCH, STARVED_EXPERTS)
