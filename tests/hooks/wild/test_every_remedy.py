"""Rules whose remedy is code that other tests do not run: a start that each tells, mended by what it says to type."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from initscope.hooks import Finding
from initscope.hooks.vocabulary import Severity
from tests.support import networks as n
from tests.support import started
from tests.support.architectures import Recurrent
from tests.support.starts import next_token, sequences, start, vectors
from tests.support.wild import Batch, in_words, learns, look, mended, paste

VECTORS = next(vectors())


def net(begin: n.Start, depth: int = 6, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A plain chain with every matrix drawn by `begin`."""
    torch.manual_seed(5)
    model = n.mlp(depth, activation)
    n.draw(begin)(model)
    return model


def shy(bias: float) -> nn.Sequential:
    """He draws, and one layer with a bias of its own."""
    model = net(n.he)
    nn.init.constant_(model[4].bias, bias)  # type: ignore[arg-type]
    return model


def widening(*, drawn: bool) -> nn.Sequential:
    """Layers that turn from narrow to wide and back, with the std of the fan_out: the gradient is what drifts."""
    torch.manual_seed(5)
    model = net(n.he, 14)
    for module in model if drawn else ():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5 * (2 / module.in_features) ** 0.5)
    return model


def loud_bias() -> nn.Sequential:
    """One layer whose biases drown what its weights make of the input: behind it all samples look alike."""
    model = net(n.xavier, 6, nn.Tanh)
    nn.init.constant_(model[4].bias, 12.0)  # type: ignore[arg-type]
    return model


def hot_tanh() -> nn.Sequential:
    """Weights of std 2 in front of every tanh; the head is as it should be."""
    model = net(n.normal(2.0), 6, nn.Tanh)
    nn.init.normal_(model[12].weight, std=0.1)  # type: ignore[arg-type]
    return model


STARTS: dict[str, Callable[[], nn.Sequential]] = {
    "constant-weights": lambda: net(n.constant(0.1)),
    "bias-init": lambda: shy(-20.0),
    "dead-units": lambda: shy(-20.0),
    "signal-collapse": loud_bias,
    "forward-drift": lambda: net(n.normal(1.0), 8),
    "backward-drift": lambda: widening(drawn=True),
    "saturation": hot_tanh,
    "weight-scale": hot_tanh,
}


@pytest.mark.parametrize("rule", STARTS)
def test_what_the_rule_says_to_type_mends_the_start_and_it_learns(rule: str) -> None:
    model = STARTS[rule]()
    bug = look(model, VECTORS)
    found = next((f for f in bug if f.rule == rule), None)
    assert found is not None, in_words(bug)
    mended(model, found, VECTORS)
    if found.severity is Severity.CRITICAL:
        learns(model, vectors(), rate=3e-3)


# -- what the later steps show -----------------------------------------------------------------------------------------


def later(model: nn.Module, optimizer: torch.optim.Optimizer, rule: str, steps: int) -> Finding | None:
    """The rule's worst finding over some steps, consequences too."""
    seen = start(model, optimizer, vectors(), steps=steps)
    everything = [f for root in seen.worst.values() for f, _ in root.flattened()]
    return max((f for f in everything if f.rule == rule), key=lambda f: f.severity.rank, default=None)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)


def test_frozen_draws_learn_after_the_remedy() -> None:
    model = net(n.he)
    model[:10].requires_grad_(False)
    found = later(model, adam(model), "frozen-fresh", 2)
    assert found is not None
    paste(model, found)
    assert all(p.requires_grad for p in model.parameters())
    assert later(model, adam(model), "frozen-fresh", 2) is None
    learns(model, vectors(), rate=1e-2)


def test_forgotten_weights_move_after_the_remedy() -> None:
    model = net(n.he, 3)
    optimizer = torch.optim.Adam([*model[4].parameters(), *model[6].parameters()], 1e-2)
    found = later(model, optimizer, "unoptimized", 8)
    assert found is not None
    exec(found.remedy, {"model": model, "optimizer": optimizer})  # noqa: S102 - what a person would paste
    before = [model[at].weight.detach().clone() for at in (0, 2)]
    assert later(model, optimizer, "unoptimized", 8) is None
    assert not any(torch.equal(a, model[at].weight) for a, at in zip(before, (0, 2), strict=True))


