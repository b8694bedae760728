"""Rules on the first pass: residual streams, number formats, fused attention; each with a twin that only looks so."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.rules import RULES, Episode, advance, diagnose, judged
from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n
from tests.support.live import seen


class Block(nn.Module):
    """x + c2(relu(c1(x))), with a norm in front or without one."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.c1 = nn.Linear(width, width)
        self.c2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c2(torch.relu(self.c1(self.norm(x))))


class Residual(nn.Module):
    """16 inputs, blocks of 64, 4 classes; He draws, the last matrix of a branch times `factor`."""

    def __init__(self, blocks: int, *, norm: bool = False, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Linear(16, 64)
        self.blocks = nn.ModuleList(Block(64, norm) for _ in range(blocks))
        self.head = nn.Linear(64, 4)
        with torch.no_grad():
            n.draw(n.he)(self)
            nn.init.normal_(self.head.weight, std=0.05)
            for block in self.blocks:
                block.c2.weight.mul_(factor)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


def test_branches_without_a_norm_double_the_stream_and_are_critical_with_a_loud_loss() -> None:
    found = seen(Residual(14), optimizer=n.adam(), steps=2).worst["residual-stream"]
    assert (found.severity, found.cause) == (Severity.CRITICAL, Cause.MISSING_RESIDUAL_SCALING)
    assert found.module_path == "blocks.0.c2"
    assert 0.6 < float(found.evidence["octaves_a_block"]) < 1.3
    assert float(found.evidence["octaves_backward"]) > 5


def test_a_stream_that_multiplies_explains_the_loss_and_what_follows() -> None:
    found = seen(Residual(14), optimizer=n.adam(), steps=4)
    assert set(found.alarms) == {"residual-stream"}
    assert "initial-loss" in {f.rule for f in found.worst["residual-stream"].consequences}


def test_the_remedy_of_a_stream_can_be_pasted_and_ends_it() -> None:
    model = Residual(14)
    found = seen(model, optimizer=n.adam(), steps=2).worst["residual-stream"]
    fresh = Residual(14)
    exec(found.remedy, {"model": fresh, "nn": nn, "torch": torch})  # noqa: S102 - what a person would paste
    mended = seen(fresh, optimizer=n.adam(), steps=6)
    assert "residual-stream" not in mended.worst
    assert mended.alarms == {}


@pytest.mark.parametrize(
    "model",
    [lambda: Residual(14, norm=True), lambda: Residual(14, factor=14**-0.5), lambda: Residual(3)],
    ids=["a norm in each branch", "scaled branches", "three blocks"],
)
def test_streams_that_only_add_up_are_silent(model: type[nn.Module]) -> None:
    found = seen(model(), optimizer=n.adam(), steps=6)
    assert "residual-stream" not in found.alarms


class Half(nn.Module):
    """A layer whose output is float16, as under autocast, `scale` times what it was."""

    def __init__(self, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Linear(16, 32)
        self.cast = Cast(scale, dtype)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.cast(self.body(x)).float()))
        return out


class Cast(nn.Module):
    """Multiplies and gives another format."""

    def __init__(self, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale, self.dtype = scale, dtype

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale).to(self.dtype)


def test_a_float16_output_near_its_end_is_a_warning() -> None:
    found = seen(Half(8000.0, torch.float16), optimizer=n.adam(), steps=5).worst["numeric-range"]
    assert (found.severity, found.cause, found.module_path) == (Severity.WARNING, Cause.NUMERIC_RANGE, "cast")
    assert 6550 <= float(found.evidence["abs_max"]) <= 65504


@pytest.mark.parametrize(("scale", "dtype"), [(8000.0, torch.bfloat16), (1.0, torch.float16), (8000.0, torch.float32)])
def test_what_the_format_holds_is_silent(scale: float, dtype: torch.dtype) -> None:
    assert "numeric-range" not in seen(Half(scale, dtype), optimizer=n.adam(), steps=5).worst


def short(dtype: torch.dtype) -> nn.Sequential:
    model = n.mlp(3)
    torch.manual_seed(4)
    with torch.no_grad():
        n.draw(n.he)(model)
    return model.to(dtype)


