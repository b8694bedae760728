"""Each fault is found in a real small network, with its layer, cause and remedy; and what only looks like it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from initscope.hooks.rules import RULES, Episode, advance, diagnose, judged
from initscope.hooks.vocabulary import Cause, EpisodeState, Role, Severity
from tests.support import networks as n


def worst(*args: object, **kwargs: object) -> Episode:
    found = n.opened(n.watched(*args, **kwargs))  # type: ignore[arg-type]
    assert found, "nothing was found"
    return found[0]


def broken(change: Callable[[nn.Sequential], object], base: Callable[[nn.Module], object]) -> Callable[..., None]:
    def start(model: nn.Sequential) -> None:
        n.draw(base)(model)
        change(model)

    return start


def is_silent(*args: object, **kwargs: object) -> bool:
    return not n.opened(n.watched(*args, **kwargs))  # type: ignore[arg-type]


# -- weights -----------------------------------------------------------------------------------------------------------


def test_a_net_of_zeros_is_critical_and_names_the_first_layer() -> None:
    found = worst(n.mlp(5, nn.Tanh), start=n.draw(n.constant(0.0)))
    assert (found.finding.rule, found.severity, found.finding.cause) == (
        "zero-weights",
        Severity.CRITICAL,
        Cause.ZERO_SYMMETRIC,
    )
    assert found.finding.module_path == "0"
    assert "model[0].weight" in found.finding.remedy


def test_a_zero_layer_in_front_of_a_relu_stays_zero() -> None:
    found = worst(n.mlp(5), start=broken(lambda m: nn.init.zeros_(m[4].weight), n.he))
    assert (found.finding.rule, found.severity, found.finding.module_path) == ("zero-weights", Severity.CRITICAL, "4")


def test_a_zero_layer_in_front_of_a_tanh_wakes_up_and_is_only_noted_while_it_sleeps() -> None:
    seen = n.watched(n.mlp(5, nn.Tanh), start=broken(lambda m: nn.init.zeros_(m[4].weight), n.xavier), steps=6)
    assert n.opened(seen) == []
    assert ("zero-weights", Severity.INFO) in {(f.rule, f.severity) for f in n.everything(seen[0])}
    assert "zero-weights" not in {f.rule for f in n.everything(seen[-1])}


def test_constant_weights_are_critical_and_stay_so_while_the_units_are_equal() -> None:
    seen = n.watched(n.mlp(5, nn.Tanh), start=n.draw(n.constant(0.05)), steps=8)
    first, *_ = n.opened(seen)
    assert (first.finding.rule, first.severity, first.finding.cause) == (
        "constant-weights",
        Severity.CRITICAL,
        Cause.CONSTANT_SYMMETRIC,
    )
    assert "duplicate-units" in {f.rule for f in n.everything(seen[-1])}


def test_one_constant_layer_parts_by_itself_and_is_a_warning() -> None:
    found = n.opened(n.watched(n.mlp(5, nn.Tanh), start=broken(lambda m: n.constant(0.05)(m[4]), n.xavier), steps=2))
    assert {e.finding.rule for e in found} == {"constant-weights", "duplicate-units"}
    assert {e.severity for e in found} == {Severity.WARNING}


def test_two_layers_of_equal_units_are_critical() -> None:
    def tile(model: nn.Sequential) -> None:
        for at in (2, 4):
            model[at].weight.copy_(model[at].weight[:1].expand_as(model[at].weight))

    found = worst(n.mlp(5, nn.Tanh), start=broken(tile, n.xavier))
    assert (found.finding.rule, found.severity, found.finding.module_path) == (
        "duplicate-units",
        Severity.CRITICAL,
        "2",
    )


def test_embedding_rows_may_be_equal() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 32)
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.table((x.abs() * 4).long().clamp(max=19)).mean(1))
            return out

    def start(model: nn.Module) -> None:
        model.table.weight[:5] = model.table.weight[:1]  # type: ignore[union-attr, index, operator]

    assert is_silent(Bag(), start=start, optimizer=n.adam(), steps=4)


# -- numerics ----------------------------------------------------------------------------------------------------------


def test_one_nan_weight_is_found_in_its_layer() -> None:
    found = worst(n.mlp(4), start=broken(lambda m: m[2].weight[3, 5].fill_(torch.nan), n.he), steps=1)
    assert (found.finding.rule, found.severity, found.finding.module_path) == ("nonfinite", Severity.CRITICAL, "2")
    assert found.finding.evidence["nan_count"] == 1.0


def test_weights_that_are_memory_are_called_so() -> None:
    found = worst(n.mlp(4), start=broken(lambda m: m[4].weight[0, 0].fill_(1e30), n.he), steps=1)
    assert (found.finding.rule, found.finding.module_path) == ("uninitialized-weights", "4")


def test_what_was_found_before_everything_became_nan_stays_open() -> None:
    seen = n.watched(n.mlp(10), start=n.draw(n.normal(1.0)), steps=8)
    assert {f.rule for f in n.everything(seen[-1])} == {"nonfinite"}
    episodes: dict[str, Episode] = {}
    for window in seen:
        found = diagnose(window, RULES)
        episodes, _ = advance(episodes, found, window.step, {r.id: r for r in RULES}, judged(window, RULES))
    assert {e.finding.rule for e in episodes.values() if e.state is EpisodeState.OPEN} >= {"forward-drift", "nonfinite"}


# -- propagation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("std", "cause"), [(1.0, Cause.TOO_LARGE_EXPLODE), (0.02, Cause.TOO_SMALL_VANISH)], ids=["grows", "fades"]
)
def test_a_fixed_std_in_a_deep_net_is_critical_with_this_layers_numbers(std: float, cause: Cause) -> None:
    found = worst(n.mlp(10), start=n.draw(n.normal(std)), steps=1)
    assert (found.finding.rule, found.severity, found.finding.cause) == ("forward-drift", Severity.CRITICAL, cause)
    assert found.finding.module_path == "2"
    loop = "for i in range(2, 19, 2): nn.init.kaiming_normal_(model[i].weight, nonlinearity='relu')  # std 0.177"
    assert loop in found.finding.remedy
    assert abs(float(found.finding.evidence["octaves"])) > 20


def test_a_plain_convolution_net_of_small_weights_is_critical() -> None:
    found = worst(n.cnn(8), start=n.draw(n.normal(0.01)), batches=n.images(), steps=1)
    assert (found.finding.rule, found.severity, found.finding.cause) == (
        "forward-drift",
        Severity.CRITICAL,
        Cause.TOO_SMALL_VANISH,
    )


def test_the_same_weights_with_batch_norm_are_harmless() -> None:
    model = n.cnn(8, batch_norm=True)
    assert is_silent(model, start=n.draw(n.normal(0.01)), batches=n.images(), steps=4)


def test_one_layer_that_is_too_small_heals_and_raises_no_alarm() -> None:
    start = broken(lambda m: m[8].weight.mul_(0.01), n.he)
    assert is_silent(n.mlp(8), start=start, optimizer=n.adam(), steps=10)


def test_one_layer_that_is_too_large_is_named() -> None:
    found = worst(n.mlp(8), start=broken(lambda m: m[8].weight.mul_(50), n.he), optimizer=n.adam(), steps=1)
    assert (found.finding.module_path, found.finding.cause) == ("8", Cause.TOO_LARGE_EXPLODE)


def test_weights_somewhat_too_small_are_a_warning_only() -> None:
    seen = n.watched(n.mlp(10), start=n.draw(n.normal(0.125)), optimizer=n.adam(), steps=4)
    assert {e.severity for e in n.opened(seen)} == {Severity.WARNING}


def test_the_default_start_of_a_deep_net_collapses() -> None:
    found = worst(n.mlp(14), steps=3)
    assert (found.finding.rule, found.severity, found.finding.cause) == (
        "signal-collapse",
        Severity.CRITICAL,
        Cause.TOO_SMALL_VANISH,
    )
    assert "backward-drift" in {f.rule for f in found.finding.consequences}


def test_saturated_tanh_layers_are_critical() -> None:
    start = n.draw(lambda m: n.xavier(m) is not None and m.weight.mul_(10))
    found = worst(n.mlp(8, nn.Tanh), start=start, steps=3)
    assert (found.severity, found.finding.cause) == (Severity.CRITICAL, Cause.SATURATED_ACTIVATIONS)


# -- units, input ------------------------------------------------------------------------------------------------------


def test_a_layer_of_dead_units_is_critical_and_its_bias_is_named() -> None:
    seen = n.watched(n.mlp(6), start=broken(lambda m: nn.init.constant_(m[4].bias, -20.0), n.he), steps=3)
    found = n.opened(seen)[0]
    assert (found.severity, found.finding.cause, found.finding.module_path) == (
        Severity.CRITICAL,
        Cause.BAD_BIAS,
        "4",
    )
    assert "-20" in found.finding.diagnosis
    assert "dead-units" in {f.rule for f in n.everything(seen[-1])}


def test_biases_that_outweigh_the_weights_are_named() -> None:
    found = worst(n.mlp(6, nn.Tanh), start=broken(lambda m: nn.init.constant_(m[4].bias, 8.0), n.xavier), steps=3)
    assert (found.finding.cause, found.finding.module_path) == (Cause.BAD_BIAS, "4")


def test_raw_input_is_the_cause_of_what_follows() -> None:
    found = worst(n.mlp(4), start=n.draw(n.he), batches=n.vectors(scale=200.0), steps=3)
    assert (found.severity, found.finding.cause, found.finding.module_path) == (
        Severity.CRITICAL,
        Cause.UNSCALED_INPUT,
        "0",
    )


# -- frozen ------------------------------------------------------------------------------------------------------------


def freeze(model: nn.Sequential) -> None:
    for parameter in model[:-1].parameters():
        parameter.requires_grad_(False)


def test_layers_frozen_as_they_were_drawn_are_a_warning() -> None:
    found = worst(n.mlp(5), start=broken(freeze, n.he), optimizer=n.adam(), steps=1)
    assert (found.finding.rule, found.severity, found.finding.cause, found.finding.module_path) == (
        "frozen-fresh",
        Severity.WARNING,
        Cause.FROZEN_OR_DISCONNECTED_LAYER,
        "0",
    )


def test_a_frozen_backbone_that_was_trained_is_silent() -> None:
    model = n.mlp(5)
    n.train(model, start=n.draw(n.he), optimizer=n.adam(1e-2), steps=200)
    trained = {name: p.detach().clone() for name, p in model[:-1].named_parameters()}

    def start(fresh: nn.Sequential) -> None:
        for name, p in fresh[:-1].named_parameters():
            p.copy_(trained[name])
        freeze(fresh)

    assert is_silent(n.mlp(5), start=start, optimizer=n.adam(), batches=n.vectors(seed=9), steps=4)


# -- updates, loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [n.sgd(5.0), n.adam(0.5)], ids=["SGD", "Adam"])
def test_a_learning_rate_that_is_far_too_high_is_critical(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    found = worst(n.mlp(5), start=n.draw(n.he), optimizer=optimizer, steps=4)
    assert (found.severity, found.finding.cause) == (Severity.CRITICAL, Cause.LR_TOO_HIGH)
    assert found.finding.remedy.startswith("lr=")


def test_a_head_that_is_too_large_is_a_warning_about_the_head() -> None:
    start = broken(lambda m: m[-1].weight.mul_(100), n.he)
    found = worst(n.mlp(5), start=start, optimizer=n.adam(), steps=1)
    assert (found.finding.rule, found.severity, found.finding.cause, found.finding.module_path) == (
        "initial-loss",
        Severity.WARNING,
        Cause.BAD_OUTPUT_HEAD,
        "10",
    )


class Tied(nn.Module):
    """Tokens, a norm, a layer, and the table again as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.norm = nn.LayerNorm(32)
        self.fc = nn.Linear(32, 32)
        self.last = nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.last(self.fc(self.norm(self.table(x))))
        out: Tensor = hidden @ self.table.weight.T
        return out


