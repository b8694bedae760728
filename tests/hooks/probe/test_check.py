"""What a check measures and says, against an independent computation in float64."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks import check, watch
from initscope.hooks.report import LayerRow, Report
from initscope.hooks.vocabulary import Cause, Verdict
from tests.support import models, oracle


def deep(gain: float = math.sqrt(2), depth: int = 8, width: int = 64) -> nn.Sequential:
    """A ReLU network whose weights have std gain/√fan_in, without biases."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=gain / math.sqrt(m.in_features))
            nn.init.zeros_(m.bias)
    return model


def batch(n: int = 64, width: int = 64, classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, width), torch.randint(classes, (n,))


def row(report: Report, path: str, name: str = "weight") -> LayerRow:
    return next(r for r in report.layers if (r.path, r.name) == (path, name))


def test_the_table_says_what_a_slow_twin_computes() -> None:
    model = models.FunctionalMlp()
    x, y = models.vectors(32)
    report = check(model, (x, y), models.loss_of)
    twin = copy.deepcopy(model).double()
    inputs = [x.double().requires_grad_(True)]
    outputs = []
    for layer, act in (
        (twin.first, torch.relu),
        (twin.second, torch.relu),
        (twin.third, torch.tanh),
        (twin.head, None),
    ):
        outputs.append(layer(inputs[-1]))
        if act is not None:
            inputs.append(act(outputs[-1]))
    loss = F.cross_entropy(outputs[-1], y)
    into = torch.autograd.grad(loss, inputs, retain_graph=True)
    out = torch.autograd.grad(loss, outputs)

    def rms(t: torch.Tensor) -> float:
        return oracle.moments_of(t).rms

    assert [r.path for r in report.layers] == ["first", "second", "third", "head"]
    assert report.loss == pytest.approx(loss.item(), rel=1e-5)
    for at, r in enumerate(report.layers):
        weight = getattr(twin, r.path).weight
        assert r.std == pytest.approx(oracle.moments_of(weight).std, rel=1e-5)
        assert r.output_rms == pytest.approx(rms(outputs[at]), rel=1e-5)
        assert r.gradient_rms == pytest.approx(rms(out[at]), rel=1e-4)
        assert r.forward_gain == pytest.approx(rms(outputs[at]) / rms(inputs[at]), rel=1e-5)
        assert r.signal_fraction == pytest.approx(oracle.signal_fraction_of(outputs[at]), rel=1e-4)
        # The data's own tensor is no place for a hook.
        assert r.backward_gain == (None if at == 0 else pytest.approx(rms(into[at]) / rms(out[at]), rel=1e-4))
    assert row(report, "first").dead_fraction == oracle.dead_fraction_of(outputs[0])
    assert row(report, "third").saturated_fraction == pytest.approx(oracle.saturated_fraction_of(outputs[2], "tanh"))
    assert row(report, "second").dead_fraction is not None
    assert row(report, "head").dead_fraction is None


def test_a_std_is_compared_with_the_one_that_keeps_the_signal() -> None:
    x, y = batch()
    report = check(deep(gain=math.sqrt(2) / 4), (4 * x, y), F.cross_entropy)
    hidden = row(report, "6")
    assert hidden.expected_std == pytest.approx(math.sqrt(2 / 64), rel=1e-6)
    assert hidden.octaves == pytest.approx(-2.0, abs=0.05)
    assert hidden.expected_forward_gain == pytest.approx(math.sqrt(2), rel=1e-6)
    # The first layer sees the data as it is, and nothing before it halves the square.
    assert row(report, "0").expected_std == pytest.approx(1 / 8 / oracle.moments_of(4 * x).rms, rel=1e-5)
    assert row(report, "16").expected_std is None  # a head may be as small as it likes


