"""Real bugs of memory that nobody wrote to: meta devices, missing keys, resets that were left out; each with its twin.

The numbers in the docstrings are those of the public issues and pull requests where the bugs were reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support.decoder import Decoder
from tests.support.models import loss_of, tokens
from tests.support.starts import next_token, sequences, vectors
from tests.support.wild import learns, look, mended, paste, told_apart

BATCH = tokens()
VECTORS = next(vectors())


def decoder() -> Decoder:
    torch.manual_seed(2)
    return Decoder(3)


def garbage(tensor: Tensor) -> None:
    """What reading uninitialized memory as floats gives: any exponent, both signs."""
    g = torch.Generator().manual_seed(0)
    exponents = torch.rand(tensor.shape, generator=g) * 60 - 30
    with torch.no_grad():
        tensor.copy_(10.0**exponents * torch.randn(tensor.shape, generator=g).sign())


@torch.no_grad()
def missing_key(model: Decoder) -> None:
    """transformers 46002, 30953; TransformerLens 902: a key that the checkpoint lacks stays `torch.empty`."""
    model.get_parameter("blocks.1.w2.weight").fill_(math.nan)


@torch.no_grad()
def empty_slice(model: Decoder) -> None:
    """transformers 35437, 35913: rows that were added to a table, by `torch.empty`, are NaN in a part."""
    model.get_parameter("head.weight")[-3:] = math.nan


def to_empty(model: Decoder) -> None:
    """flame 9: `to_empty()` after a meta device, and one module has no `reset_parameters`."""
    garbage(model.get_parameter("blocks.2.o.weight"))


@pytest.mark.parametrize(
    ("spoil", "rule", "path"),
    [(missing_key, "nonfinite", "blocks.1.w2"), (empty_slice, "nonfinite", "head"),
     (to_empty, "uninitialized-weights", "blocks.2.o")],
)  # fmt: skip
def test_a_matrix_that_nobody_wrote_to(spoil: Callable[[Decoder], None], rule: str, path: str) -> None:
    model = decoder()
    spoil(model)
    found = told_apart(look(model, BATCH, loss_of), look(decoder(), BATCH, loss_of), rule)
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.NONFINITE, path)
    mended(model, found, BATCH, loss_of)
    learns(model, sequences(), next_token)


class Ssm(nn.Module):
    """A state space branch as Mamba has it: decays exp(-exp(A_log)·dt), dt from a bias of its own."""

    def __init__(self, width: int = 24, states: int = 4) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.inp, self.out = nn.Linear(16, width), nn.Linear(width, 4)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(width, 1))
        rates = torch.exp(torch.linspace(math.log(1e-3), math.log(0.1), width))
        self.dt_bias = nn.Parameter(rates + torch.log(-torch.expm1(-rates)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inp(x)
        kept = torch.exp(-torch.exp(self.A_log) * F.softplus(self.dt_bias)[:, None]).mean(1)
        out: Tensor = self.out(self.norm(h + h * kept))
        return out


def test_the_decays_of_a_state_space_were_never_written() -> None:
    """flame 9, fla 156, 169: A_log and dt_bias are no module's own, and `reset_parameters` left them out."""
    model = Ssm()
    garbage(model.dt_bias)
    found = told_apart(look(model, VECTORS), look(Ssm(), VECTORS), "uninitialized-weights")
    assert (found.severity, found.tensor_name) == (Severity.CRITICAL, "dt_bias")
    mended(model, found, VECTORS)


# -- norms and scales --------------------------------------------------------------------------------------------------


