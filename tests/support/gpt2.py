"""A small GPT-2: its names, its tied head, and its initialization."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Gpt2Block(nn.Module):
    """Pre-norm attention and feed-forward parts, named as GPT-2 names them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (p.view(b, t, 2, -1).transpose(1, 2) for p in self.attn["c_attn"](self.ln_1(x)).chunk(3, -1))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.attn["c_proj"](a)
        out: Tensor = x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return out


class Gpt2(nn.Module):
    """GPT-2's initialization: N(0, 0.02), and what `scaled` ends with divided by √(2 · blocks)."""

    def __init__(self, scaled: tuple[str, ...] = ("attn.c_proj", "mlp.c_proj"), blocks: int = 12) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.wte, self.wpe = nn.Embedding(40, 32), nn.Embedding(16, 32)
        self.h = nn.ModuleList(Gpt2Block(32) for _ in range(blocks))
        self.ln_f, self.lm_head = nn.LayerNorm(32), nn.Linear(32, 40, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * blocks) if name.endswith(scaled) else 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        out: Tensor = self.lm_head(self.ln_f(x))
        return out