def tokens() -> n.Batches:
    generator = torch.Generator().manual_seed(2)
    while True:
        x = torch.randint(0, 50, (32, 8), generator=generator)
        yield x, (x + 1) % 50


@pytest.mark.parametrize(("std", "level"), [(4.0, Severity.CRITICAL), (0.1, None)], ids=["too large", "healthy"])
def test_a_tied_table_is_judged_as_a_head(std: float, level: Severity | None) -> None:
    from dataclasses import replace

    from initscope.hooks.rules import Model

    def start(model: nn.Module) -> None:
        nn.init.normal_(model.table.weight, std=std)  # type: ignore[arg-type, union-attr]

    roles = {"fc": Role.HIDDEN}
    seen = n.watched(Tied(), start=start, optimizer=n.adam(), batches=tokens(), steps=2, roles=roles)
    # The product with the table is no module: only the loss tells how many classes there are.
    seen = [
        replace(w, model=Model(w.model.tensors, replace(w.model.description, output_classes=50, loss="cross_entropy")))
        for w in seen
    ]
    found = n.opened(seen)
    assert [(e.finding.module_path, e.severity) for e in found[:1]] == ([] if level is None else [("table", level)])
    assert all(e.finding.cause is Cause.BAD_EMBEDDING_SCALE for e in found)
