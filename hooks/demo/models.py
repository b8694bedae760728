"""The demo's networks: a deep MLP, a deep CNN, a small pre-LayerNorm GPT with a tied head."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.demo.data import CONTEXT, VOCABULARY_SIZE


class Mlp(nn.Module):
    """Float [batch, inputs] → logits [batch, classes]."""

    def __init__(
        self, *, depth: int, width: int, activation: type[nn.Module], inputs: int = 64, classes: int = 10
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(inputs if i == 0 else width, width), activation()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.body(x))
        return logits


class Cnn(nn.Module):
    """Float [batch, 1, 8, 8] → logits [batch, 10]."""

    def __init__(self, *, depth: int, width: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers.append(nn.Conv2d(1 if i == 0 else width, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            if i in (1, 3):
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, width] → the same."""
        batch, time, width = x.shape
        q, k, v = (t.view(batch, time, self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, time, width))
        return out


class Block(nn.Module):
    """Pre-LayerNorm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, width] → the same."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.proj(F.gelu(self.fc(self.norm2(x))))
        return out


class Gpt(nn.Module):
    """Int [batch, time] → logits [batch, time, vocabulary]; the head is the token embedding."""

    def __init__(self, *, blocks: int = 4, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY_SIZE, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY_SIZE, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def normal(model: nn.Module, std: float) -> None:
    """N(0, std) for every matrix and kernel, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def scale_residual_outputs(model: Gpt, std: float) -> None:
    """GPT-2's rule: outputs that are added to the residual stream start at std / √(2 · blocks)."""
    for block in model.blocks:
        assert isinstance(block, Block)  # noqa: S101 - for the type checker: ModuleList forgets the type
        for layer in (block.attention.proj, block.proj):
            nn.init.normal_(layer.weight, std=std / math.sqrt(2 * len(model.blocks)))


def he(model: nn.Module) -> None:
    """He normal for every Linear, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def xavier(model: nn.Module) -> None:
    """Xavier normal with the gain of tanh for every Linear, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight, gain=nn.init.calculate_gain("tanh"))
            nn.init.zeros_(module.bias)


def zeros(model: nn.Module) -> None:
    """Every parameter zero."""
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
