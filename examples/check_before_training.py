"""Look at a start before it is trained, change what is wrong, look again, and train.

Run it with Python; or judge the same network as CI would, by exit status:
`initscope check examples/check_before_training.py:build`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from initscope.hooks import check


def build() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """Sixteen layers as PyTorch draws them, and a batch: whether a point is nearer to one corner or to another."""
    layers = [module for _ in range(16) for module in (nn.Linear(64, 64), nn.ReLU())]
    inputs = torch.randn(256, 64)
    return nn.Sequential(*layers, nn.Linear(64, 4)), (inputs, inputs[:, :4].argmax(dim=1))


def train(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, steps: int = 60) -> float:
    """The last loss of a plain training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        loss = cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def main() -> None:
    """Checks and trains the network as it is drawn, and with the remedy that the check proposes."""
    torch.manual_seed(0)
    model, batch = build()
    print(check(model, batch, cross_entropy))
    print(f"\nas it is: loss {train(model, *batch):.3f} after 60 steps\n")

    torch.manual_seed(0)
    model, batch = build()
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    report = check(model, batch, cross_entropy)
    print(f"with what the report says: {report!r}, loss {train(model, *batch):.3f} after 60 steps")


if __name__ == "__main__":
    main()
