"""Rules never raise, whatever a window holds; and what does not matter does not change their verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from initscope.hooks.moments import ChannelStats, Moments, TensorStats
from initscope.hooks.rules import RULES, Finding, Model, Window, advance, diagnose, judged
from initscope.hooks.theory import predicted_profile
from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import OptimizerInfo, RunDescription, TensorInfo, tensor_key
from tests.support import networks as n

NUMBER = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-10, 10),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, 3e38, 1e-200, 1e300]),
)
SIZE = st.one_of(st.floats(0, math.inf), st.floats(0, 10), st.sampled_from([0.0, math.nan]))
FRACTION = st.one_of(st.floats(0, 1), st.sampled_from([math.nan, 0.0, 1.0, math.inf]))


@st.composite
def records(draw: st.DrawFn) -> TensorStats:
    count = draw(st.integers(0, 10_000))
    nan, inf, zero = (draw(st.integers(0, count)) if draw(st.booleans()) else 0 for _ in range(3))
    nan, inf = min(nan, count), min(inf, count - min(nan, count))
    powers = (draw(SIZE), draw(NUMBER), draw(SIZE))
    moments = Moments(count, nan, inf, 0, min(zero, count), draw(NUMBER), *powers, draw(NUMBER), draw(NUMBER))
    return TensorStats(moments, ChannelStats(*(draw(FRACTION) for _ in range(4))))


WORDS = st.sampled_from([None, "", "relu", "ReLU", "tanh", "sigmoid", "gelu", "unheard_of"])
PATHS = st.sampled_from(
    ["", "a", "b.0", "b.1", "b.2", "c.qkv", "c.q_proj", "c.k_proj", "lora_A", "lora_B", "experts.0", "a\u202eb", "x y"]
)

TYPES = ["", "Linear", "Conv2d", "ConvTranspose2d", "Embedding", "LSTM", "MultiheadAttention"]


@st.composite
def tensors(draw: st.DrawFn) -> TensorInfo:
    path, name, kind = (
        draw(PATHS),
        draw(st.sampled_from(["weight", "bias", "output", "in_proj_weight", "wéight"])),
        None,
    )
    kind = draw(st.sampled_from(Kind))
    return TensorInfo(
        key=tensor_key(path, name, kind),
        module_path=path,
        name=name,
        kind=kind,
        role=draw(st.sampled_from(Role)),
        module_type=draw(
            st.sampled_from(["", "Linear", "Conv2d", "ConvTranspose2d", "Embedding", "LSTM", "MultiheadAttention"])
        ),
        dtype=draw(st.sampled_from(["", "float32", "float16", "bfloat16"])),
        block=draw(st.sampled_from([None, path])),
        shape=draw(st.lists(st.integers(0, 70), max_size=4)),
        fan_in=draw(st.one_of(st.none(), NUMBER)),
        fan_out=draw(st.one_of(st.none(), NUMBER)),
        depth=draw(st.one_of(st.none(), st.integers(0, 9))),
        activation_before=draw(WORDS),
        activation_after=draw(WORDS),
        norm_before=draw(st.sampled_from([None, None, "layer_norm"])),
        norm_after=draw(st.sampled_from([None, None, "batch_norm"])),
        residual=draw(st.booleans()),
        tied_with=draw(st.sampled_from([None, "head"])),
        trainable=draw(st.booleans()),
    )


OPTIMIZERS = st.lists(
    st.builds(OptimizerInfo, name=st.sampled_from(["SGD", "Adam"]), lr=st.one_of(st.none(), NUMBER)), max_size=2
)


@st.composite
def any_window(draw: st.DrawFn) -> Window:
    known = {t.key: t for t in draw(st.lists(tensors(), max_size=14))}
    keys = st.sampled_from(sorted(known)) if known else st.nothing()
    rows = st.dictionaries(keys, records(), max_size=14) if known else st.just({})
    steps = {step: draw(rows) for step in draw(st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True))}
    description = RunDescription(
        optimizers=draw(OPTIMIZERS),
        output_classes=draw(st.one_of(st.none(), st.integers(0, 50))),
        loss=draw(st.sampled_from([None, "cross_entropy", "mse"])),
        batch_size=draw(st.one_of(st.none(), st.integers(0, 64))),
        pretrained=draw(st.sampled_from([None, True, False])),
    )
    first = min(steps)
    scalars = {"loss": [(step, draw(NUMBER)) for step in sorted(steps)]}
    baseline = steps[first] if draw(st.booleans()) else draw(rows)
    return Window(Model(known, description), steps, baseline, first if draw(st.booleans()) else 0, scalars)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_window())
def test_no_window_makes_a_rule_raise(window: Window) -> None:
    found = diagnose(window, RULES)
    advance({}, found, window.step, {r.id: r for r in RULES}, judged(window, RULES))
    predicted_profile(window.model.tensors, window.now)
    assert all(f.diagnosis and f.remedy and f.step == window.step for root in found for f, _ in root.flattened())


def test_an_empty_model_has_no_findings() -> None:
    assert diagnose(Window(Model({}), {0: {}}), RULES) == []


@pytest.fixture(scope="module")
def vanishing() -> Window:
    return n.watched(n.mlp(10), start=n.draw(n.normal(0.02)), steps=2)[-1]


@pytest.mark.parametrize("lost", list(Kind))
def test_a_kind_that_is_absent_leaves_the_other_findings(vanishing: Window, lost: Kind) -> None:
    keep = {key for key, t in vanishing.model.tensors.items() if t.kind is not lost}
    steps = {step: {k: s for k, s in rows.items() if k in keep} for step, rows in vanishing.steps.items()}
    found = diagnose(replace(vanishing, steps=steps, baseline=steps[0]), RULES)
    assert found


@given(st.sets(st.integers(0, 200)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_step_that_lacks_records_is_judged_by_what_is_there(vanishing: Window, lost: set[int]) -> None:
    rows = {k: s for at, (k, s) in enumerate(vanishing.now.items()) if at not in lost}
    found = diagnose(replace(vanishing, steps={0: rows}, baseline=rows, baseline_step=0), RULES)
    judged = {vanishing.model.tensors[key].module_path for key in rows}
    assert {f.module_path for f in found} <= judged | {None}


def verdicts(window: Window) -> set[tuple[str, str, str, str | None]]:
    return {(f.rule, f.severity.value, f.cause.value, f.module_path) for f in n.everything(window)}


STARTS: dict[str, tuple[Callable[[], nn.Sequential], n.Start]] = {
    "He": (lambda: n.mlp(8), n.he),
    "small": (lambda: n.mlp(8), n.normal(0.02)),
    "large": (lambda: n.mlp(8), n.normal(1.0)),
    "zero": (lambda: n.mlp(5, nn.Tanh), n.constant(0.0)),
    "tanh": (lambda: n.mlp(6, nn.Tanh), n.xavier),
}


@pytest.mark.parametrize("name", STARTS)
def test_the_order_of_units_does_not_matter(name: str) -> None:
    model, scheme = STARTS[name]

    def shuffled(network: nn.Sequential) -> None:
        n.draw(scheme)(network)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
        network[2].weight.copy_(network[2].weight[order])
        network[4].weight.copy_(network[4].weight[:, order])

    plain = n.watched(model(), start=n.draw(scheme), steps=1)[0]
    mixed = n.watched(model(), start=shuffled, steps=1)[0]
    assert verdicts(plain) == verdicts(mixed)


def scaled(stats: TensorStats, factor: float) -> TensorStats:
    m = stats.moments
    return replace(
        stats,
        moments=replace(
            m, mean=m.mean * factor, m2=m.m2 * factor**2, m3=m.m3 * factor**3, m4=m.m4 * factor**4,
            min=m.min * factor, max=m.max * factor,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("factor", [0.125, 4.0])
def test_propagation_does_not_depend_on_the_unit_of_the_data_or_of_the_loss(name: str, factor: float) -> None:
    model, scheme = STARTS[name]
    window = n.watched(model(), start=n.draw(scheme), steps=1)[0]
    for kind in (Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT):
        rows = {
            key: scaled(s, factor) if window.model.tensors[key].kind is kind else s for key, s in window.now.items()
        }
        other = replace(window, steps={0: rows}, baseline=rows)
        assert _propagation(other) == _propagation(window)


def _propagation(window: Window) -> set[tuple[str, str, str | None, float]]:
    def size(finding: Finding) -> float:
        return round(float(finding.evidence.get("octaves", 0.0)), 6)

    return {
        (f.rule, f.severity.value, f.module_path, size(f))
        for f in n.everything(window)
        if f.rule in ("forward-drift", "backward-drift", "signal-collapse")
    }