def test_steps_that_bfloat16_weights_round_away_are_an_info() -> None:
    batches = ((x.bfloat16(), y) for x, y in n.vectors())
    found = seen(short(torch.bfloat16), optimizer=n.adam(1e-5), batches=batches, steps=5).worst["numeric-range"]
    assert (found.severity, found.kind) == (Severity.INFO, "update")
    assert float(found.evidence["unchanged"]) > 0.8
    large = ((x.bfloat16(), y) for x, y in n.vectors())
    assert "numeric-range" not in seen(short(torch.bfloat16), optimizer=n.adam(1e-2), batches=large, steps=5).worst


def test_gradients_that_float16_rounds_to_zero_are_a_warning() -> None:
    def faint(output: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.float(), labels) * 1e-5

    batches = ((x.half(), y) for x, y in n.vectors())
    found = seen(short(torch.float16), optimizer=n.sgd(0.1), batches=batches, steps=5, loss_fn=faint)
    assert found.worst["numeric-range"].subject == "underflow"
    assert found.worst["numeric-range"].severity is Severity.WARNING
    healthy = ((x.half(), y) for x, y in n.vectors())
    assert "numeric-range" not in seen(short(torch.float16), optimizer=n.sgd(0.01), batches=healthy, steps=5).alarms


class Encoder(nn.Module):
    """Two of PyTorch's own encoder layers over 6 tokens of 40, in front of a head."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(40, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 40)
        with torch.no_grad():
            for layer in self.encoder.layers:
                layer.self_attn.in_proj_weight.mul_(factor)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.encoder(self.table(x))))
        return out


def tokens() -> n.Batches:
    generator = torch.Generator().manual_seed(2)
    while True:
        x = torch.randint(0, 40, (16, 6), generator=generator)
        yield x, (x + 1) % 40


def test_hot_logits_of_fused_attention_are_predicted_from_its_weights() -> None:
    found = seen(Encoder(12.0), optimizer=n.adam(1e-4), batches=tokens(), steps=4).worst["attention-logits"]
    assert (found.severity, found.cause) == (Severity.CRITICAL, Cause.ATTENTION_LOGIT_BLOWUP)
    assert found.module_path == "encoder.layers.0.self_attn"
    assert "in_proj_weight" in found.remedy


def test_the_predicted_std_is_that_of_the_logits() -> None:
    model = Encoder(12.0)
    attention = model.encoder.layers[0].self_attn
    x, _ = next(tokens())
    with torch.no_grad():
        given = model.encoder.layers[0].norm1(model.table(x))
        q, k, _ = F.linear(given, attention.in_proj_weight).chunk(3, dim=-1)
        heads = [t.view(16, 6, 4, 8).transpose(1, 2) for t in (q, k)]
        real = float((heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(8)).std())
    found = seen(model, optimizer=n.adam(1e-4), batches=tokens(), steps=2).worst["attention-logits"]
    assert float(found.evidence["logit_std"]) == pytest.approx(real, rel=0.3)


def test_usual_fused_attention_is_silent() -> None:
    assert seen(Encoder(1.0), optimizer=n.adam(), batches=tokens(), steps=10).alarms == {}


def test_flat_attention_is_noted_at_the_start_and_is_no_alarm() -> None:
    found = seen(Encoder(0.02), optimizer=n.adam(), batches=tokens(), steps=1)
    assert found.worst["attention-growth"].subject == "uniform"
    assert seen(Encoder(0.02), optimizer=n.adam(), batches=tokens(), steps=4).alarms == {}


def test_a_later_nan_is_a_consequence_of_the_growth_that_made_it() -> None:
    rules = {rule.id: rule for rule in RULES}
    episodes: dict[str, Episode] = {}
    for window in n.watched(n.mlp(10), start=n.draw(n.normal(1.0)), steps=8):
        episodes, _ = advance(episodes, diagnose(window, RULES), window.step, rules, judged(window, RULES))
    broken = episodes["nonfinite|run"]
    assert broken.first_step > 0
    cause = episodes[broken.parent or ""]
    assert (cause.severity, cause.parent) == (Severity.CRITICAL, None)
    assert cause.finding.rule in ("forward-drift", "update-ratio")
