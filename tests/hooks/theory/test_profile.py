"""What these weights should show, against what real models show, and where a healthy start stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.demo.models import Cnn, Gpt, normal, scale_residual_outputs
from initscope.hooks.moments import TensorStats
from initscope.hooks.theory import Expected, predicted_logit_rms, predicted_loss, predicted_profile
from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import TensorInfo
from tests.support import networks as n
from tests.support.recorded import Recorded, train, watched

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Seen:
    """One step of a real model, and what theory says of it."""

    recorded: Recorded
    profile: dict[int, Expected]
    loss: float

    @property
    def stats(self) -> dict[int, TensorStats]:
        return self.recorded.steps[0]

    def pairs(self, kind: Kind) -> dict[str, tuple[float, Expected]]:
        """(measured rms, expected) by path, of predicted tensors of a kind."""
        told = [(t, self.profile.get(t.key)) for t in self.recorded.infos.values() if t.kind is kind]
        return {
            t.module_path: (self.stats[t.key].moments.rms, e)
            for t, e in told
            if e is not None and e.predicted is not None and t.key in self.stats
        }

    def band(self, path: str, kind: Kind = Kind.ACTIVATION) -> Expected:
        return self.profile[self.recorded.info(path, "output", kind).key]


def see(model: nn.Module, batch: tuple[Tensor, Tensor], loss: Loss = F.cross_entropy) -> Seen:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor, recorded = watched(model, optimizer=optimizer)
    losses = train(model, optimizer, [batch], loss)
    monitor.close()
    return Seen(recorded, predicted_profile(recorded.infos, recorded.steps[0]), losses[0].item())


def tokens_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def tokens() -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 60, (8, 32))
    return x, torch.randint(0, 60, (8, 32))


def gpt(*, std: float = 0.02, scaled: bool = True, blocks: int = 4) -> Gpt:
    model = Gpt(blocks=blocks)
    normal(model, std)
    if scaled:
        scale_residual_outputs(model, std)
    return model


def off(measured: float, expected: Expected) -> float:
    assert expected.predicted is not None
    return abs(math.log2(measured / expected.predicted))


def assert_agrees(seen: Seen, kind: Kind, *, least: int) -> None:
    pairs = seen.pairs(kind)
    assert len(pairs) >= least
    # Three standard deviations of the luck of width, and what few units of a batch add.
    for path, (measured, expected) in pairs.items():
        assert off(measured, expected) <= 1.5 * expected.tolerance + 0.12, path
    offs = [off(measured, expected) for measured, expected in pairs.values()]
    assert sum(offs) < sum(0.6 * expected.tolerance + 0.1 for _, expected in pairs.values())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("activation", "start"),
    [(nn.ReLU, n.he), (nn.ReLU, n.normal(0.02)), (nn.Tanh, n.xavier), (nn.GELU, n.he), (nn.Sigmoid, n.xavier)],
)
def test_a_plain_net_of_any_weights_is_predicted_forward_and_backward(
    activation: type[nn.Module], start: n.Start, seed: int
) -> None:
    torch.manual_seed(seed)
    model = n.mlp(8, activation)
    n.draw(start)(model)
    seen = see(model, next(n.vectors(seed=seed)))
    # All but the first layer, whose input nobody knows, and the last gradient, which the loss makes.
    assert_agrees(seen, Kind.ACTIVATION, least=8 + 8)
    assert_agrees(seen, Kind.ACTIVATION_GRADIENT, least=8)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_norms_reset_the_signal_and_divide_the_gradient(norm: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = n.mlp(8, norm=norm, width=128)
    n.draw(n.normal(0.5))(model)
    for module in model.modules():
        if isinstance(module, norm):
            nn.init.constant_(module.weight, 2.0)  # type: ignore[arg-type]
    seen = see(model, next(n.vectors()))
    assert_agrees(seen, Kind.ACTIVATION, least=8 + 8 + 8)
    assert_agrees(seen, Kind.ACTIVATION_GRADIENT, least=7)
    assert seen.pairs(Kind.ACTIVATION)["1"][1].predicted == pytest.approx(2.0)


def test_gradients_behind_batch_norm_grow_by_the_known_factor() -> None:
    torch.manual_seed(0)
    model = n.mlp(10, norm=nn.BatchNorm1d, width=128)
    n.draw(n.he)(model)
    for linear in (m for m in model if isinstance(m, nn.Linear)):
        linear.weight.data.mul_(math.sqrt(2 / linear.in_features) / linear.weight.data.std())
    pairs = see(model, next(n.vectors())).pairs(Kind.ACTIVATION_GRADIENT)
    layers = [pairs[str(3 * i)][1].predicted for i in range(2, 9)]
    steps = [math.log2(a / b) for a, b in pairwise(layers) if a and b]
    assert sum(steps) / len(steps) == pytest.approx(0.276, abs=0.02)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_convolutions_are_predicted_between_poolings(batch_norm: bool, seed: int) -> None:
    torch.manual_seed(seed)
    seen = see(Cnn(depth=8, width=32, batch_norm=batch_norm), next(n.images()))
    assert_agrees(seen, Kind.ACTIVATION, least=8)
    first_behind_pooling = "features.7" if batch_norm else "features.5"
    assert first_behind_pooling not in seen.pairs(Kind.ACTIVATION)


@pytest.mark.parametrize(("std", "scaled"), [(0.02, True), (0.02, False), (0.125, False)])
def test_a_gpt_is_predicted_from_the_tables_to_the_logits(std: float, scaled: bool) -> None:
    torch.manual_seed(0)
    seen = see(gpt(std=std, scaled=scaled), tokens(), tokens_loss)
    assert_agrees(seen, Kind.ACTIVATION, least=4 * 6 + 3)
    pairs = seen.pairs(Kind.ACTIVATION)
    streams = [pairs[f"blocks.{i}"] for i in range(4)]
    assert max(off(*pair) for pair in streams) < 0.1
    assert "head" in pairs
    assert "blocks.2.attention.proj" not in pairs, "attention mixes: nobody knows how much"
    assert_agrees(seen, Kind.ACTIVATION_GRADIENT, least=4)


def test_the_loss_of_the_start_is_known_before_it_is_logged() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.Linear(128, 50))
    nn.init.normal_(model[2].weight, std=0.1)  # type: ignore[arg-type]
    seen = see(model, (torch.randn(256, 64), torch.randint(0, 50, (256,))))
    predicted = predicted_loss(seen.recorded.infos, seen.stats, seen.recorded.description)
    logits = predicted_logit_rms(seen.recorded.infos, seen.stats)
    assert logits == pytest.approx(0.1 * math.sqrt(128), rel=0.1)
    assert predicted == pytest.approx(seen.loss, rel=0.05)
    assert predicted > math.log(50) + 0.4


class Sum(nn.Module):
    """A block with a projection beside it, as where a ResNet changes its width."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.norm = nn.Linear(64, 64), nn.BatchNorm1d(64)
        self.side, self.side_norm = nn.Linear(64, 64), nn.BatchNorm1d(64)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.main(x)) + self.side_norm(self.side(x)))


