"""Networks on vectors in miniature: perceptrons of all kinds, autoencoders, adapters, denoisers, two in one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Act = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module] | None


class Mlp(nn.Module):
    """Linear, norm, activation, some times over; a head."""

    def __init__(self, inputs: int = 64, outputs: int = 10, act: Act = nn.ReLU, *, depth: int = 6, width: int = 48,
                 norm: Norm = None, dropout: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for at in range(depth):
            layers.append(nn.Linear(width if at else inputs, width))
            layers += [norm(width)] if norm else []
            layers.append(act())
            layers += [nn.Dropout(dropout)] if dropout else []
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class GluMlp(nn.Module):
    """Gated linear units: each layer makes twice its width."""

    def __init__(self, depth: int = 4, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width if at else 64, 2 * width) for at in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.glu(layer(x), -1)
        return self.head(x)


class Bag(nn.Module):
    """A sparse table of words, their mean, two layers."""

    def __init__(self, words: int, classes: int = 8, *, sparse: bool = True) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(words, 16, mode="mean", sparse=sparse)
        self.fc = nn.Linear(16, 32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(self.table(x))))


class TwoHeads(nn.Module):
    """A trunk and two heads; a tuple comes out."""

    def __init__(self, act: Act = nn.ReLU) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 48), act(), nn.Linear(48, 48), act(), nn.Linear(48, 48), act())
        self.digit, self.odd = nn.Linear(48, 10), nn.Linear(48, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.trunk(x)
        return self.digit(y), self.odd(y)


class Named(nn.Module):
    """Takes its input by name and answers with a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp(act=nn.SiLU, depth=4)

    def forward(self, *, pixels: Tensor) -> dict[str, Tensor]:
        return {"logits": self.net(pixels), "pixels": pixels}


class Siamese(nn.Module):
    """Both views through one encoder; similarities of all with all, divided by a temperature."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.encoder = Mlp(64, 24, depth=depth)
        self.temperature = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        a, b = (F.normalize(self.encoder(x), dim=-1) for x in (one, other))
        return a @ b.T * self.temperature.exp()


class Vae(nn.Module):
    """Encoder, code with noise, decoder; (image, mean, log variance) come out."""

    def __init__(self, code: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(48, code), nn.Linear(48, code)
        self.decoder = nn.Sequential(nn.Linear(code, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.encoder(x)
        mean, log_variance = self.mean(y), self.log_variance(y)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(code), mean, log_variance


class Gan(nn.Module):
    """Generator and discriminator in one module whose forward nobody calls."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        self.discriminator = nn.Sequential(
            nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
        )


class Lora(nn.Module):
    """A frozen layer and a low-rank change of it that begins as zero."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 4 * self.lora_B(self.lora_A(x))


class AdaBlock(nn.Module):
    """A residual branch whose scale, shift and gate come from a condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class Denoiser(nn.Module):
    """Predicts noise from a noisy digit and its noise level."""

    def __init__(self, width: int = 48, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.level = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(AdaBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 64)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        y, condition = self.stem(x), self.level(level)
        for block in self.blocks:
            y = block(y, condition)
        return self.out(self.norm(y))


class FineTune(nn.Module):
    """A backbone (trained, in most cases) and a fresh head."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def adapted(model: Mlp, layers: Sequence[int]) -> Mlp:
    """The model with low-rank adapters around some linear layers of its body; all else is frozen but the head."""
    model.requires_grad_(False)
    for at in layers:
        base = model.body[at]
        if isinstance(base, nn.Linear):
            model.body[at] = Lora(base)
    model.head.requires_grad_(True)
    return model
