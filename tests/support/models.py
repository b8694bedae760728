"""Small networks of every kind that the probe must read right."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

CLASSES = 5


def mlp(width: int = 24, depth: int = 3, inputs: int = 12) -> nn.Sequential:
    """Linear and ReLU modules in a chain."""
    sizes = [inputs] + [width] * depth
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


class FunctionalMlp(nn.Module):
    """As `mlp`, with functional and in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 24)
        self.second = nn.Linear(24, 24)
        self.third = nn.Linear(24, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        x = self.second(x).relu_()
        return self.head(torch.tanh(self.third(x)))


class ConvBlock(nn.Module):
    """Two convolutions with batch norm and a residual add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return F.relu(y)


class Cnn(nn.Module):
    """Stem, residual blocks, pooling, head."""

    def __init__(self, blocks: int = 2, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(ConvBlock(channels) for _ in range(blocks))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Attention(nn.Module):
    """Causal self-attention with a fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class GptBlock(nn.Module):
    """Pre-norm attention and feed-forward branches."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.drop(self.fc2(F.gelu(self.fc1(self.ln2(x)))))


class Gpt(nn.Module):
    """Token and position embeddings, blocks, tied head."""

    def __init__(self, vocabulary: int = 40, width: int = 32, blocks: int = 2, *, tied: bool = True) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.01)
        self.blocks = nn.ModuleList(GptBlock(width, 4) for _ in range(blocks))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.places[:, : tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


class Lstm(nn.Module):
    """Embedding, two LSTM layers, a head on the last output. The embedding's output is batch first."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 10)
        self.cell = nn.LSTM(10, 12, num_layers=2, batch_first=batch_first)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.table(tokens)
        y, _ = self.cell(x if self.cell.batch_first else x.transpose(0, 1))
        return self.head(y[:, -1] if self.cell.batch_first else y[-1])


class MhaNet(nn.Module):
    """torch's own attention module with a residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.mha(x, x, x)
        return self.head((x + y).mean(1))


class Checkpointed(nn.Module):
    """Blocks that are computed again in the backward pass."""

    def __init__(self, *, reentrant: bool | None) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)) for _ in range(2))
        self.head = nn.Linear(16, CLASSES)
        self.reentrant = reentrant
        """None: not checkpointed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


@dataclass
class Answer:
    """A model's output as a dataclass."""

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]
    note: str = ""


class Answering(nn.Module):
    """Returns a dataclass, with a part that returns a dict and one that returns what nobody knows."""

    class Part(nn.Module):
        """Returns a dict."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(12, 12) / math.sqrt(12))

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"mean": x @ self.weight, "count": 3, "whole": torch.arange(3)}

    class Odd(nn.Module):
        """Returns an object of its own."""

        class Box:
            """Not opened."""

            def __init__(self, value: torch.Tensor) -> None:
                self.value = value

        def forward(self, x: torch.Tensor) -> Box:
            return self.Box(x)

    def __init__(self) -> None:
        super().__init__()
        self.part = self.Part()
        self.odd = self.Odd()
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> Answer:
        y = self.part(x)["mean"]
        z = self.odd(y).value
        return Answer(self.head(z) * 2, (y, z))


class Twice(nn.Module):
    """Calls one module two times."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(12, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.shared(torch.tanh(self.shared(x))))


def vectors(batch: int = 8, width: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of shape (batch, width) and labels."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, width, generator=g), torch.randint(CLASSES, (batch,), generator=g)


def images(batch: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of shape (batch, 3, 6, 6) and labels."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 6, 6, generator=g), torch.randint(CLASSES, (batch,), generator=g)


def tokens(batch: int = 4, length: int = 10, vocabulary: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of shape (batch, length), and the next ones."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (batch, length + 1), generator=g)
    return ids[:, :-1], ids[:, 1:]


def loss_of(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of labels of any shape."""
    return F.cross_entropy(output.flatten(0, -2), labels.flatten())
