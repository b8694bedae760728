"""Real bugs that the first loss, or attention, shows, in miniature; and slips that look bad and are harmless.

The numbers in the docstrings are those of the public issues and pull requests where the bugs were reported.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support.decoder import Decoder
from tests.support.gpt2 import Gpt2
from tests.support.models import loss_of, tokens
from tests.support.starts import next_token, sequences, start, vectors
from tests.support.wild import in_words, learns, look, mended, told_apart

BATCH = tokens()
VECTORS = next(vectors())


def tied(std: float) -> Gpt2:
    """GPT-2's draws, but for the table, which is the head too."""
    model = Gpt2(blocks=2)
    nn.init.normal_(model.wte.weight, std=std)
    return model


def test_the_table_that_is_the_head_has_torch_s_default() -> None:
    """pytorch 3121, RetNet 31: nn.Embedding draws N(0, 1); as a head that makes logits of std √width."""
    model = tied(1.0)
    found = told_apart(look(model, BATCH, loss_of), look(tied(0.02), BATCH, loss_of), "embedding-scale")
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.BAD_EMBEDDING_SCALE, "wte")
    mended(model, found, BATCH, loss_of)
    learns(model, sequences(), next_token)


def test_the_head_has_a_variance_of_one() -> None:
    """transformers 26441: T5's head drawn as its tied table is, the first loss is ten times ln C."""
    torch.manual_seed(1)
    model, twin = Decoder(2, width=96), Decoder(2, width=96)
    nn.init.normal_(model.head.weight, std=4.0)
    found = told_apart(look(model, BATCH, loss_of), look(twin, BATCH, loss_of), "initial-loss")
    assert (found.severity, found.cause) == (Severity.WARNING, Cause.BAD_OUTPUT_HEAD)
    mended(model, found, BATCH, loss_of)
    learns(model, sequences(), next_token)


def test_a_std_of_0_6_was_left_over_in_the_table() -> None:
    """LayerNorm-Scaling 6: a tied table that another recipe drew; it is told."""
    found = told_apart(look(tied(0.8), BATCH, loss_of), look(tied(0.02), BATCH, loss_of), "embedding-scale")
    assert found.module_path == "wte"


class Heads(nn.Module):
    """Self-attention with `q_proj` and `k_proj` of a std; pre-norm, one head of 32."""

    def __init__(self, std: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inp, self.norm = nn.Linear(16, 32), nn.LayerNorm(32)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(32, 32, bias=False) for _ in range(3))
        self.head = nn.Linear(32, 4)
        for layer in (self.q_proj, self.k_proj):
            nn.init.normal_(layer.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.inp(x)).unsqueeze(0)
        y = F.scaled_dot_product_attention(self.q_proj(h), self.k_proj(h), self.v_proj(h))
        out: Tensor = self.head((h + y).squeeze(0))
        return out


def test_queries_and_keys_lack_the_root_of_their_width() -> None:
    """N(0, 1) for N(0, 1/d): what a missing 1/√d does to queries and keys, logits of std d."""
    model = Heads(1.0)
    found = told_apart(look(model, VECTORS), look(Heads(32**-0.5), VECTORS), "attention-logits")
    assert (found.severity, found.module_path) == (Severity.WARNING, "q_proj")
    mended(model, found, VECTORS)


# -- low rank ----------------------------------------------------------------------------------------------------------


class Adapted(nn.Linear):
    """A frozen layer and a trained product of two thin ones."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(inputs, 4, bias=False), nn.Linear(4, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x) + self.lora_B(self.lora_A(x))
        return out


def adapted(zero: tuple[str, ...]) -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(Adapted(16, 32), nn.GELU(), Adapted(32, 32), nn.GELU(), nn.Linear(32, 4))
    for name, parameter in model.named_parameters():
        if name.endswith(tuple(f"{z}.weight" for z in zero)):
            nn.init.zeros_(parameter)
    return model


def test_both_matrices_of_low_rank_pairs_are_zero() -> None:
    """Each waits for the other's gradient for ever: it is told once others have moved."""
    model, twin = adapted(("lora_A", "lora_B")), adapted(("lora_B",))
    tuners = [torch.optim.Adam([p for p in m.parameters() if p.requires_grad], 3e-3) for m in (model, twin)]
    bug, clean = (start(m, t, vectors(), steps=8) for m, t in zip((model, twin), tuners, strict=True))
    found = next(f for f in bug.of(Severity.WARNING) if f.cause is Cause.STUCK_BRANCH)
    assert "lora" in str(found.module_path)
    assert not clean.alarms


@pytest.mark.parametrize("zero", ["lora_A", "lora_B"])
def test_which_matrix_of_a_pair_is_zero_is_no_bug(zero: str) -> None:
    """LoRA 98, 155: A and B swapped on embeddings: the product is zero either way, and wakes up."""
    model = adapted((zero,))
    odd = [f for f in look(model, VECTORS) if f.severity is not Severity.INFO]
    assert not odd, in_words(odd)
    learns(model, vectors(), rate=3e-2)


# -- harmless ----------------------------------------------------------------------------------------------------------


def test_positions_of_half_the_size_are_no_bug() -> None:
    """build-nanogpt 18: `wpe` with std 0.02 where GPT-2 has 0.01; seeds matter as much."""
    for std in (0.02, 0.01):
        model = Gpt2(blocks=2)
        nn.init.normal_(model.wpe.weight, std=std)
        odd = [f for f in look(model, BATCH, loss_of) if f.severity is not Severity.INFO]
        assert not odd, in_words(odd)


class Rates(nn.Module):
    """A gated recurrence over positions whose rates come from a bias: softplus(dt_bias)."""

    def __init__(self, dt_bias: Tensor) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.table = nn.Embedding(40, 24)
        self.inp, self.norm, self.out = nn.Linear(24, 24), nn.LayerNorm(24), nn.Linear(24, 40)
        self.dt_bias = nn.Parameter(dt_bias)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, 25.0)))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.inp(self.table(ids))
        rate = F.softplus(self.dt_bias)
        kept = torch.exp(-torch.exp(self.A_log) * rate)
        state, states = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            state = kept * state + rate * x[:, t]
            states.append(state)
        out: Tensor = self.out(self.norm(torch.stack(states, 1)))
        return out


def test_rates_that_are_all_one_train_as_drawn_ones_do() -> None:
    """fla 739: Mamba 2's `dt_bias` was ones where rates from 0.001 to 0.1 are meant; it is no alarm."""
    meant = torch.exp(torch.linspace(math.log(1e-3), math.log(0.1), 24))
    for dt_bias in (torch.ones(24), meant + torch.log(-torch.expm1(-meant))):
        odd = [f for f in look(Rates(dt_bias), BATCH, loss_of) if f.severity is not Severity.INFO]
        assert not odd, in_words(odd)
        learns(Rates(dt_bias), sequences(), next_token, rate=1e-2)
