"""Records of real trainings against float64 twins, and which forwards count."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from initscope.hooks.moments import Moments, TensorStats
from initscope.hooks.probe.updates import sample_indices
from initscope.hooks.vocabulary import Kind
from tests.hooks.probe.test_reduce import assert_equal
from tests.support import models, oracle
from tests.support.recorded import Recorded, train, watched


class Twin:
    """Keeps whole tensors of every watched output, gradient and parameter, by plain hooks."""

    def __init__(self, model: nn.Module) -> None:
        self.outputs: dict[str, list[torch.Tensor]] = {}
        self.gradients: dict[str, list[torch.Tensor]] = {}
        for path, module in model.named_modules():
            module.register_forward_hook(lambda _m, _a, out, path=path: self._keep(path, out))

    def _keep(self, path: str, out: object) -> None:
        if isinstance(out, torch.Tensor) and out.is_floating_point():
            self.outputs.setdefault(path, []).append(out.detach().clone())
            if out.requires_grad:
                out.register_hook(lambda g: self.gradients.setdefault(path, []).append(g.clone()))


def channels_equal(found: TensorStats, twin: TensorStats) -> None:
    for name in ("signal_fraction", "dead_fraction", "saturated_fraction", "row_similarity"):
        a, b = getattr(found.channels, name), getattr(twin.channels, name)
        assert a == pytest.approx(b, abs=1e-5, nan_ok=True), name


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[..., tuple[torch.Tensor, torch.Tensor]]]] = {
    "mlp": (models.mlp, models.vectors),
    "functional": (models.FunctionalMlp, models.vectors),
    "cnn": (models.Cnn, models.images),
    "gpt": (models.Gpt, models.tokens),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_record_equals_its_twin(network: str) -> None:
    build, batch = NETWORKS[network]
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    monitor, r = watched(model)
    twin = Twin(model)
    for step in range(3):
        twin.outputs.clear()
        twin.gradients.clear()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        train(model, optimizer, [batch(seed=step)], models.loss_of)
        after = dict(model.named_parameters())
        seen = set()
        for key, stats in r.steps[step].items():
            info = r.infos[key]
            name = f"{info.module_path}.{info.name}".lstrip(".")
            seen.add((name, info.kind))
            if info.kind is Kind.WEIGHT:
                twins = oracle.tensor_stats_of(before[name], weight=True)
                channels_equal(stats, twins)
            elif info.kind is Kind.GRADIENT:
                twins = oracle.tensor_stats_of(after[name].grad)
            elif info.kind is Kind.UPDATE:
                twins = oracle.tensor_stats_of(after[name].detach().double() - before[name].double())
            elif info.kind is Kind.ACTIVATION:
                twins = oracle.tensor_stats_of(twin.outputs[info.module_path][0])
            else:
                twins = oracle.tensor_stats_of(twin.gradients[info.module_path][0])
            assert_equal(stats.moments, twins.moments)
        for name in before:
            assert {(name, k) for k in (Kind.WEIGHT, Kind.GRADIENT, Kind.UPDATE)} <= seen
    monitor.close()
    assert sorted(r.steps) == [0, 1, 2]


@pytest.mark.parametrize(
    ("model", "batch", "path", "axis", "activation"),
    [
        (models.mlp(), models.vectors(32), "2", -1, "relu"),
        (models.FunctionalMlp(), models.vectors(32), "second", -1, "relu"),
        (models.FunctionalMlp(), models.vectors(32), "third", -1, "tanh"),
        (models.Cnn(), models.images(6), "stem.0", 1, "relu"),
        (models.Cnn(), models.images(6), "blocks.1.bn1", 1, "relu"),
        (models.Cnn(), models.images(6), "blocks.1.conv1", 1, None),
        (models.Gpt(), models.tokens(), "blocks.0.fc1", -1, None),
    ],
)
def test_channel_statistics_equal_their_twin(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], path: str, axis: int, activation: str | None
) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    monitor, r = watched(model)
    twin = Twin(model)
    kept = {}
    model.get_submodule(path).register_forward_hook(lambda _m, _a, out: kept.__setitem__("x", out.detach().clone()))
    train(model, torch.optim.SGD(model.parameters(), lr=1e-3), [batch], models.loss_of)
    monitor.close()
    assert twin.outputs
    expected = oracle.tensor_stats_of(kept["x"], channels=True, activation=activation, axis=axis)
    assert math.isfinite(expected.channels.signal_fraction)
    channels_equal(r.at(0, path), expected)


def test_an_activation_module_tells_of_its_own_output() -> None:
    model = nn.Sequential(nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 30), nn.Sigmoid(), nn.Linear(30, 5))
    with torch.no_grad():
        model[0].weight.mul_(6)
        model[2].weight.mul_(30)
    monitor, r = watched(model)
    train(model, torch.optim.SGD(model.parameters(), lr=1e-3), [models.vectors(16)] * 2, models.loss_of)
    monitor.close()
    for step in (0, 1):
        for before, after in (("0", "1"), ("2", "3")):
            z = r.at(step, before).channels.saturated_fraction
            assert 0.05 < z < 0.95
            assert r.at(step, after).channels.saturated_fraction == pytest.approx(z, abs=1e-6)


def test_dead_channels_are_dead_over_all_batches_so_far() -> None:
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5))
    with torch.no_grad():
        model[0].bias[:4] = -100.0
    monitor, r = watched(model)
    batches = [models.vectors(1, seed=s) for s in range(6)]
    seen = []
    model[0].register_forward_hook(lambda _m, _a, out: seen.append(out.detach().clone()))
    train(model, torch.optim.SGD(model.parameters(), lr=0.0), batches, models.loss_of)
    monitor.close()
    for step in range(6):
        twin = oracle.dead_fraction_of(torch.cat(seen[: step + 1]))
        assert r.at(step, "0").channels.dead_fraction == pytest.approx(twin)
        assert r.at(step, "1").channels.dead_fraction == pytest.approx(twin)
    assert r.at(0, "0").channels.dead_fraction > r.at(5, "0").channels.dead_fraction >= 0.2
    assert math.isnan(r.at(0, "0").channels.signal_fraction), "one sample says nothing of a signal"


def test_row_similarity_finds_copies_and_leaves_zero_rows_out() -> None:
    model = nn.Sequential(nn.Linear(12, 100), nn.Linear(100, 3), nn.Linear(3, 4), nn.Linear(4, 5))
    with torch.no_grad():
        model[0].weight[0] = -2 * model[0].weight[50]  # both among the 64 that are compared: 0 and 32·100//64
        model[1].weight.zero_()
    monitor, r = watched(model)
    train(model, torch.optim.SGD(model.parameters(), lr=1e-3), [models.vectors()], models.loss_of)
    monitor.close()
    alike = [r.at(0, p, "weight", Kind.WEIGHT).channels.row_similarity for p in ("0", "1", "2", "3")]
    assert alike[0] == pytest.approx(1.0)
    assert [math.isnan(a) for a in alike[1:]] == [True, True, True]


def test_updates_of_a_large_tensor_are_those_of_its_sample() -> None:
    model = nn.Sequential(nn.Linear(12, 2000), nn.ReLU(), nn.Linear(2000, 5))
    monitor, r = watched(model)
    old = model[0].weight.detach().clone()
    train(model, torch.optim.Adam(model.parameters(), lr=1e-2), [models.vectors()], models.loss_of)
    monitor.close()
    indices = sample_indices(old.numel())
    assert indices is not None
    assert len(indices) <= 16_384
    change = (model[0].weight.detach() - old).flatten()[indices]
    assert_equal(r.at(0, "0", "weight", Kind.UPDATE).moments, oracle.moments_of(change))
    assert r.at(0, "0", "weight", Kind.UPDATE).moments.count == len(indices)
    assert r.at(0, "0", "bias", Kind.UPDATE).moments.count == 2000


def test_micro_batches_of_a_step_merge() -> None:
    model = models.mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor, r = watched(model)
    twin = Twin(model)
    batches = [models.vectors(n, seed=n) for n in (4, 8, 2)]
    for x, y in batches:
        models.loss_of(model(x), y).backward()
    gradient = model[2].weight.grad.clone()
    optimizer.step()
    monitor.close()
    assert list(r.steps) == [0]
    outputs = torch.cat(twin.outputs["2"])
    assert_equal(r.at(0, "2").moments, oracle.moments_of(outputs))
    channels_equal(r.at(0, "2"), oracle.tensor_stats_of(outputs, channels=True, activation="relu"))
    whole = torch.cat(twin.gradients["2"])
    assert_equal(r.at(0, "2", "output", Kind.ACTIVATION_GRADIENT).moments, oracle.moments_of(whole))
    assert_equal(r.at(0, "2", "weight", Kind.GRADIENT).moments, oracle.moments_of(gradient))


def test_two_calls_of_a_module_merge() -> None:
    model = models.Twice()
    monitor, r = watched(model)
    twin = Twin(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.vectors()], models.loss_of)
    monitor.close()
    assert_equal(r.at(0, "shared").moments, oracle.moments_of(torch.cat(twin.outputs["shared"])))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputation_does_not_count_and_loses_no_gradient(reentrant: bool) -> None:
    found: list[Recorded] = []
    for mode in (None, reentrant):
        torch.manual_seed(1)
        model = models.Checkpointed(reentrant=mode)
        monitor, r = watched(model)
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.vectors()] * 2, models.loss_of)
        monitor.close()
        found.append(r)
    plain, again = found
    for step in (0, 1):
        for key, stats in plain.steps[step].items():
            info = plain.infos[key]
            other = again.get(step, info.module_path, info.name, info.kind)
            if info.module_path in ("blocks.0", "blocks.1"):
                continue
            assert other is not None, info
            assert_equal(other.moments, stats.moments)


def test_evaluation_between_steps_does_not_count() -> None:
    model = models.mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor, r = watched(model)
    x, y = models.vectors()
    for _ in range(2):
        with torch.no_grad():
            model(x * 100)
        loss = models.loss_of(model(x), y)
        with torch.no_grad():
            model(x * 100)
        loss.backward()
        model.eval()
        model(x * 100)
        model.train()
        optimizer.step()
        optimizer.zero_grad()
        with torch.inference_mode():
            model(x * 100)
    monitor.close()
    assert [r.at(s, "0").moments.count for s in (0, 1)] == [8 * 24] * 2
    assert r.at(0, "0").moments.abs_max < 10


def test_nan_weights_and_activations_are_counted_by_class() -> None:
    model = models.mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
        model[2].bias[1] = math.inf
        model[2].bias[2] = -math.inf
    monitor, r = watched(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.vectors()], models.loss_of)
    monitor.close()
    weight, bias = (r.at(0, p, n, Kind.WEIGHT).moments for p, n in (("0", "weight"), ("2", "bias")))
    assert (weight.nan_count, weight.count, math.isfinite(weight.rms)) == (1, 24 * 12, True)
    assert (bias.posinf_count, bias.neginf_count) == (1, 1)
    assert r.at(0, "0").moments.nan_count == 8
    assert r.at(0, "6").moments.finite_count == 0
    assert math.isnan(r.at(0, "0").channels.signal_fraction)


def test_low_precision_is_measured_in_full() -> None:
    model = models.mlp().to(torch.bfloat16)
    monitor, r = watched(model)
    twin = Twin(model)
    x, y = models.vectors()
    weight = model[2].weight.detach().clone()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [(x.bfloat16(), y)], models.loss_of)
    monitor.close()
    assert_equal(r.at(0, "2").moments, oracle.moments_of(twin.outputs["2"][0]))
    change = model[2].weight.detach().float() - weight.float()
    assert_equal(r.at(0, "2", "weight", Kind.UPDATE).moments, oracle.moments_of(change))
    assert r.info("2").dtype == "bfloat16"


def test_time_first_sequences_take_their_samples_from_the_batch() -> None:
    ids = models.tokens(batch=4, length=6, vocabulary=20)[0]
    labels = torch.zeros(4, dtype=torch.long)
    fractions = []
    for batch_first in (True, False):
        torch.manual_seed(2)
        model = models.Lstm(batch_first=batch_first)
        monitor, r = watched(model)
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), [(ids, labels)], models.loss_of)
        monitor.close()
        fractions.append(r.at(0, "cell", "output.0").channels.signal_fraction)
    assert fractions[0] == pytest.approx(fractions[1], abs=1e-6)


def test_moments_of_nothing_are_no_record() -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.none = nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.none(torch.cat([self.none(x[:0]), self.none(x)])[:, :1].expand(-1, 12))

    model = Empty()
    monitor, r = watched(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), [models.vectors()], models.loss_of)
    monitor.close()
    assert r.at(0, "none").moments != Moments()