class Gated(nn.Module):
    """A product of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.rnn, self.head = nn.Embedding(60, 32), nn.LSTM(32, 32, batch_first=True), nn.Linear(32, 60)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.table(x))[0])  # type: ignore[no-any-return]


def vectors() -> tuple[Tensor, Tensor]:
    return torch.randn(64, 64), torch.randint(0, 4, (64,))


@pytest.mark.parametrize(
    ("model", "batch", "loss", "silent"),
    [
        (lambda: nn.Sequential(Sum(), Sum(), nn.Linear(64, 4)), vectors, F.cross_entropy, "1.main"),
        (lambda: Gated(), vectors, F.cross_entropy, "down"),
        (Recurrent, tokens, tokens_loss, "head"),
    ],
    ids=["sum", "product", "recurrent"],
)
def test_theory_is_silent_where_it_has_nothing_to_say(
    model: Callable[[], nn.Module], batch: Callable[[], tuple[Tensor, Tensor]], loss: Loss, silent: str
) -> None:
    torch.manual_seed(0)
    seen = see(model(), batch(), loss)
    assert silent not in seen.pairs(Kind.ACTIVATION)


def test_weights_with_a_mean_are_not_predicted() -> None:
    torch.manual_seed(0)
    model = n.mlp(4)
    n.draw(n.he)(model)
    nn.init.uniform_(model[4].weight, 0.0, 0.1)  # type: ignore[arg-type]
    pairs = see(model, next(n.vectors())).pairs(Kind.ACTIVATION)
    assert "4" not in pairs
    assert "2" in pairs


def test_a_healthy_net_lies_inside_its_band() -> None:
    torch.manual_seed(5)
    model = n.mlp(10)
    n.draw(n.he)(model)
    seen = see(model, next(n.vectors()))
    banded = [(key, e) for key, e in seen.profile.items() if e.low is not None]
    assert len(banded) == 20
    for key, expected in banded:
        assert expected.low is not None
        assert expected.high is not None
        assert expected.low <= seen.stats[key].moments.rms <= expected.high
    widths = [e.high / e.low for e in (seen.band(str(2 * i)) for i in range(10)) if e.high and e.low]
    assert widths == sorted(widths)


def test_a_fading_net_leaves_the_band_as_predicted() -> None:
    torch.manual_seed(5)
    model = n.mlp(10)
    n.draw(n.normal(0.02))(model)
    seen = see(model, next(n.vectors()))
    for path, kind in (("18", Kind.ACTIVATION), ("0", Kind.ACTIVATION_GRADIENT)):
        measured = seen.recorded.at(0, path, "output", kind).moments.rms
        expected = seen.band(path, kind)
        assert expected.low is not None
        assert measured < expected.low
        assert expected.predicted is not None
        assert expected.predicted < expected.low


def test_streams_and_norms_of_a_healthy_gpt_lie_inside_their_bands() -> None:
    torch.manual_seed(0)
    seen = see(gpt(), tokens(), tokens_loss)
    banded = {key: e for key, e in seen.profile.items() if e.low is not None}
    kinds = {seen.recorded.infos[key].module_type for key in banded}
    assert kinds == {"LayerNorm", "Block"}
    for key, expected in banded.items():
        assert expected.low is not None
        assert expected.high is not None
        assert expected.low <= seen.stats[key].moments.rms <= expected.high


def test_an_empty_model_has_no_profile() -> None:
    assert predicted_profile({}, {}) == {}


def test_every_residual_output_of_a_deep_gpt_has_its_role() -> None:
    """From the third block on they were taken for position tables, and no rule judged them."""
    seen = see(gpt(blocks=6), tokens(), tokens_loss)
    weights = [t for t in seen.recorded.infos.values() if t.kind is Kind.WEIGHT and t.module_path.endswith("proj")]
    matrices: list[TensorInfo] = [t for t in weights if t.name == "weight"]
    assert [t.role for t in matrices] == [Role.RESIDUAL_OUTPUT] * 12
    assert seen.recorded.info("head").fan_in == 64
    assert seen.recorded.info("tokens").fan_in == 1
