"""Architectures whose healthy starts look odd: zero branches, gates, experts, adapters."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(channels_in: int, channels: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size, He-initialized."""
    layer = nn.Conv2d(channels_in, channels, size, padding=size // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class NormBlock(nn.Module):
    """Two convolutions with batch norm and a residual sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class FixupBlock(nn.Module):
    """Two convolutions without normalization: scalars, a scaled first and a zero last one (Zhang et al. 2019)."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels)
        self.before, self.between, self.after = (nn.Parameter(torch.zeros(1)) for _ in range(3))
        self.scale = nn.Parameter(torch.ones(1))
        with torch.no_grad():
            self.conv1.weight.mul_(blocks**-0.5)
            self.conv2.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x + self.before)) + self.between)
        return F.relu(x + h * self.scale + self.after)


class ResNet(nn.Module):
    """Stem, residual blocks, mean over positions, head; four classes."""

    def __init__(self, blocks: list[nn.Module], channels: int = 12) -> None:
        super().__init__()
        self.stem = conv(1, channels)
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.blocks(F.relu(self.stem(x))).mean((2, 3)))
        return out


class LoRALinear(nn.Module):
    """A frozen matrix with a trained product of two thin ones, the second of which starts at zero (Hu et al. 2021)."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.lora_B(self.lora_A(x))
        return out


class AdaBlock(nn.Module):
    """A branch whose norm is modulated by a condition, gates at zero (Peebles and Xie 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(F.silu(condition)).chunk(3, -1)
        return x + gate * self.fc2(F.gelu(self.fc1(self.norm(x) * (1 + scale) + shift)))


class Denoiser(nn.Module):
    """A diffusion model's denoiser of vectors: (noisy, time) → noise; its last layer starts at zero."""

    def __init__(self, inputs: int = 16, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.inp, self.time = nn.Linear(inputs, width), nn.Linear(8, width)
        self.blocks = nn.ModuleList(AdaBlock(width) for _ in range(blocks))
        self.out = nn.Linear(width, inputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        condition = self.time(torch.cos(time[:, None] * torch.arange(1, 9) * math.pi))
        h = self.inp(x)
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.out(h)
        return out


class Experts(nn.Module):
    """Top-1 mixture of experts in a residual branch; some experts may get no sample for many steps."""

    def __init__(self, inputs: int = 16, width: int = 24, experts: int = 8) -> None:
        super().__init__()
        self.inp, self.norm = nn.Linear(inputs, width), nn.LayerNorm(width)
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(experts)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inp(x))
        shares = self.router(self.norm(x)).softmax(-1)
        chosen = shares.argmax(-1)
        branch = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            (rows,) = (chosen == i).nonzero(as_tuple=True)
            if len(rows):
                branch = branch.index_put((rows,), expert(x[rows]) * shares[rows, i, None])
        out: Tensor = self.head(x + branch)
        return out


class UNet(nn.Module):
    """Down, up, and a skip by concatenation: [batch, 1, 8, 8] to the same."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.down, self.deep = conv(1, channels), conv(channels, 2 * channels)
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        self.merge, self.out = conv(2 * channels, channels), nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        deep = F.relu(self.deep(F.max_pool2d(skip, 2)))
        out: Tensor = self.out(F.relu(self.merge(torch.cat([skip, F.relu(self.up(deep))], 1))))
        return out


class Recurrent(nn.Module):
    """Embedding, a recurrent layer, a head at every position."""

    def __init__(self, kind: type[nn.RNNBase], vocabulary: int = 24, width: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, 16)
        self.cell = kind(16, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.cell(self.table(tokens))[0])
        return out


class Highway(nn.Module):
    """SELU layers behind sigmoid gates whose biases start at −2 (Srivastava et al. 2015)."""

    def __init__(self, inputs: int = 16, width: int = 32, depth: int = 6) -> None:
        super().__init__()
        self.inp = nn.Linear(inputs, width)
        self.plain = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 4)
        for gate in self.gates:
            nn.init.constant_(gate.bias, -2.0)  # type: ignore[arg-type]
        for layer in (self.inp, *self.plain):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for plain, gate in zip(self.plain, self.gates, strict=True):
            share = torch.sigmoid(gate(x))
            x = share * F.selu(plain(x)) + (1 - share) * x
        out: Tensor = self.head(x)
        return out


class Bag(nn.Module):
    """A mean of sparse embeddings and a head: most rows get no gradient."""

    def __init__(self, vocabulary: int = 2_000, width: int = 16) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(vocabulary, width, sparse=True)
        self.head = nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.table(tokens))
        return out


def plain_mlp(depth: int = 6, width: int = 32, inputs: int = 16, classes: int = 4) -> nn.Sequential:
    """Linear layers with He weights and ReLU."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layer = nn.Linear(inputs if i == 0 else width, width)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, classes))
