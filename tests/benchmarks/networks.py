"""The four networks that hook cost is measured on, with a training step each. Float32, one thread, fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Bench:
    """A model, and its training step with data that is already there."""

    model: nn.Module
    step: Callable[[], None]


def _bench(model: nn.Module, inputs: Tensor, targets: Tensor) -> Bench:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = model(inputs)
        functional.cross_entropy(output.flatten(0, -2), targets.flatten()).backward()
        optimizer.step()

    return Bench(model, step)


def deep_mlp() -> Bench:
    """24 layers of 512 with ReLU, batch 128."""
    torch.manual_seed(1)
    layers = [m for _ in range(24) for m in (nn.Linear(512, 512), nn.ReLU())]
    return _bench(nn.Sequential(*layers, nn.Linear(512, 10)), torch.randn(128, 512), torch.randint(10, (128,)))


def cnn() -> Bench:
    """8 convolutions of 64 channels on 32 × 32, batch 8."""
    torch.manual_seed(2)
    layers = [m for i in range(8) for m in (nn.Conv2d(3 if i == 0 else 64, 64, 3, padding=1), nn.ReLU())]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return _bench(nn.Sequential(*layers, *head), torch.randn(8, 3, 32, 32), torch.randint(10, (8,)))


class Block(nn.Module):
    """Attention and MLP behind layer norms, width 192."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Gpt(nn.Module):
    """4 blocks of width 192, 6 heads, 1,000 tokens, context 128."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(1000, 192), nn.Embedding(128, 192)
        self.blocks = nn.ModuleList(Block(192, 6) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 1000, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        output: Tensor = self.head(self.norm(x))
        return output


def small_gpt() -> Bench:
    """A GPT of 4 × 192, batch 4 × 128 tokens."""
    torch.manual_seed(3)
    return _bench(Gpt(), torch.randint(1000, (4, 128)), torch.randint(1000, (4, 128)))


def tiny_layers() -> Bench:
    """200 layers of 16 with tanh, batch 32: nothing but overhead."""
    torch.manual_seed(4)
    layers = [m for _ in range(200) for m in (nn.Linear(16, 16), nn.Tanh())]
    return _bench(nn.Sequential(*layers), torch.randn(32, 16), torch.randint(16, (32,)))


NETWORKS: dict[str, Callable[[], Bench]] = {
    "deep MLP": deep_mlp,
    "CNN": cnn,
    "small GPT": small_gpt,
    "200 tiny layers": tiny_layers,
}
