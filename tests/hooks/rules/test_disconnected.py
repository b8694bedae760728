"""Weights that no gradient reaches or no optimizer moves, branches that never wake, experts without tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from initscope.hooks.vocabulary import Cause, Severity
from tests.support import networks as n
from tests.support.live import seen


class Net(nn.Module):
    """Three layers; `join` is what stands between the second and the third."""

    def __init__(self, join: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 32)
        self.third = nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        x = self.join(torch.relu(self.second(torch.relu(self.first(x)))))
        out: Tensor = self.head(torch.relu(self.third(x)))
        return out


def test_layers_behind_a_detach_are_a_warning() -> None:
    found = seen(Net(lambda x: x.detach()), optimizer=n.adam(), steps=6).worst["disconnected"]
    assert (found.severity, found.cause, found.module_path) == (
        Severity.WARNING,
        Cause.FROZEN_OR_DISCONNECTED_LAYER,
        "first",
    )
    assert found.evidence["layers"] == "first, second"
    assert "behind the last of them: second" in found.remedy


def test_a_model_without_any_gradient_but_its_biases_is_critical() -> None:
    class Rounded(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).round().detach() + self.head.bias

    found = seen(Rounded(), optimizer=n.adam(), steps=6).worst["disconnected"]
    assert found.severity is Severity.CRITICAL


def test_frozen_layers_are_not_disconnected() -> None:
    model = Net(lambda x: x.detach())
    model.first.requires_grad_(False)
    model.second.requires_grad_(False)
    assert "disconnected" not in seen(model, optimizer=n.adam(), steps=6).worst


def test_a_zero_head_blocks_gradients_for_one_step_only() -> None:
    model = Net()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    assert seen(model, optimizer=n.adam(), steps=8).alarms == {}


def test_layers_that_are_left_out_in_turn_are_not_disconnected() -> None:
    turn = [0]

    class Skipping(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.second(torch.relu(self.first(x))))
            third = torch.relu(self.third(x))
            out: Tensor = self.head(x + (third if turn[0] % 3 == 0 else third.detach()))
            return out

    found = seen(Skipping(), optimizer=n.adam(), steps=9, before_step=lambda step: turn.__setitem__(0, step))
    assert "disconnected" not in found.worst


def test_a_layer_that_the_optimizer_never_got_is_a_warning() -> None:
    model = Net()

    def without_second(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in parameters if p is not model.second.weight], lr=1e-3)

    found = seen(model, optimizer=without_second, steps=8).worst["unoptimized"]
    assert (found.severity, found.module_path) == (Severity.WARNING, "second")
    assert "add_param_group({'params': [model.second.weight]})" in found.remedy


def test_a_group_whose_rate_is_zero_is_meant() -> None:
    model = Net()

    def resting(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        others = [p for p in parameters if p is not model.second.weight]
        return torch.optim.Adam([{"params": others}, {"params": [model.second.weight], "lr": 0.0}], lr=1e-3)

    assert "unoptimized" not in seen(model, optimizer=resting, steps=8).worst


class LowRank(nn.Module):
    """A frozen layer with a low-rank pair beside it."""

    def __init__(self, both_zero: bool) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.body = nn.Linear(16, 32)
        self.lora_A = nn.Linear(16, 4, bias=False)
        self.lora_B = nn.Linear(4, 32, bias=False)
        self.head = nn.Linear(32, 4)
        nn.init.zeros_(self.lora_B.weight)
        if both_zero:
            nn.init.zeros_(self.lora_A.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.body(x) + self.lora_B(self.lora_A(x))))
        return out


def test_a_low_rank_pair_of_zeros_stays_asleep() -> None:
    found = seen(LowRank(both_zero=True), optimizer=n.adam(), steps=8)
    assert found.worst["stuck-branch"].severity is Severity.WARNING
    assert found.worst["stuck-branch"].cause is Cause.STUCK_BRANCH
    assert found.first_step["stuck-branch"] <= 4
    assert seen(LowRank(both_zero=False), optimizer=n.adam(), steps=14).alarms == {}


class Gated(nn.Module):
    """A branch behind a gate that starts at zero, and may be out of reach."""

    def __init__(self, reach: bool) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.body = nn.Linear(16, 32)
        self.branch = nn.Linear(32, 32)
        self.gate = nn.Parameter(torch.zeros(1))
        self.head = nn.Linear(32, 4)
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        gate = self.gate if self.reach else self.gate * self.gate
        out: Tensor = self.head(x + gate * self.branch(x))
        return out


def test_a_gate_whose_gradient_is_zero_never_opens() -> None:
    found = seen(Gated(reach=False), optimizer=n.adam(), steps=14)
    assert found.worst["stuck-branch"].tensor_name == "gate"
    assert "disconnected" not in found.worst
    assert seen(Gated(reach=True), optimizer=n.adam(), steps=14).alarms == {}


class Mixture(nn.Module):
    """Three experts; the router may know two of them only."""

    def __init__(self, known: int) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.experts = nn.ModuleList(nn.Linear(16, 32) for _ in range(3))
        self.head = nn.Linear(32, 4)
        self.known = known

    def forward(self, x: Tensor) -> Tensor:
        choice = (x[:, 0] * 7).long().abs() % self.known
        y = torch.stack([expert(x) * (choice == i)[:, None] for i, expert in enumerate(self.experts)]).sum(0)
        out: Tensor = self.head(torch.relu(y))
        return out


def test_an_expert_without_tokens_is_an_info_and_no_alarm() -> None:
    found = seen(Mixture(2), optimizer=n.adam(), steps=122)
    assert found.alarms == {}
    assert found.worst["starved-experts"].module_path == "experts.2"
    assert "starved-experts" not in seen(Mixture(3), optimizer=n.adam(), steps=122).worst
