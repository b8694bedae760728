"""Convolutional networks in miniature: residual, dense, depthwise, plain, autoencoding."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def none(_channels: int) -> nn.Module:
    """No normalization."""
    return nn.Identity()


def group_norm(channels: int) -> nn.Module:
    """Four groups."""
    return nn.GroupNorm(4, channels)


def instance_norm(channels: int) -> nn.Module:
    """With gains, as style networks have it."""
    return nn.InstanceNorm2d(channels, affine=True)


class ResBlock(nn.Module):
    """conv, norm, relu, conv, norm, add, relu; or norm, relu, conv twice and add (`pre`)."""

    def __init__(self, width: int, norm: Norm, *, pre: bool = False, scaled: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)
        self.pre = pre
        self.gain = nn.Parameter(torch.ones(1)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            y = self.conv1(F.relu(self.norm1(x)))
            return x + self.conv2(F.relu(self.norm2(y)))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(x + (y if self.gain is None else self.gain * y))


class ResNet(nn.Module):
    """Stem, blocks in two stages, pooling, head."""

    def __init__(self, norm: Norm = nn.BatchNorm2d, *, blocks: int = 4, width: int = 12, pre: bool = False,
                 scaled: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = norm(width)
        self.layers = nn.ModuleList(ResBlock(width, norm, pre=pre, scaled=scaled) for _ in range(blocks))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        for at, block in enumerate(self.layers):
            x = F.avg_pool2d(block(x), 2) if at == len(self.layers) // 2 else block(x)
        return self.fc(x.mean((2, 3)))


class Plain(nn.Module):
    """Convolutions with a norm and an activation between, pooling twice, two linear layers: VGG in miniature."""

    def __init__(self, norm: Norm = none, act: Callable[[], nn.Module] = nn.ReLU, depth: int = 6) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for at in range(depth):
            wider = 8 if at < depth // 2 else 16
            layers += [nn.Conv2d(width, wider, 3, padding=1), norm(wider), act()]
            layers += [nn.MaxPool2d(2)] if at in (depth // 2 - 1, depth - 1) else []
            width = wider
        self.features = nn.Sequential(*(x for x in layers if not isinstance(x, nn.Identity)))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), act(), nn.Dropout(0.1), nn.Linear(48, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class DenseNet(nn.Module):
    """Each layer sees all before it."""

    def __init__(self, growth: int = 6, depth: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        widths = [8 + growth * at for at in range(depth + 1)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths)
        self.convs = nn.ModuleList(nn.Conv2d(w, growth, 3, padding=1, bias=False) for w in widths[:-1])
        self.classifier = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for at, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=False)):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
            x = F.avg_pool2d(x, 2) if at == 2 else x
        return self.classifier(F.relu(self.norms[-1](x)).mean((2, 3)))


class Inverted(nn.Module):
    """Expand, depthwise, project; added to the input."""

    def __init__(self, width: int, expansion: int = 3) -> None:
        super().__init__()
        wide = width * expansion
        self.expand = nn.Sequential(nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


class MobileNet(nn.Module):
    """Depthwise and pointwise convolutions."""

    def __init__(self, blocks: int = 3, width: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU6())
        self.blocks = nn.Sequential(*(Inverted(width) for _ in range(blocks)))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.avg_pool2d(self.blocks(self.stem(x)), 2).mean((2, 3)))


class Wave(nn.Module):
    """Convolutions over time, [batch, 1, 32] to 4 classes."""

    def __init__(self, norm: Callable[[int], nn.Module] = none, depth: int = 5, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for at in range(depth):
            layers += [nn.Conv1d(width if at else 1, width, 5, padding=2), norm(width), nn.ReLU()]
        self.net = nn.Sequential(*(x for x in layers if not isinstance(x, nn.Identity)))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).amax(-1))


class Autoencoder(nn.Module):
    """Strided convolutions down to a code of 16, transposed ones up again."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(96, 16),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(16, 96), nn.ReLU(), nn.Unflatten(1, (24, 2, 2)),
            nn.ConvTranspose2d(24, 12, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(12, 1, 4, stride=2, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()
    )


class UNet(nn.Module):
    """Two levels down, two up, with skips that are concatenated; a logit a pixel."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.down1, self.down2 = _double(1, width), _double(width, 2 * width)
        self.middle = _double(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.dec2 = _double(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.dec1 = _double(2 * width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        y = self.middle(F.max_pool2d(second, 2))
        y = self.dec2(torch.cat([self.up2(y), second], 1))
        return self.out(self.dec1(torch.cat([self.up1(y), first], 1)))
