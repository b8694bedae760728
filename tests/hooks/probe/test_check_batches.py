"""How a batch goes into the model and into the loss: as people have it in their training loops."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from initscope.hooks import CheckError, check
from initscope.hooks.probe.batch import arranged, is_noise
from tests.support import architectures, models


class Two(nn.Module):
    """Takes two inputs, by place or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.layer(x * mask)


class Hugging(nn.Module):
    """Labels in, loss out, as a mapping or as an object."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.layer, self.answer = nn.Linear(6, 4), answer

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = self.layer(x)
        return self.answer(loss=None if labels is None else F.cross_entropy(logits, labels), logits=logits)


X, MASK, Y = torch.randn(8, 6), torch.ones(8, 6), torch.randint(4, (8,))
Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "batch",
    [(X, Y), [X, Y], Pair(X, Y), ((X,), Y), ({"input": X}, Y), [[X], Y]],
    ids=["tuple", "list", "named", "nested", "dict", "nested list"],
)
def test_with_a_loss_a_pair_is_inputs_and_target(batch: Any) -> None:
    report = check(nn.Sequential(nn.Linear(6, 4)), batch, F.cross_entropy)
    assert report.loss is not None
    assert report.has_backward


@pytest.mark.parametrize(
    "batch", [((X, MASK), Y), (X, MASK, Y), ({"x": X, "mask": MASK}, Y), ([X, MASK], Y)],
    ids=["nested", "flat", "names", "list"],
)  # fmt: skip
def test_a_model_with_several_inputs_gets_them_all(batch: Any) -> None:
    assert check(Two(), batch, F.cross_entropy).loss is not None


def test_without_a_loss_everything_goes_into_the_model() -> None:
    for batch in ((X, MASK), {"x": X, "mask": MASK}):
        report = check(Two(), batch)
        assert report.loss is None
        assert report.has_backward


def test_a_labelled_pair_without_a_loss_is_understood_and_said() -> None:
    report = check(nn.Sequential(nn.Linear(6, 4)), (X, Y))
    assert report.has_backward
    assert any("second part of the batch was not used" in note for note in report.notes)


@pytest.mark.parametrize("answer", [dict, SimpleNamespace], ids=["mapping", "object"])
def test_the_loss_of_a_model_that_makes_its_own_is_taken(answer: Any) -> None:
    report = check(Hugging(answer), {"x": X, "labels": Y})
    assert report.loss == pytest.approx(1.4, abs=1.0)
    assert report.description.loss == "cross_entropy"


def test_an_output_that_nobody_can_open_needs_a_loss() -> None:
    with pytest.raises(TypeError, match="returned SimpleNamespace without a floating-point tensor: give loss_fn"):
        check(Hugging(SimpleNamespace), {"x": X})


def test_an_output_of_one_number_is_the_loss() -> None:
    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).square().mean()

    report = check(Energy(), X)
    assert report.loss is not None
    assert report.has_backward


def test_what_is_no_pair_is_its_own_target() -> None:
    autoencoder = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))
    assert check(autoencoder, X, nn.MSELoss()).description.loss == "mse"
    labelled = {"x": X, "labels": Y}
    assert check(Hugging(dict), labelled, lambda out, given: F.cross_entropy(out["logits"], given["labels"])).loss


def test_a_loss_of_the_output_alone_gets_the_output_alone() -> None:
    for batch in (X, (X, Y)):
        assert check(nn.Linear(6, 4), batch, lambda out: out.square().mean()).loss is not None


def test_a_loss_with_an_optional_argument_gets_the_target_of_a_pair() -> None:
    given = []

    def loss_fn(output: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        given.append(target)
        return output.square().mean()

    check(nn.Linear(6, 4), (X, Y), loss_fn)
    assert given == [Y]


def test_packed_sequences_are_one_input() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(6, 5), nn.Linear(5, 4)

        def forward(self, x: Any) -> torch.Tensor:
            return self.head(self.cell(x)[1][0][-1])

    packed = pack_sequence([torch.randn(n, 6) for n in (4, 3, 2)])
    report = check(Packed(), (packed, Y[:3]), F.cross_entropy)
    assert report.loss is not None
    assert [r.full_name for r in report.layers] == ["cell.weight_ih_l0", "cell.weight_hh_l0", "head"]


def test_a_call_that_does_not_fit_shows_what_was_given() -> None:
    with pytest.raises(CheckError, match=r"model\(float32\[8, 6\]\), raised TypeError"):
        check(Two(), X)
    with pytest.raises(CheckError, match=r"model\(x=float32\[8, 6\], nonsense=int64\[8\]\), raised TypeError"):
        check(Two(), {"x": X, "nonsense": Y})
    with pytest.raises(CheckError, match=r"shapes cannot be multiplied"):
        check(models.mlp(), (X, Y), models.loss_of)


def bright(n: int = 32) -> torch.Tensor:
    """Images as they are: smooth, and some brighter than others."""
    coarse = torch.randn(n, 1, 3, 3) + torch.randn(n, 1, 1, 1)
    return F.interpolate(coarse, size=8, mode="bilinear", align_corners=True)


@pytest.mark.parametrize("make", [torch.randn, torch.rand], ids=["normal", "uniform"])
def test_a_batch_of_noise_condemns_no_healthy_network(make: Any) -> None:
    fixup = architectures.ResNet([architectures.FixupBlock(12, 3) for _ in range(3)])
    for model in (fixup, architectures.UNet()):
        report = check(model, make(32, 1, 8, 8))
        assert report.exit_code == 0, report
        assert any("the input is noise" in note for note in report.notes)


def test_noise_is_told_from_images_sounds_and_vectors() -> None:
    def noise(x: torch.Tensor) -> bool:
        return is_noise(arranged(nn.Identity(), x, None))

    assert noise(torch.randn(16, 3, 32, 32))
    assert noise(3 * torch.rand(16, 50, 8) + 2)
    assert not noise(bright())
    assert not noise(bright() + 0.3 * torch.randn(32, 1, 8, 8))
    assert not noise(torch.randn(16, 1, 400).cumsum(2))
    assert not noise(torch.randn(16, 64))  # nothing is averaged over positions
    assert not noise(torch.zeros(16, 3, 8, 8))


def test_a_collapse_is_seen_with_images_as_they_are() -> None:
    layers = [m for _ in range(10) for m in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), *layers, nn.Flatten(), nn.Linear(1024, 4))
    report = check(model, (bright(), torch.randint(4, (32,))), F.cross_entropy)
    assert "signal-collapse" in {f.rule for root in report.findings for f, _ in root.flattened()}