class Pair(nn.Module):
    """A low-rank pair beside a frozen layer, both matrices zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.base, self.head = nn.Linear(16, 32).requires_grad_(False), nn.Linear(32, 4)
        self.lora_A, self.lora_B = nn.Linear(16, 4, bias=False), nn.Linear(4, 32, bias=False)
        nn.init.zeros_(self.lora_A.weight)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.base(x) + self.lora_B(self.lora_A(x))))
        return out


def test_a_branch_that_never_wakes_wakes_after_the_remedy() -> None:
    model = Pair()
    found = later(model, adam(model), "stuck-branch", 8)
    assert found is not None
    paste(model, found)
    assert later(model, adam(model), "stuck-branch", 8) is None
    assert model.lora_A.weight.any()
    assert model.lora_B.weight.any()


def test_units_that_stay_equal_part_after_the_remedy() -> None:
    model = net(n.xavier, 3, nn.Tanh)
    with torch.no_grad():
        model[4].weight.copy_(model[4].weight[:1].expand_as(model[4].weight))  # type: ignore[arg-type, index, operator]
        model[6].weight.copy_(model[6].weight[:, :1].expand_as(model[6].weight))  # type: ignore[arg-type, index, operator]

    def found() -> list[Finding]:
        told = started.findings(
            model, VECTORS[0], steps=22, optimizer=lambda p: torch.optim.Adam(p, 3e-3), targets=VECTORS[1]
        )
        return [f for f in told if f.rule == "symmetry-persists"]

    (finding,) = found()
    paste(model, finding)
    assert found() == []


# -- what is typed elsewhere than in the model -------------------------------------------------------------------------


def typed(finding: Finding, **given: object) -> dict[str, object]:
    """The names that a remedy sets, with what is at hand where it is typed."""
    names: dict[str, object] = {"torch": torch, "nn": nn, **given}
    exec(finding.remedy, names)  # noqa: S102 - what a person would paste
    return names


@pytest.mark.parametrize("rule", ["update-ratio", "loss-jump", "activation-runaway"])
def test_the_learning_rate_that_the_remedy_names_is_one_to_train_with(rule: str) -> None:
    model = net(n.he)
    found = later(model, torch.optim.Adam(model.parameters(), 0.3), rule, 4)
    assert found is not None
    rate = float(str(typed(found)["lr"]))
    learns(net(n.he), vectors(), rate=rate)


def test_a_head_that_holds_the_loss_up_is_drawn_anew() -> None:
    model = net(n.he)
    nn.init.normal_(model[12].weight, std=60.0)  # type: ignore[arg-type]
    found = later(model, torch.optim.SGD(model.parameters(), 1e-4), "stuck-loss", 14)
    assert found is not None
    assert found.severity is Severity.CRITICAL
    paste(model, found)
    assert later(model, torch.optim.SGD(model.parameters(), 1e-4), "stuck-loss", 14) is None


def test_weights_of_a_short_format_keep_small_steps_after_the_remedy() -> None:
    model = net(n.he).bfloat16()

    def steps() -> Iterator[Batch]:
        for x, y in vectors():
            yield x.to(model[0].weight.dtype), y  # type: ignore[arg-type]

    def told() -> list[Finding]:
        seen = start(model, torch.optim.SGD(model.parameters(), 1e-5), steps(), steps=4)
        return [f for f in seen.worst.values() if f.rule == "numeric-range"]

    (found,) = told()
    paste(model, found)
    assert all(p.dtype is torch.float32 for p in model.parameters())
    assert told() == []


def test_the_eps_that_the_remedy_names_lets_adam_step() -> None:
    def faint(output: Tensor, labels: Tensor) -> Tensor:
        return 1e-8 * nn.functional.cross_entropy(output, labels)

    def told(eps: float) -> list[Finding]:
        model = net(n.he)
        seen = start(model, torch.optim.Adam(model.parameters(), 1e-3, eps=eps), vectors(), faint, steps=8)
        return [f for f in seen.worst.values() if f.rule == "starved-updates"]

    (found,) = told(1e-8)
    assert found.severity is Severity.WARNING
    assert told(float(str(typed(found)["eps"]))) == []


def test_input_that_was_standardised_is_silent() -> None:
    x, y = VECTORS
    x = 500.0 + 300.0 * x
    found = next(f for f in look(net(n.he), (x, y)) if f.rule == "unscaled-input")
    scaled = typed(found, x=x, mean=x.mean(0), std=x.std(0))["x"]
    assert isinstance(scaled, Tensor)
    left = look(net(n.he), (scaled, y))
    assert not [f for f in left if f.severity is not Severity.INFO], in_words(left)


class Attentive(nn.Module):
    """Attention over the samples of a batch, with queries and keys of a std."""

    def __init__(self, std: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inp, self.norm, self.head = nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 4)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(32, 32, bias=False) for _ in range(3))
        nn.init.normal_(self.q_proj.weight, std=std)
        nn.init.normal_(self.k_proj.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.inp(x)).unsqueeze(0)
        y = nn.functional.scaled_dot_product_attention(self.q_proj(h), self.k_proj(h), self.v_proj(h))
        out: Tensor = self.head((h + y).squeeze(0))
        return out


def test_attention_that_starts_flat_tells_positions_apart_after_the_remedy() -> None:
    model = Attentive(1e-3)
    found = next(f for f in look(model, VECTORS) if f.rule == "attention-growth")
    # The first of two is enough: what is left is small, not flat.
    mended(model, found, VECTORS)


def test_a_recurrent_matrix_that_is_too_large_is_drawn_anew() -> None:
    torch.manual_seed(0)
    model = Recurrent(nn.RNN)
    nn.init.normal_(model.cell.weight_hh_l0, std=3.0)  # type: ignore[arg-type]
    batch = next(sequences())
    bug = look(model, batch, next_token)
    found = next((f for f in bug if f.rule == "recurrent-scale"), None)
    assert found is not None, in_words(bug)
    mended(model, found, batch, next_token)
    learns(model, sequences(), next_token, rate=1e-2)
