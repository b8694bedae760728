from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks.comparison import CoordinateCheck, Subject, check_coordinates, widths_of
from initscope.hooks.comparison.coordinates import least_squares
from initscope.hooks.vocabulary import Kind
from tests.support import networks as n
from tests.support.collector import info, stats
from tests.support.oracle import windows

WIDTHS = (32, 64, 128, 256)


def standard(width: int, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """He at every width, Adam with one learning rate."""
    torch.manual_seed(seed)
    model = n.mlp(3, width=width)
    with torch.no_grad():
        n.draw(n.he)(model)
    return model, torch.optim.Adam(model.parameters(), lr=0.02)


def mu_p(width: int, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Tensor Programs V, table 3: Adam's rate of hidden matrices and head ∝ 1/width, the head drawn ∝ 1/width."""
    model, _ = standard(width, seed)
    layers = [module for module in model if isinstance(module, nn.Linear)]  # type: ignore[attr-defined]
    with torch.no_grad():
        layers[-1].weight.normal_(0.0, 1.0 / width)
    wide = [layer.weight for layer in layers[1:]]
    rest = [p for p in model.parameters() if not any(p is w for w in wide)]
    groups = [{"params": wide, "lr": 0.02 * 32 / width}, {"params": rest}]
    return model, torch.optim.Adam(groups, lr=0.02)


def constant_std(width: int, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """One std for all widths: too large from the first forward on."""
    model, optimizer = standard(width, seed)
    with torch.no_grad():
        n.draw(n.normal(0.2))(model)
    return model, optimizer


def check(make, *, steps: int = 6, seeds=(1, 2)) -> CoordinateCheck:
    torch.set_num_threads(1)
    subjects = []
    for width in WIDTHS:
        for seed in seeds:
            model, optimizer = make(width, seed)
            seen = list(windows(model, lambda _, tuner=optimizer: tuner, n.vectors(), F.cross_entropy, steps))
            subjects.append(Subject(width, seen[-1].model.tensors, {w.step: w.now for w in seen}))
    return check_coordinates(subjects)


def test_a_standard_net_with_one_learning_rate_grows_with_width_once_it_is_updated() -> None:
    result = check(standard)
    head = next(c for c in result.coordinates if c.module_path == "6")
    assert head.grows_from in (1, 2)
    assert head.largest.slope > 0.4
    assert not any(c.slopes[0].grows for c in result.coordinates)
    assert "learning rate" in result.diagnosis
    assert "from step" in result.diagnosis


def test_a_net_in_mu_p_stays_flat() -> None:
    result = check(mu_p)
    assert result.growing == ()
    assert "stable in width" in result.diagnosis
    hidden = [c for c in result.coordinates if c.module_path in ("0", "2", "4")]
    assert len(hidden) == 3
    assert all(abs(s.slope) < 0.25 for c in hidden for s in c.slopes)
    head = next(c for c in result.coordinates if c.module_path == "6")
    assert head.slopes[0].slope == pytest.approx(-0.5, abs=0.3)


def test_one_run_a_width_is_enough_since_its_draw_is_the_same_at_every_step() -> None:
    grown = check(standard, seeds=(3,))
    head = next(c for c in grown.coordinates if c.module_path == "6")
    assert head.grows_from in (1, 2)
    rise = head.slopes[head.grows_from].rise
    assert rise == pytest.approx(head.slopes[head.grows_from].slope - head.slopes[0].slope)
    assert head.slopes[0].rise is None
    assert [check(mu_p, seeds=(seed,)).growing for seed in (3, 4, 5)] == [()] * 3


def test_a_std_that_ignores_width_grows_from_the_first_forward_on() -> None:
    result = check(constant_std, steps=1)
    slopes = {c.module_path: c.slopes[0].slope for c in result.coordinates}
    # √width a layer behind the first, which has sixteen inputs at any width.
    assert [slopes[p] for p in ("0", "2", "4")] == pytest.approx([0.0, 0.5, 1.0], abs=0.15)
    assert "initialization" in result.diagnosis
    assert result.growing[0].module_path == "2"


def test_the_fit_is_that_of_numpy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x = rng.choice([5.0, 6.0, 7.0, 8.0, 9.0], 9)
        y = 0.4 * x + rng.normal(0, 0.3, 9)
        (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
        found = least_squares([(a, b, 0.0) for a, b in zip(x, y, strict=True)])
        assert found == (pytest.approx(slope), pytest.approx(math.sqrt(covariance[0, 0])))


def test_known_deviations_of_the_points_are_an_error_of_the_slope() -> None:
    rng = np.random.default_rng(2)
    x = np.array([5.0, 6.0, 7.0])
    deviation = np.array([0.5, 0.3, 0.1])
    slopes = [np.polyfit(x, 0.3 * x + rng.normal(0, deviation), 1)[0] for _ in range(4_000)]
    exact = [(a, 0.3 * a, d) for a, d in zip(x, deviation, strict=True)]
    assert least_squares(exact) == (pytest.approx(0.3), pytest.approx(np.std(slopes), rel=0.05))


def made(rms, *, widths=(32.0, 64.0, 128.0), step: int = 1) -> CoordinateCheck:
    tensor = info("fc", "output", Kind.ACTIVATION, depth=0)
    records = [{} if x is None else {tensor.key: x} for x in rms]
    return check_coordinates(
        [Subject(w, {tensor.key: tensor}, {step: r}) for w, r in zip(widths, records, strict=True)]
    )


def test_shrinking_is_measured_and_not_flagged() -> None:
    result = made([stats(std=1.0), stats(std=2**-0.5), stats(std=0.5)])
    (coordinate,) = result.coordinates
    assert coordinate.slopes[0].slope == pytest.approx(-0.5)
    assert coordinate.grows_from is None


def test_a_slope_within_its_error_is_not_flagged() -> None:
    result = made([stats(std=1.0), stats(std=8.0), stats(std=2.0)])
    (slope,) = result.coordinates[0].slopes
    assert slope.slope == pytest.approx(0.5)
    assert slope.error > 1.0
    assert not slope.grows


def test_what_fewer_than_three_widths_have_is_left_out() -> None:
    assert made([stats(), None, stats()]).coordinates == ()
    assert "three widths" in made([stats(), None, stats()]).diagnosis
    assert made([stats()] * 3, widths=(32.0, 32.0, 64.0)).coordinates == ()
    zero = stats(mean=0.0, std=0.0, kurtosis=0.0)
    assert made([stats(), zero, stats()]).coordinates == ()
    assert check_coordinates([]).coordinates == ()


@pytest.mark.parametrize("width", [32, 128])
def test_the_width_of_a_run_is_read_from_its_shapes(width: int) -> None:
    tensors = n.watched(n.mlp(3, width=width), steps=1)[0].model.tensors
    assert widths_of([(tensors, {})]) == [width]


def test_a_width_in_every_config_wins_and_in_some_configs_does_not() -> None:
    tensors = n.watched(n.mlp(3, width=48), steps=1)[0].model.tensors
    assert widths_of([(tensors, {"hidden_size": 768}), (tensors, {"hidden_size": 1024})]) == [768, 1024]
    assert widths_of([(tensors, {"hidden_size": 768}), (tensors, {})]) == [48, 48]
    assert widths_of([(tensors, {"width": "48"}), (tensors, {"width": True})]) == [48, 48]
    assert widths_of([({}, {})]) == [None]
