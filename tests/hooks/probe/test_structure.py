"""What the first training forward shows: order, surroundings, roles, fans, ties."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from initscope.hooks.vocabulary import Kind, Role
from tests.support import models
from tests.support.decoder import Decoder
from tests.support.recorded import Recorded, train, watched


def seen(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], **options: object) -> Recorded:
    """Records of one step."""
    monitor, recorded = watched(model, **options)
    train(model, torch.optim.SGD(model.parameters(), lr=0.01), [batch], models.loss_of)
    monitor.close()
    return recorded


def test_a_chain_of_modules_is_read_in_order() -> None:
    r = seen(models.mlp(), models.vectors())
    depths = [r.info(str(i), "output", Kind.ACTIVATION).depth for i in range(7)]
    assert depths == list(range(7))
    assert [r.info(p).role for p in ("0", "2", "4", "6")] == [Role.INPUT, Role.HIDDEN, Role.HIDDEN, Role.OUTPUT]
    assert r.info("0", "bias").role is Role.BIAS
    middle = r.info("2")
    assert (middle.activation_before, middle.activation_after, middle.fan_in, middle.fan_out) == (
        "relu",
        "relu",
        24,
        24,
    )
    assert (r.info("0").activation_before, r.info("6").activation_after) == (None, None)


def test_functional_and_in_place_activations_are_seen() -> None:
    r = seen(models.FunctionalMlp(), models.vectors())
    assert [r.info(p).activation_after for p in ("first", "second", "third", "head")] == ["relu", "relu", "tanh", None]
    assert [r.info(p).activation_before for p in ("first", "second", "third", "head")] == [None, "relu", "relu", "tanh"]


def test_convolutions_norms_and_residual_adds_are_seen() -> None:
    r = seen(models.Cnn(), models.images())
    conv1, conv2 = r.info("blocks.0.conv1"), r.info("blocks.0.conv2")
    assert (conv1.norm_after, conv1.activation_after, conv1.activation_before) == ("batch_norm", "relu", "relu")
    assert (conv2.norm_after, conv2.activation_after) == ("batch_norm", None)
    assert conv2.role is Role.RESIDUAL_OUTPUT
    assert conv2.residual
    assert not conv1.residual
    assert (conv2.fan_in, conv2.fan_out) == (4 * 9, 4 * 9)
    assert (r.info("stem.0").role, r.info("head").role) == (Role.INPUT, Role.OUTPUT)
    assert r.info("blocks.1.bn1").role is Role.NORM_GAIN
    assert r.info("blocks.1.bn1", "bias").role is Role.NORM_BIAS
    assert r.info("blocks.1.conv1").block == "blocks.1"


def test_a_transformer_is_read() -> None:
    r = seen(models.Gpt(), models.tokens())
    assert r.info("wte").role is Role.EMBEDDING
    assert r.info("wte").fan_in == 1
    assert r.info("", "places").role is Role.POSITION
    for block in ("blocks.0", "blocks.1"):
        assert r.info(f"{block}.attn.out").role is Role.RESIDUAL_OUTPUT
        assert r.info(f"{block}.fc2").role is Role.RESIDUAL_OUTPUT
        assert r.info(f"{block}.fc2").activation_before == "gelu"
        assert r.info(f"{block}.fc1").activation_after == "gelu"
        assert r.info(f"{block}.fc1").norm_before == "layer_norm"
        assert r.info(f"{block}.attn.qkv").role is Role.HIDDEN
        assert r.has(block), "the residual stream"
        assert not r.has(f"{block}.attn"), "only its child's output"
    stream = [r.info(p, "output", Kind.ACTIVATION).depth for p in ("wte", "blocks.0", "blocks.1", "ln_f", "head")]
    assert stream == sorted(stream)


class Scale(nn.Module):
    """Root mean square normalization by hand, with a name that says nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def test_a_normalization_by_hand_is_read_whatever_it_is_called() -> None:
    r = seen(nn.Sequential(nn.Linear(12, 24), Scale(24), nn.ReLU(), nn.Linear(24, 5)), models.vectors())
    assert (r.info("0").norm_after, r.info("3").norm_before) == ("rms_norm", "rms_norm")
    assert r.info("1").role is Role.NORM_GAIN
    r = seen(nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5)), models.vectors())
    assert (r.info("0").norm_after, r.info("2").norm_before) == (None, None)


def test_tied_weights_are_measured_once_and_described_twice() -> None:
    r = seen(models.Gpt(), models.tokens())
    assert (r.info("wte").tied_with, r.info("head").tied_with) == ("head.weight", "wte.weight")
    assert (r.info("wte").role, r.info("head").role) == (Role.EMBEDDING, Role.OUTPUT)
    assert r.get(0, "wte", "weight", Kind.WEIGHT) is not None
    assert r.get(0, "head", "weight", Kind.WEIGHT) is None


def test_recurrent_and_attention_weights_have_their_own_fans() -> None:
    r = seen(models.Lstm(), (*models.tokens(vocabulary=20, length=6)[0:1], torch.zeros(4, dtype=torch.long)))
    ih, hh = r.info("cell", "weight_ih_l0"), r.info("cell", "weight_hh_l1")
    assert (ih.fan_in, ih.fan_out, hh.fan_in, hh.role) == (10, 12, 12, Role.RECURRENT)
    assert r.has("cell", "output.0")
    assert r.has("cell", "output.1.1")
    x = torch.randn(4, 6, 16)
    r = seen(models.MhaNet(), (x, torch.zeros(4, dtype=torch.long)))
    inner, out = r.info("mha", "in_proj_weight"), r.info("mha.out_proj")
    assert (inner.fan_in, inner.fan_out) == (16, 16)
    assert out.role is Role.RESIDUAL_OUTPUT
    assert out.depth == inner.depth == r.info("mha", "output.0", Kind.ACTIVATION).depth


