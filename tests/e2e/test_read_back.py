"""What the API tells of a tensor equals a float64 recomputation of the same tensor, for every kind of statistic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from initscope.hooks import watch
from initscope.hooks.moments import Moments
from initscope.hooks.probe.updates import sample_indices
from tests.support import models, oracle

STEPS = 4
REL = 1e-5
Key = tuple[str, str, str]


@dataclass
class Twin:
    """Recomputes one step of a training with hooks of its own, slowly, in float64."""

    model: nn.Module
    found: dict[Key, Moments] = field(default_factory=dict)
    signals: dict[Key, float] = field(default_factory=dict)
    before: dict[str, torch.Tensor] = field(default_factory=dict)
    handles: list = field(default_factory=list)

    def begin(self) -> None:
        for name, p in self.model.named_parameters():
            self.before[name] = p.detach().clone()
            self._note(name, "weight", p)
        for path, module in self.model.named_modules():
            self.handles.append(module.register_forward_hook(self._forward(path)))

    def _forward(self, path: str) -> Callable:
        def hook(module, args, output):  # noqa: ARG001
            if not isinstance(output, torch.Tensor):
                return
            self.found[path, "output", "activation"] = oracle.moments_of(output)
            axis = 1 if isinstance(module, nn.Conv2d | nn.BatchNorm2d) or output.dim() == 4 else -1
            self.signals[path, "output", "activation"] = oracle.signal_fraction_of(output, axis)
            output.register_hook(lambda g: self.found.update({(path, "output", "activation_gradient"): _of(g)}))

        return hook

    def end(self) -> None:
        for handle in self.handles:
            handle.remove()
        for name, p in self.model.named_parameters():
            if p.grad is not None:
                self._note(name, "gradient", p.grad)
            change = p.detach().flatten() - self.before[name].flatten()
            chosen = sample_indices(change.numel())
            self._note(name, "update", change if chosen is None else change[chosen])

    def _note(self, name: str, kind: str, tensor: torch.Tensor) -> None:
        path, _, own = name.rpartition(".")
        self.found[path, own, kind] = oracle.moments_of(tensor)


def _of(gradient: torch.Tensor) -> Moments:
    return oracle.moments_of(gradient)


def wide_mlp() -> nn.Module:
    return models.mlp(width=160)  # 25,600 elements a matrix: its updates are a sample


CASES = {
    "mlp": (wide_mlp, lambda i: models.vectors(64, seed=i), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "cnn": (models.Cnn, lambda i: models.images(16, seed=i), torch.optim.Adam, {"lr": 1e-3}),
    "gpt": (models.Gpt, lambda i: models.tokens(8, seed=i), torch.optim.AdamW, {"lr": 1e-3}),
}


def train(collector, name: str) -> list[Twin]:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    make, batch, optimizer_class, options = CASES[name]
    model = make()
    optimizer = optimizer_class(model.parameters(), **options)
    twins = []
    with watch(model, run=name, run_id=name, url=collector.url, token=collector.token) as monitor:
        for step in range(STEPS):
            twin = Twin(model)
            twin.begin()
            inputs, labels = batch(step)
            optimizer.zero_grad()
            loss = models.loss_of(model(inputs), labels)
            loss.backward()
            optimizer.step()
            twin.end()
            monitor.log(loss=loss)
            twins.append(twin)
    return twins


def read(collector, name: str, step: int) -> dict[Key, dict]:
    (run,) = [r for r in collector.http.get("/api/v1/runs").json()["runs"] if r["run_id"] == name]
    answer = collector.http.get(f"/api/v1/runs/{run['id']}/stats/profile", params={"step": step}).json()
    assert answer["step"] == step
    return {(t["module_path"], t["name"], t["kind"]): t["statistics"] for t in answer["tensors"]}


def check_equal(told: dict, m: Moments) -> None:
    assert told["count"] == m.count
    assert told["zero_count"] == m.zero_count
    assert told["nonfinite_count"] == m.nonfinite_count
    scale = m.rms or 1.0
    for statistic in ("rms", "std", "min", "max", "abs_max", "norm", "kurtosis"):
        assert told[statistic] == pytest.approx(getattr(m, statistic), rel=REL, abs=1e-30), statistic
    assert told["mean"] == pytest.approx(m.mean, rel=REL, abs=REL * scale)
    assert told["skewness"] == pytest.approx(m.skewness, rel=REL, abs=REL * max(1.0, m.kurtosis))


@pytest.mark.parametrize("name", CASES)
def test_every_stored_record_equals_its_float64_twin(collector, name):
    twins = train(collector, name)
    for step, twin in enumerate(twins):
        told = read(collector, name, step)
        unknown = told.keys() - twin.found.keys()
        assert not unknown, f"records that the twin does not know: {unknown}"
        for key, statistics in told.items():
            try:
                check_equal(statistics, twin.found[key])
                signal = twin.signals.get(key, math.nan)
                if statistics["signal_fraction"] is not None and not math.isnan(signal):
                    assert statistics["signal_fraction"] == pytest.approx(signal, rel=REL, abs=REL)
            except AssertionError as error:
                raise AssertionError(f"step {step}, {key}: {error}") from error
        kinds = {kind for _, _, kind in told}
        assert kinds == {"weight", "gradient", "update", "activation", "activation_gradient"}
        parameters = {n for n, _ in twin.model.named_parameters()}
        for kind in ("weight", "gradient", "update"):
            assert {".".join(filter(None, (p, n))) for p, n, k in told if k == kind} == parameters, kind


def test_logged_losses_come_back_at_their_steps(embedded):
    train(embedded, "mlp")
    (run,) = embedded.http.get("/api/v1/runs").json()["runs"]
    answer = embedded.http.get(f"/api/v1/runs/{run['id']}/scalars").json()
    (loss,) = [s for s in answer["scalars"] if s["name"] == "loss"]
    assert loss["steps"] == list(range(STEPS))
    told = embedded.http.get(f"/api/v1/runs/{run['id']}").json()
    assert told["description"]["loss"] == "cross_entropy"