def test_a_healthy_start_is_ok_and_a_bad_one_is_critical_and_the_remedy_heals_it() -> None:
    healthy, broken = deep(), deep(gain=0.2, depth=12)
    assert (check(healthy, batch(), F.cross_entropy).verdict, check(healthy).verdict) == (Verdict.OK, Verdict.OK)
    report = check(broken, batch(), F.cross_entropy)
    assert report.verdict is Verdict.CRITICAL
    assert report.exit_code == 2
    assert report.findings[0].cause is Cause.TOO_SMALL_VANISH
    exec(report.findings[0].remedy, {"model": broken, "nn": nn})  # noqa: S102 - what a person would paste
    assert check(broken, batch(), F.cross_entropy).exit_code == 0


def test_a_check_finds_what_watch_finds_at_its_first_step() -> None:
    model, data = deep(gain=3.0), batch()
    checked = check(model, data, F.cross_entropy, optimizer=torch.optim.SGD(model.parameters(), lr=0.0))
    monitor = watch(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(2):
        loss = F.cross_entropy(model(data[0]), data[1])
        monitor.log(loss=loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = {f.rule for root in monitor.findings for f, _ in root.flattened()}
    assert {f.rule for root in checked.findings for f, _ in root.flattened()} == found
    assert found


def test_weights_alone_need_no_batch() -> None:
    model = deep()
    nn.init.zeros_(model[4].weight)
    model[8].weight.data[0, 0] = math.nan
    report = check(model)
    assert not report.has_forward
    assert report.verdict is Verdict.CRITICAL
    assert {"zero-weights", "nonfinite"} <= {f.rule for root in report.findings for f, _ in root.flattened()}
    assert [r.path for r in report.layers] == ["0", "2", "4", "6", "8", "10", "12", "14", "16"]
    assert row(report, "8").nonfinite_count == 1
    assert row(report, "4").output_rms is None


def test_the_weights_of_a_chain_alone_say_what_a_signal_would_do() -> None:
    broken = check(nn.Sequential(nn.Flatten(), *deep(gain=0.2, depth=12)))
    assert [f.rule for f in broken.findings] == ["weight-scale"]
    assert broken.exit_code == 1  # a scale alone is no certainty
    assert row(broken, "3").expected_std == pytest.approx(math.sqrt(2 / 64), rel=1e-6)
    assert not broken.notes
    whole = check(models.Gpt())
    assert "which layer feeds which" in " ".join(whole.notes)
    assert [r.full_name for r in whole.layers][:4] == ["places", "wte", "blocks.0.attn.qkv", "blocks.0.attn.out"]


def test_blocks_show_the_residual_stream() -> None:
    model, (x, y) = models.Gpt(blocks=3), models.tokens()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    seen: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _a, out: seen.append(out))
    report = check(model, (x, y), models.loss_of)
    assert [b.path for b in report.blocks] == ["blocks.0", "blocks.1", "blocks.2"]
    assert [b.output_rms for b in report.blocks] == pytest.approx([oracle.moments_of(t).rms for t in seen], rel=1e-5)
    assert all(b.gradient_rms for b in report.blocks)
    assert report.to_html().count("<svg") == 4
    assert check(deep(), batch(), F.cross_entropy).blocks == ()


def test_an_optimizer_is_described_and_takes_no_step() -> None:
    model = models.mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    before = copy.deepcopy(optimizer.state_dict())
    report = check(model, models.vectors(), models.loss_of, optimizer=optimizer)
    assert [(o.name, o.lr, o.weight_decay) for o in report.description.optimizers] == [("AdamW", 3e-4, 0.1)]
    assert optimizer.state_dict() == before


def test_the_loss_is_known_by_its_name_and_measured_against_a_guess() -> None:
    report = check(models.mlp(), models.vectors(), models.loss_of)
    assert report.description.loss == "cross_entropy"
    assert report.trivial_loss == pytest.approx(math.log(models.CLASSES))
    x, _ = models.vectors()
    squares = check(nn.Linear(12, 12), x, nn.MSELoss())
    assert squares.description.loss == "mse"
    assert squares.trivial_loss is None


def test_dropout_and_chance_do_not_make_two_checks_differ() -> None:
    model = models.Gpt()
    a, b = (check(model, models.tokens(), models.loss_of).to_json() for _ in range(2))
    assert a == b


def test_frozen_and_empty_models_are_no_errors() -> None:
    frozen = models.mlp().requires_grad_(False)
    report = check(frozen, models.vectors(), models.loss_of)
    assert (report.has_forward, report.has_backward) == (True, False)
    assert any("requires a gradient" in note for note in report.notes)
    assert report.layers[0].gradient_rms is None
    empty = check(nn.Sequential(nn.Flatten(), nn.ReLU()), torch.randn(4, 3))
    assert (empty.layers, empty.verdict) == ((), Verdict.OK)
    assert "no loss" in " ".join(empty.notes)
    assert check(nn.Identity()).exit_code == 0


def test_only_what_is_included_is_looked_at() -> None:
    report = check(models.Gpt(), models.tokens(), models.loss_of, include="blocks.*", exclude="*.attn")
    assert {r.path for r in report.layers} == {f"blocks.{i}.{name}" for i in range(2) for name in ("fc1", "fc2")}


def test_rules_and_thresholds_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = deep(gain=math.sqrt(2) * 1.55), batch()

    def found(rules: Any = None) -> set[str]:
        return {
            f.rule for root in check(model, data, F.cross_entropy, rules=rules).findings for f, _ in root.flattened()
        }

    assert found(rules=[]) == set()
    rule = min(found())
    assert rule not in found({rule: False})
    file = tmp_path / "rules.toml"
    file.write_text(f"[{rule}]\nenabled = false\n")
    assert found(file) == found() - {rule}
    monkeypatch.setenv("INITSCOPE_RULES", str(file))
    assert rule not in found()


def test_each_weight_says_the_scheme_that_it_looks_like() -> None:
    report = check(models.Gpt(vocabulary=400, width=64), models.tokens(), models.loss_of)
    assert row(report, "wte").scheme == "pytorch_embedding"
    assert {r.scheme for r in report.layers if r.path.startswith("blocks")} == {"pytorch_default"}
    assert report.scheme == "pytorch_default"
    assert not report.is_trained
    he = row(check(deep(), batch(), F.cross_entropy), "4")
    assert (he.scheme, he.scheme_formula) == ("he_normal", "√(2/fan_in)")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_models_are_checked_as_they_were_written() -> None:
    model = deep()
    expected = check(model, data := batch(), F.cross_entropy)
    compiled = check(torch.compile(model), data, F.cross_entropy)
    assert compiled.layers == expected.layers
    model.compile()
    in_place = check(model, data, F.cross_entropy)
    assert [r.output_rms for r in in_place.layers] == [r.output_rms for r in expected.layers]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model_has_only_its_weights() -> None:
    scripted = torch.jit.script(models.mlp())
    report = check(scripted, models.vectors(), models.loss_of)
    assert not report.has_forward
    assert any("TorchScript" in note for note in report.notes)
    assert len(report.layers) == 4


def test_what_cannot_be_checked_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"check\(model\): .* got list"):
        check([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weight is on the meta device"):
        check(nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match="is lazy"):
        check(nn.LazyLinear(2))
    with pytest.raises(TypeError, match="loss_fn: a function"):
        check(models.mlp(), models.vectors(), "mse")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs a batch"):
        check(models.mlp(), loss_fn=F.cross_entropy)
    with pytest.raises(TypeError, match=r"loss_fn returned a tensor of shape \(8,\).*take its mean"):
        check(models.mlp(), models.vectors(), lambda out, y: F.cross_entropy(out, y, reduction="none"))
    with pytest.raises(TypeError, match="loss_fn returned float"):
        check(models.mlp(), models.vectors(), lambda out, y: 0.5)  # noqa: ARG005
    with pytest.raises(TypeError, match=r"optimizer: must be a torch\.optim\.Optimizer"):
        check(models.mlp(), optimizer=3)


def test_switched_off_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSCOPE_DISABLED", "1")
    report = check(deep(gain=0.1), batch(), F.cross_entropy)
    assert (report.exit_code, report.layers) == (0, ())
    assert "INITSCOPE_DISABLED" in str(report)
