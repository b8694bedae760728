"""A small decoder with separate projections and a gated feed-forward part, as large language models have it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm attention (q, k, v, o) and gated feed-forward (w1, w3 in, w2 out)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.w1, self.w3 = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.w2 = nn.Linear(3 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        h = self.norm1(x)
        q, k, v = (f(h).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(b, t, d))
        h = self.norm2(x)
        out: Tensor = x + self.w2(F.silu(self.w1(h)) * self.w3(h))
        return out


class Decoder(nn.Module):
    """Token and position tables, blocks, a head of its own. All N(0, `std`); `scaled` names what is ÷ √(2 · blocks)."""

    def __init__(
        self,
        blocks: int = 4,
        *,
        width: int = 32,
        vocabulary: int = 40,
        std: float | None = 0.02,
        scaled: tuple[str, ...] = ("o", "w2"),
    ) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(vocabulary, width), nn.Embedding(16, width)
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            if std is not None or parameter.shape[0] in (vocabulary, 16):
                nn.init.normal_(parameter, std=std or 0.02)
            if name.split(".")[-2] in scaled:
                parameter.data.div_(math.sqrt(2 * blocks))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x))
        return out
