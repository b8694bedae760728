"""Data without a download: scikit-learn's tables and digits, Python's own sources, generators with structure."""

from __future__ import annotations

import argparse as text_of_arguments
import inspect
import math
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Final

import sklearn.datasets
import torch
from torch import Tensor

from tests.benchmarks.starts.case import Batch, Data

LENGTH: Final = 24
"""Characters of a window of text."""
VOCABULARY: Final = 48
WORDS: Final = 400
"""Words of the bags."""


def entropy(labels: Tensor) -> float:
    """Loss of the best constant prediction of classes, in nats."""
    shares = torch.bincount(labels.flatten()).double() / labels.numel()
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum())


def shuffled(inputs: Tensor, targets: Any, size: int, seed: int) -> Iterator[Batch]:
    """Batches of `size` in a new order each epoch; targets may be a tensor or a tuple of them."""
    generator = torch.Generator().manual_seed(100 + seed)
    while True:
        order = torch.randperm(len(inputs), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            yield inputs[chosen], tuple(t[chosen] for t in targets) if isinstance(targets, tuple) else targets[chosen]


@cache
def _digits() -> tuple[Tensor, Tensor]:
    raw = sklearn.datasets.load_digits()
    return torch.as_tensor(raw.data, dtype=torch.float32), torch.as_tensor(raw.target)


def digits(size: int = 32, *, image: bool = True, scale: float | None = None) -> Data:
    """8 × 8 digits [size, 1, 8, 8] or [size, 64] and labels; standardized, or 0 to `scale` (byte images: 255)."""
    pixels, labels = _digits()
    x = (pixels - pixels.mean()) / pixels.std() if scale is None else pixels / 16 * scale
    x = x.reshape(-1, 1, 8, 8) if image else x
    return Data(lambda seed: shuffled(x, labels, size, seed), entropy(labels))


def reconstruction(size: int = 32, *, image: bool = True, unit: bool = False) -> Data:
    """Digits, standardized or in 0 to 1, as their own targets; the best constant is the mean image."""
    pixels, _ = _digits()
    x = pixels / 16 if unit else (pixels - pixels.mean()) / pixels.std()
    x = x.reshape(-1, 1, 8, 8) if image else x
    return Data(lambda seed: shuffled(x, x, size, seed), float(x.var(0, unbiased=False).mean()))


def noisy_digits(size: int = 32) -> Data:
    """((noisy digits [size, 64], noise level [size, 1]), the noise): what a denoiser of a diffusion learns."""
    pixels, _ = _digits()
    x = (pixels - pixels.mean()) / pixels.std()

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(200 + seed)
        for clean, _ in shuffled(x, x, size, seed):
            level = torch.rand(size, 1, generator=generator)
            noise = torch.randn(clean.shape, generator=generator)
            yield ((1 - level).sqrt() * clean + level.sqrt() * noise, level), noise

    return Data(batches, 1.0)


def pairs(size: int = 32) -> Data:
    """((view, other view), none): two noisy versions of the same digits, to be found among the batch."""
    pixels, _ = _digits()
    x = (pixels - pixels.mean()) / pixels.std()

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(300 + seed)
        for clean, _ in shuffled(x, x, size, seed):
            views = tuple(clean + 0.3 * torch.randn(clean.shape, generator=generator) for _ in range(2))
            yield views, torch.arange(size)

    return Data(batches, math.log(size))


def two_targets(size: int = 32) -> Data:
    """Digits [size, 64], and (digit, whether it is odd): one loss for two heads."""
    pixels, labels = _digits()
    x = (pixels - pixels.mean()) / pixels.std()
    return Data(lambda seed: shuffled(x, (labels, labels % 2), size, seed), entropy(labels) + entropy(labels % 2))


def named(data: Data) -> Data:
    """The same, with inputs as a dict, as a model with keyword arguments wants them."""
    return Data(lambda seed: (({"pixels": x}, y) for x, y in data.batches(seed)), data.trivial)


@cache
def _table(name: str) -> tuple[Tensor, Tensor]:
    raw = getattr(sklearn.datasets, f"load_{name}")()
    return torch.as_tensor(raw.data, dtype=torch.float32), torch.as_tensor(raw.target)


def table(name: str, size: int = 16, *, raw: bool = False) -> Data:
    """wine, iris, breast_cancer: features, standardized unless raw, and labels. diabetes: a standardized target."""
    x, y = _table(name)
    x = x if raw else (x - x.mean(0)) / x.std(0)
    if y.is_floating_point():
        y = ((y - y.mean()) / y.std()).float()[:, None]
        return Data(lambda seed: shuffled(x, y, size, seed), 1.0)
    return Data(lambda seed: shuffled(x, y, size, seed), entropy(y))


def houses(size: int = 32, *, raw: bool = False) -> Data:
    """A table of eight features of very different scale, skewed, and a price that depends on them smoothly."""
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(3_000, 8, generator=generator)
    price = (
        z[:, 0] + 0.5 * torch.sin(2 * z[:, 1]) + 0.5 * z[:, 2] * z[:, 3] + 0.3 * torch.randn(3_000, generator=generator)
    )
    x = torch.cat([z[:, :4].exp() * torch.tensor([3.8, 28.0, 5.4, 1.1]), z[:, 4:] * 500 + 1_400], 1)
    x = x if raw else (x - x.mean(0)) / x.std(0)
    y = ((price - price.mean()) / price.std())[:, None]
    return Data(lambda seed: shuffled(x, y, size, seed), 1.0)


@cache
def _text() -> Tensor:
    source = (inspect.getsource(inspect) + inspect.getsource(subprocess) + inspect.getsource(text_of_arguments)).lower()
    source = " ".join(source.split(" "))
    letters = sorted(set(source), key=lambda c: -source.count(c))[: VOCABULARY - 1]
    codes = {letter: code for code, letter in enumerate(letters)}
    return torch.tensor([codes.get(letter, VOCABULARY - 1) for letter in source])


def text(size: int = 12, length: int = LENGTH) -> Data:
    """Windows of Python's own sources, int64 [size, length], and the same shifted by one character."""
    codes = _text()

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(400 + seed)
        while True:
            starts = torch.randint(0, len(codes) - length - 1, (size, 1), generator=generator)
            at = starts + torch.arange(length)
            yield codes[at], codes[at + 1]

    return Data(batches, entropy(codes))


def generated(make: Callable[[torch.Generator], Batch], trivial: float) -> Data:
    """Endless new batches of a generator of examples."""

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(500 + seed)
        while True:
            yield make(generator)

    return Data(batches, trivial)


def waves(size: int = 32, *, channels_first: bool = True, scale: float = 1.0) -> Data:
    """Noisy waves of one of four frequencies and any phase, [size, 1, 32] or [size, 32, 1]."""

    def make(generator: torch.Generator) -> Batch:
        y = torch.randint(4, (size,), generator=generator)
        phase = 2 * math.pi * torch.rand(size, 1, generator=generator)
        time = torch.arange(32) / 32 * 2 * math.pi
        x = torch.sin((y[:, None] + 1) * time + phase) + 0.3 * torch.randn(size, 32, generator=generator)
        return scale * (x[:, None] if channels_first else x[..., None]), y

    return generated(make, math.log(4))


def counting(size: int = 32, length: int = 16) -> Data:
    """Tokens of 0 to 9, int64 [size, length]: which of the first four stands there most often."""

    def make(generator: torch.Generator) -> Batch:
        y = torch.randint(4, (size,), generator=generator)
        x = torch.randint(10, (size, length), generator=generator)
        chosen = torch.rand(size, length, generator=generator) < 0.4
        return torch.where(chosen, y[:, None], x), y

    return generated(make, math.log(4))


def bags(size: int = 64) -> Data:
    """Twelve words of a topic, int64 [size, 12], and the topic of eight: most words of the table are not used."""
    topics = torch.randint(WORDS, (8, 20), generator=torch.Generator().manual_seed(9))

    def make(generator: torch.Generator) -> Batch:
        y = torch.randint(8, (size,), generator=generator)
        picked = torch.randint(20, (size, 12), generator=generator)
        noise = torch.randint(WORDS, (size, 12), generator=generator)
        keep = torch.rand(size, 12, generator=generator) < 0.7
        return torch.where(keep, topics[y].gather(1, picked), noise), y

    return generated(make, math.log(8))


def shapes(size: int = 16) -> Data:
    """Noisy images [size, 1, 16, 16] of one bright disc, and its mask [size, 1, 16, 16] of zeros and ones."""

    def make(generator: torch.Generator, number: int = size) -> Batch:
        centre = 4 + 8 * torch.rand(number, 2, generator=generator)
        radius = 2 + 3 * torch.rand(number, 1, 1, generator=generator)
        grid = torch.arange(16.0)
        apart = (grid[None, :, None] - centre[:, :1, None]) ** 2 + (grid[None, None] - centre[:, 1:, None]) ** 2
        mask = (apart.reshape(number, 16, 16) < radius**2).float()[:, None]
        return mask + 0.5 * torch.randn(mask.shape, generator=generator), mask

    share = float(make(torch.Generator().manual_seed(1), 2_000)[1].mean())
    return generated(partial(make), -share * math.log(share) - (1 - share) * math.log(1 - share))


def rings(size: int = 64) -> Data:
    """Noise [size, 4], and points of eight spots on a circle away from the origin, float32 [size, 2], to make of it."""

    def make(generator: torch.Generator) -> Batch:
        angle = torch.randint(8, (size,), generator=generator) * (math.pi / 4)
        points = torch.stack([angle.cos(), angle.sin()], 1) * 1.4
        return torch.randn(size, 4, generator=generator), 2 + points + 0.05 * torch.randn(size, 2, generator=generator)

    return generated(make, 1.0)
