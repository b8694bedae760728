"""The rule of the labels, and the scoring, on curves and verdicts made by hand."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks.starts.labels import Outcome, label, outcome, step_below, troubles, yardstick
from tests.benchmarks.starts.scoring import Judged, Rate, complaint, same_place, score
from tests.benchmarks.starts.sources import Labelled

STEPS = 200


def curve(half_way: int, end: float, start: float = 2.0) -> list[float]:
    """Falls in a straight line from `start`, is half-way at that step, and stays at `end`."""
    return [max(end, start - (start - end) * i / (2 * half_way)) for i in range(STEPS)]


TWIN = yardstick([[curve(20, 0.2)] * 3], trivial=2.0)


def test_the_twin_is_the_reference_that_ends_lowest():
    twin = yardstick([[curve(20, 0.6)] * 3, [curve(30, 0.2)] * 3], trivial=2.0)
    assert twin.final == pytest.approx(0.2)
    assert twin.gain == pytest.approx(1.8)
    assert twin.level == pytest.approx(1.1)
    assert 30 <= twin.half_way <= 35  # the running median lags by four steps


def test_no_reference_that_learned_is_an_error():
    with pytest.raises(ValueError, match="no reference learned"):
        yardstick([[[2.0] * STEPS]], trivial=2.0)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (curve(20, 0.2), Outcome.HEALTHY),
        (curve(28, 0.3), Outcome.HEALTHY),
        (curve(45, 0.2), Outcome.AMBIGUOUS),  # later, not three times as late
        (curve(20, 0.9), Outcome.AMBIGUOUS),  # in time, and learned too little
        (curve(85, 0.2), Outcome.DEGRADED),
        (curve(20, 1.2), Outcome.DEGRADED),  # never half-way
        (curve(20, 1.9), Outcome.FAILED),
        ([2.0] * STEPS, Outcome.FAILED),
        (curve(20, 0.2)[:90], Outcome.FAILED),  # ended early
        ([*curve(20, 0.2)[:-1], math.nan], Outcome.FAILED),
        ([1e9 + i for i in range(STEPS)], Outcome.FAILED),
    ],
)
def test_the_outcome_of_a_curve(losses, expected):
    assert outcome(losses, STEPS, 2.0, TWIN) is expected


def test_a_single_lucky_step_is_not_half_way():
    losses = [2.0] * 50
    losses[10] = 0.0
    assert step_below(losses, 1.0) is None


def test_seeds_that_disagree_are_ambiguous():
    assert label({"0": Outcome.FAILED, "1": Outcome.FAILED}) is Outcome.FAILED
    assert label({"0": Outcome.FAILED, "1": Outcome.HEALTHY}) is Outcome.AMBIGUOUS


def test_a_group_that_cannot_judge_says_so():
    slow = yardstick([[curve(80, 0.2)] * 3], trivial=2.0)
    little = yardstick([[curve(20, 1.8)] * 3], trivial=2.0)
    assert troubles(TWIN, STEPS, 2.0) == []
    assert "half-way at step" in troubles(slow, STEPS, 2.0)[0]
    assert "gains only" in troubles(little, STEPS, 2.0)[0]


def case(outcome: Outcome, **other: object) -> Labelled:
    known = {"id": "g/c", "source": "own", "family": "f", "cause": "zero_symmetric", "also": ("too_small_vanish",),
             "layers": ("body.2",), "learned_in_half": 0, "least_gain": 0.0}  # fmt: skip
    return Labelled(outcome=outcome, **{**known, **other})  # type: ignore[arg-type]


OK = {"level": "ok", "step": None, "causes": [], "layers": []}


def said(level: str, step: int, causes: tuple[str, ...] = (), layers: tuple[str, ...] = ()) -> dict[str, object]:
    return {"level": level, "step": step if level == "critical" else None, "warn_step": step, "causes": list(causes),
            "layers": list(layers)}  # fmt: skip


GOOD = said("critical", 3, ("too_small_vanish",), ("body.2.weight",))


def test_a_failed_case_is_caught_by_most_of_its_seeds_in_time():
    assert score([Judged(case(Outcome.FAILED), [GOOD, GOOD, OK])]).recall_failed == Rate(1, 1)
    assert score([Judged(case(Outcome.FAILED), [GOOD, OK, OK])]).recall_failed == Rate(0, 1)
    late = said("critical", 21)
    assert score([Judged(case(Outcome.FAILED), [late] * 3)]).recall_failed == Rate(0, 1)


def test_one_seed_makes_a_false_alarm():
    found = score([Judged(case(Outcome.HEALTHY), [OK, OK, said("warning", 50)])])
    assert found.any_alert_healthy == Rate(1, 1)
    assert found.false_critical_healthy == Rate(0, 1)


def test_what_is_wrong_is_said():
    assert complaint(Judged(case(Outcome.FAILED), [GOOD] * 3)) == ""
    assert complaint(Judged(case(Outcome.FAILED), [OK] * 3)) == "MISSED"
    assert complaint(Judged(case(Outcome.FAILED, learned_in_half=3), [OK] * 3)) == "missed (late)"
    assert complaint(Judged(case(Outcome.FAILED), [said("warning", 2)] * 3)) == "warned only"
    assert complaint(Judged(case(Outcome.HEALTHY), [OK, OK, GOOD])) == "FALSE CRITICAL"
    assert complaint(Judged(case(Outcome.FAILED), [said("critical", 1, ("dead_relu",))] * 3)) == "wrong cause and layer"
    assert complaint(Judged(case(Outcome.AMBIGUOUS, least_gain=0.9), [GOOD] * 3)) == "critical on slow"
    assert complaint(Judged(case(Outcome.AMBIGUOUS, least_gain=0.2), [GOOD] * 3)) == ""


@pytest.mark.parametrize(
    ("named", "faulty", "same"),
    [
        ("body.2", "body.2", True),
        ("body.2.weight", "body.2", True),
        ("layers.1.attn.q_proj", "layers.1.attn", True),
        ("layers.1.attn", "layers.1.attn.q_proj", True),
        ("layers", "layers.1", False),
        ("body.4", "body.2", False),
        ("body.20", "body.2", False),
    ],
)
def test_a_part_of_a_layer_and_what_is_right_around_it_are_the_same_place(named, faulty, same):
    assert same_place(named, faulty) is same


def test_the_interval_is_wilsons():
    low, high = Rate(38, 39).interval
    assert (low, high) == (pytest.approx(0.868, abs=1e-3), pytest.approx(0.9955, abs=1e-3))
    assert str(Rate(0, 0)) == "–"