def normed(norm: Callable[[int], nn.Module] = nn.LayerNorm) -> nn.Sequential:
    """Three layers with a norm and a ReLU each; the norm of layer i is module 3·i + 1."""
    torch.manual_seed(5)
    layers = [m for i in range(3) for m in (nn.Linear(32 if i else 16, 32), norm(32), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(32, 4))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_gains_of_norms_are_zero_after_a_meta_device(norm: Callable[[int], nn.Module]) -> None:
    """llm-foundry 1745, bionemo 1368: norms were skipped, memory that was zero stayed zero."""
    model = normed(norm)
    nn.init.zeros_(model[4].weight)
    found = told_apart(look(model, VECTORS), look(normed(norm), VECTORS), "norm-gain")
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.NORM_GAIN, "4")
    mended(model, found, VECTORS)
    learns(model, vectors())


def test_a_gain_is_nan_after_a_meta_device() -> None:
    """litgpt 1131: the same, where the memory was not zero."""
    model = normed()
    nn.init.constant_(model[4].weight, math.nan)
    found = told_apart(look(model, VECTORS), look(normed(), VECTORS), "nonfinite")
    assert (found.severity, found.module_path, found.tensor_name) == (Severity.CRITICAL, "4", "weight")
    mended(model, found, VECTORS)


class Scaled(nn.Module):
    """A branch behind a layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.layer_scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scale * self.fc2(F.gelu(self.fc1(self.norm(x))))


def scales() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(16, 32), *[Scaled(32) for _ in range(4)], nn.LayerNorm(32), nn.Linear(32, 4))


def test_some_layer_scales_are_zero_after_a_meta_device() -> None:
    """dinov2 476: the value is in the constructor, which a meta device forgets, and not in `reset_parameters`."""
    model = scales()
    for i in (2, 3):
        nn.init.zeros_(model[i].layer_scale)
    found = told_apart(look(model, VECTORS), look(scales(), VECTORS), "norm-gain")
    assert (found.severity, found.module_path, found.tensor_name) == (Severity.WARNING, "2", "layer_scale")
    mended(model, found, VECTORS)
    assert torch.equal(model[3].layer_scale, torch.full((32,), 0.1))


def test_all_layer_scales_are_zero_after_a_meta_device() -> None:
    """The same in every block: as ReZero starts, so that it is told and no alarm."""
    model = scales()
    for i in range(1, 5):
        nn.init.zeros_(model[i].layer_scale)
    found = told_apart(look(model, VECTORS), look(scales(), VECTORS), "norm-gain")
    assert (found.severity, found.module_path) == (Severity.INFO, "1")
    paste(model, found)
    assert all(float(model[i].layer_scale.detach().mean()) > 0 for i in range(1, 5))


# -- resets that were never called -------------------------------------------------------------------------------------


class Deferred(nn.Linear):
    """A layer that only allocates: who makes it is to call `draw`."""

    def reset_parameters(self) -> None:
        """Fresh memory is zero."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def draw(self) -> None:
        super().reset_parameters()


def deferred(*, drawn: bool) -> nn.Sequential:
    torch.manual_seed(5)
    model = nn.Sequential(Deferred(16, 32), nn.ReLU(), Deferred(32, 32), nn.ReLU(), Deferred(32, 4))
    for layer in model:
        if drawn and isinstance(layer, Deferred):
            layer.draw()
    return model


def test_what_draws_the_weights_was_never_called() -> None:
    """lsoftmax 7: the constructor allocates, and nobody draws."""
    model = deferred(drawn=False)
    found = told_apart(look(model, VECTORS), look(deferred(drawn=True), VECTORS), "zero-weights")
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.ZERO_SYMMETRIC, "0")
    mended(model, found, VECTORS)
    learns(model, vectors(), rate=1e-2)


def test_everything_that_nobody_wrote_to_is_in_one_remedy() -> None:
    """Several modules at once, as a meta device leaves them: matrices, gains and biases."""
    model, twin = normed(), normed()
    for parameter in (*model[3].parameters(), *model[4].parameters(), model[6].weight):
        garbage(parameter)
    found = told_apart(look(model, VECTORS), look(twin, VECTORS), "uninitialized-weights")
    assert "4 more tensors" in found.diagnosis
    mended(model, found, VECTORS)
    assert torch.equal(model[4].weight, torch.ones(32))
