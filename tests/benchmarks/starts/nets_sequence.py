"""Networks over sequences in miniature: recurrent ones, encoders, decoders, mixers, experts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.starts.data import LENGTH, VOCABULARY


class Recurrent(nn.Module):
    """A recurrent classifier of waves [batch, 32, 1], or of tokens with a table (`tokens`)."""

    def __init__(self, cell: str = "LSTM", *, width: int = 24, layers: int = 1, both: bool = False, tokens: int = 0,
                 classes: int = 4) -> None:  # fmt: skip
        super().__init__()
        self.table = nn.Embedding(tokens, 12) if tokens else None
        inputs = 12 if tokens else 1
        self.rnn = getattr(nn, cell)(inputs, width, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(width * (1 + both), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.table is None else self.table(x)
        y, _ = self.rnn(x)
        return self.head(y.mean(1))


class CharRnn(nn.Module):
    """A recurrent language model of characters."""

    def __init__(self, cell: str = "LSTM", width: int = 40, layers: int = 1) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 16)
        self.rnn = getattr(nn, cell)(16, width, layers, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.table(x))[0])


class Encoder(nn.Module):
    """torch's own encoder with learned positions, mean over positions, a head."""

    def __init__(self, *, pre: bool, layers: int = 3, width: int = 32, tokens: int = 10, classes: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=pre)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(x) + self.positions[:, : x.shape[1]]).mean(1))


class Attention(nn.Module):
    """Self-attention with separate projections."""

    def __init__(self, width: int, heads: int, *, causal: bool, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=bias) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class SwiGlu(nn.Module):
    """Gated feed-forward."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaBlock(nn.Module):
    """RMSNorm before attention and feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_norm, self.post_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.self_attn = Attention(width, 4, causal=True, bias=False)
        self.mlp = SwiGlu(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_norm(x))
        return x + self.mlp(self.post_norm(x))


class Llama(nn.Module):
    """Decoder with an untied head."""

    def __init__(self, blocks: int = 3, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(LENGTH, width)
        self.layers = nn.ModuleList(LlamaBlock(width) for _ in range(blocks))
        self.norm = nn.RMSNorm(width)
        self.lm_head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x) + self.places.weight[: x.shape[1]]
        for layer in self.layers:
            y = layer(y)
        return self.lm_head(self.norm(y))


class GptBlock(nn.Module):
    """LayerNorm before (or after, `post`) fused attention and a feed-forward of GELU."""

    def __init__(self, width: int, *, post: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.post = post

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (p.unflatten(-1, (4, -1)).transpose(1, 2) for p in self.attn(x).chunk(3, -1))
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.ln_1(x + self.attend(x))
            return self.ln_2(x + self.proj(F.gelu(self.fc(x))))
        x = x + self.attend(self.ln_1(x))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x))))


class DeepGpt(nn.Module):
    """Many narrow blocks."""

    def __init__(self, blocks: int = 8, width: int = 24, *, post: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        self.h = nn.ModuleList(GptBlock(width, post=post) for _ in range(blocks))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wte(x) + self.wpe.weight[: x.shape[1]]
        for block in self.h:
            y = block(y)
        return self.head(self.ln_f(y))


class Vit(nn.Module):
    """Patches of 2 × 2 digits, a class token, pre-norm blocks."""

    def __init__(self, width: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, stride=2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.cls_token.expand(len(y), -1, -1), y], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(y))[:, 0])


class MixerBlock(nn.Module):
    """Across patches, then across channels."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(patches, 32), nn.GELU(), nn.Linear(32, patches))
        self.channels = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer on 16 patches."""

    def __init__(self, width: int = 24, layers: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 2, stride=2)
        self.blocks = nn.Sequential(*(MixerBlock(16, width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x).flatten(2).transpose(1, 2))).mean(1))


class Experts(nn.Module):
    """The best of several feed-forward experts for each sample; one at the end of the list may never be chosen."""

    def __init__(self, width: int, experts: int, *, idle: bool) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(experts)
        )
        self.idle = idle

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        if self.idle:
            logits = logits - torch.eye(len(self.experts))[-1] * 1e4
        shares = logits.softmax(-1)
        best = shares.argmax(-1)
        out = torch.zeros_like(x)
        for at, expert in enumerate(self.experts):
            chosen = (best == at).nonzero()[:, 0]
            if len(chosen):
                out = out.index_add(0, chosen, expert(x[chosen]) * shares[chosen, at, None])
        return out


class MoeNet(nn.Module):
    """Digits through two residual layers of experts."""

    def __init__(self, experts: int = 4, *, idle: bool = False, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.moe = nn.ModuleList(Experts(width, experts, idle=idle) for _ in range(2))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for norm, moe in zip(self.norms, self.moe, strict=True):
            y = y + moe(norm(y))
        return self.head(y / math.sqrt(2))