@pytest.mark.parametrize(
    ("module", "fans"),
    [
        (nn.Linear(7, 9), (7, 9)),
        (nn.Conv2d(8, 16, 3), (72, 144)),
        (nn.Conv2d(8, 16, 3, groups=8), (9, 18)),
        (nn.Conv1d(4, 6, 5), (20, 30)),
        (nn.ConvTranspose2d(64, 128, 4, stride=2), (256, 2048)),
        (nn.Embedding(50, 12), (1, 12)),
        (nn.Bilinear(3, 4, 5), (12, 5)),
        (nn.GRU(5, 6), (5, 6)),
        (nn.LayerNorm(5), (None, None)),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else str(x),
)
def test_fans_are_the_effective_ones(module: nn.Module, fans: tuple[float, float]) -> None:
    from initscope.hooks.probe.kinds import effective_fans

    name, weight = next(iter(module.named_parameters()))
    assert effective_fans(module, name, weight) == fans


def test_outputs_of_every_shape_are_opened_and_unknown_ones_noted() -> None:
    model = models.Answering()
    monitor, r = watched(model)
    x, y = models.vectors()
    models.loss_of(model(x).logits, y).backward()
    monitor.close()
    assert r.has("part", "output.mean")
    assert r.has("", "output.logits")
    assert any("odd is a Box" in note for note in r.description.notes)
    assert any("int64" in note for note in r.description.notes)
    assert r.info("head").role is Role.OUTPUT


def test_the_root_is_measured_only_where_it_makes_something_of_its_own() -> None:
    assert not seen(models.mlp(), models.vectors()).has("")

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = models.mlp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * 3

    assert seen(Scaled(), models.vectors()).has("")


def test_wrappers_do_not_show_in_paths() -> None:
    r = seen(nn.DataParallel(models.mlp()), models.vectors())
    assert r.info("0").depth == 0


def test_frozen_parameters_are_described_as_such() -> None:
    model = models.mlp()
    model[0].requires_grad_(False)
    r = seen(model, models.vectors())
    assert (r.info("0").trainable, r.info("2").trainable) == (False, True)
    assert r.get(0, "0", "weight", Kind.GRADIENT) is None
    assert r.get(0, "0", "weight", Kind.WEIGHT) is not None


def test_include_and_exclude_choose_modules() -> None:
    r = seen(models.Gpt(), models.tokens(), include=["blocks.*"], exclude="*.attn")
    paths = {t.module_path for t in r.infos.values()}
    assert "wte" not in paths
    assert "blocks.0.fc1" in paths
    assert "blocks.0.attn.qkv" not in paths


def test_a_loss_tensor_says_which_loss_it_is() -> None:
    from initscope.hooks.probe.loss import loss_of

    f = nn.functional
    x, y = torch.randn(4, 5, requires_grad=True), torch.tensor([0, 1, 2, 3])
    p = torch.rand(4, 5)
    assert loss_of(f.cross_entropy(x, y)) == "cross_entropy"
    assert loss_of(f.cross_entropy(x * 2, y) / 4 + 0.1) == "cross_entropy"
    assert loss_of(f.nll_loss(x.log_softmax(1), y)) == "cross_entropy"
    assert loss_of(f.nll_loss(x, y)) == "nll"
    assert loss_of(f.mse_loss(x, p)) == "mse"
    assert loss_of(f.l1_loss(x, p)) == "l1"
    assert loss_of(f.binary_cross_entropy_with_logits(x, p)) == "bce"
    assert loss_of(x.sum()) is None


def test_the_description_knows_optimizer_batch_loss_and_classes() -> None:
    model = models.mlp()
    monitor, r = watched(model, config={"lr": 0.1, "when": object}, tags=["a"])
    x, y = models.vectors()
    for loss in train(model, torch.optim.AdamW(model.parameters(), lr=1e-3), [(x, y)], models.loss_of):
        monitor.log(loss=loss)
    monitor.close()
    d = r.description
    assert (d.model_class, d.batch_size, d.loss, d.output_classes, d.tags) == (
        "Sequential",
        8,
        "cross_entropy",
        5,
        ["a"],
    )
    assert (d.optimizers[0].name, d.optimizers[0].lr, d.optimizers[0].beta2) == ("AdamW", 1e-3, 0.999)
    assert d.parameter_count == sum(p.numel() for p in model.parameters())
    assert "torch" in d.versions


def test_in_a_deep_decoder_every_branch_is_known_as_one() -> None:
    r = seen(Decoder(8), models.tokens())
    weights = [t for t in r.infos.values() if t.kind is Kind.WEIGHT]
    branches = [t for t in weights if t.module_path.endswith((".o", ".w2"))]
    assert (len(branches), {t.role for t in branches}) == (16, {Role.RESIDUAL_OUTPUT})
    assert [t.module_path for t in weights if t.role is Role.POSITION] == ["places"]
