"""A remedy is Python that can be pasted: with it the finding is gone and the run learns as its healthy twin does."""

from __future__ import annotations

import io
import sys

import pytest
import torch
from torch import nn

from initscope.hooks import Finding, watch
from initscope.hooks.demo import catalogue, judge, recipes
from initscope.hooks.demo.catalogue import DemoRun
from initscope.hooks.demo.data import Data
from initscope.hooks.rules.remedy import redraw_all
from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n

_SHOWN = 3
"""Steps after which all findings of a bad start are open."""
_TRAINED = 110
_BROKEN = [run for run in catalogue.RUNS if run.is_broken]


def _healthy(broken: DemoRun) -> DemoRun:
    return next(run for run in catalogue.RUNS if run.group == broken.group and not run.is_broken)


def _run(training: recipes.Training, steps: int) -> tuple[list[float], list[Finding]]:
    """Losses, and every finding that was open at a step or at the end."""
    found: dict[str, Finding] = {}
    losses: list[float] = []
    monitor = watch(training.model, training.optimizer)
    for step, (inputs, labels) in zip(range(steps), training.data.batches, strict=False):
        loss = training.step(inputs, labels)
        monitor.log(loss=loss)
        losses.append(loss.item())
        if step < 12 or step % 10 == 0:
            found.update({f.fingerprint: f for f in monitor.findings})
    monitor.close()
    return losses, list(found.values())


def _critical(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.severity is Severity.CRITICAL]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(sys, "stderr", io.StringIO())


@pytest.mark.parametrize("run", _BROKEN, ids=[run.name for run in _BROKEN])
def test_a_pasted_remedy_of_the_demo_takes_the_finding_away_and_the_run_learns(run: DemoRun) -> None:
    _, found = _run(recipes.build(run.name), _SHOWN)
    finding = next(f for f in _critical(found) if f.cause is run.cause)
    healed = recipes.build(run.name)
    exec(finding.remedy, {"model": healed.model, "nn": nn, "torch": torch})  # noqa: S102 - what a person would paste
    losses, left = _run(healed, _TRAINED)
    assert not _critical(left)
    twin, _ = _run(recipes.build(_healthy(run).name), _TRAINED)
    trivial = healed.data.trivial_loss
    gain, gain_of_twin = trivial - judge.final_loss(losses), trivial - judge.final_loss(twin)
    assert gain > 0.5 * gain_of_twin > 0.0


def test_every_remedy_of_the_demo_is_python() -> None:
    for run in _BROKEN:
        _, found = _run(recipes.build(run.name), _SHOWN)
        assert found, run.name
        for finding, _ in (pair for f in found for pair in f.flattened()):
            compile(finding.remedy, finding.rule, "exec")


def test_layers_that_need_the_same_share_a_loop_and_others_have_lines_of_their_own() -> None:
    layers = n.watched(n.mlp(5), start=n.draw(n.normal(1.0)), steps=1)[0].model.layers
    assert redraw_all([layers[1], *layers[2:5], layers[0]], 1.0).splitlines() == [
        "for i in range(2, 9, 2): nn.init.kaiming_normal_(model[i].weight, nonlinearity='relu')"
        "  # std 0.177 instead of 1",
        "nn.init.normal_(model[0].weight, std=0.25)",
    ]
    assert redraw_all([layers[1], layers[3]], biases=True) == (
        "for i in (2, 6): nn.init.kaiming_normal_(model[i].weight, nonlinearity='relu'); "
        "nn.init.zeros_(model[i].bias)  # std 0.177"
    )


def test_a_loop_goes_over_the_index_that_differs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    model = Net()
    layers = n.watched(model, start=n.draw(n.normal(0.001)), steps=1)[0].model.layers[1:5]
    exec(code := redraw_all(layers, biases=True), {"model": model, "nn": nn})  # noqa: S102 - what a person would paste
    assert code.startswith("for i in range(1, 5): nn.init.normal_(model.blocks[i][0].weight")
    assert all(model.blocks[i][0].weight.std() > 0.3 for i in range(1, 5))  # type: ignore[index]


# -- where the fault begins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["mlp-relu-normal", "mlp-relu-default", "cnn-plain-small"])
def test_all_rules_point_to_the_layer_from_which_the_scheme_is_wrong(run: str) -> None:
    _, found = _run(recipes.build(run), 12)
    everything = [f for root in found for f, _ in root.flattened()]
    scheme = [f for f in everything if f.rule in ("signal-collapse", "forward-drift", "backward-drift", "weight-scale")]
    second = next(path for path in ("body.2", "features.2") if path.split(".")[0] in str(scheme[0].module_path))
    assert {f.module_path for f in scheme} == {second}


def test_one_layer_that_is_too_large_is_named_also_after_steps_have_blurred_it() -> None:
    def start(model: nn.Module) -> None:
        n.draw(n.he)(model)
        model.get_parameter("6.weight").mul_(100.0)

    seen = n.watched(n.mlp(6), start=start, steps=4, optimizer=n.sgd(1e-6))
    for window in seen:
        drifts = [f for f in n.everything(window) if f.rule == "forward-drift"]
        assert [f.module_path for f in drifts] == ["6"]


# -- what to blame -----------------------------------------------------------------------------------------------------


def test_large_biases_are_blamed_for_a_first_loss_that_is_too_large() -> None:
    def start(model: nn.Module) -> None:
        n.draw(n.he)(model)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.bias, 6.0)

    seen = n.watched(n.mlp(8), start=start, steps=1, roles=None)
    found = [f for f in n.everything(seen[0]) if f.rule == "initial-loss"]
    assert [(f.cause, f.module_path) for f in found] == [(Cause.BAD_BIAS, "0")]
    assert "nn.init.zeros_(model[14].bias)" in found[0].remedy or "more layers" in found[0].remedy


def test_tanh_with_plain_xavier_is_no_wrong_scheme() -> None:
    def start(model: nn.Module) -> None:
        n.draw(lambda m: nn.init.xavier_normal_(m.weight))(model)  # type: ignore[arg-type]

    assert not n.opened(n.watched(n.mlp(20, nn.Tanh), start=start, steps=3))


def test_weights_that_start_at_zero_may_grow_at_any_rate() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 32, batch_first=True)
            self.head = nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.lstm(x.view(-1, 4, 4))[0][:, -1])
            return out

    def zero(model: nn.Module) -> None:
        for parameter in model.get_submodule("lstm").parameters():
            nn.init.zeros_(parameter)

    def loud(model: nn.Module) -> None:
        nn.init.normal_(model.get_parameter("lstm.weight_hh_l0"), std=3.0)

    assert "update-ratio" not in _rules(Recurrent(), zero)
    assert "recurrent-scale" in _rules(Recurrent(), loud)
    assert not _rules(Recurrent(), lambda _: None)


def _rules(model: nn.Module, start: n.Start) -> set[str]:
    """What is told of a run of twelve steps."""
    torch.manual_seed(5)
    start(model)
    training = recipes.Training(model, torch.optim.Adam(model.parameters(), 5e-3), Data(n.vectors(), 1.4))
    _, found = _run(training, 12)
    return {f.rule for f in found if f.severity is not Severity.INFO}


def test_input_of_any_size_may_go_through_a_norm_right_after_the_first_layer() -> None:
    net = n.mlp(4, norm=nn.BatchNorm1d)
    assert not n.opened(n.watched(net, batches=n.vectors(scale=200.0), steps=3))
