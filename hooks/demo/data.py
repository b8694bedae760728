"""Data that installed packages carry: scikit-learn's digits and the text of Python's own standard library."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from sklearn.datasets import load_digits
from torch import Tensor

ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789 \n.,:;()[]{}=_'\"#+-*/<>"
UNKNOWN: Final = len(ALPHABET)
VOCABULARY_SIZE: Final = len(ALPHABET) + 1
CONTEXT: Final = 32

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Data:
    """Endless batches and the loss of the constant predictor, in nats."""

    batches: Iterator[Batch]
    trivial_loss: float


def digits(batch_size: int, *, image: bool = False, classes: range = range(10), seed: int = 0) -> Data:
    """8 × 8 grey digits, standardized: float32 [batch, 64] or [batch, 1, 8, 8], and labels int64 [batch]."""
    raw = load_digits()
    labels = torch.as_tensor(raw.target)
    pixels = torch.as_tensor(raw.data, dtype=torch.float32)
    pixels = (pixels - pixels.mean()) / pixels.std()
    chosen = (labels >= classes.start) & (labels < classes.stop)
    x, y = pixels[chosen], labels[chosen] - classes.start
    return Data(_shuffled(x.reshape(-1, 1, 8, 8) if image else x, y, batch_size, seed), _entropy(y))


def characters(batch_size: int, *, seed: int = 0) -> Data:
    """Windows of source text: int64 [batch, CONTEXT] and the same shifted by one character."""
    codes = {letter: code for code, letter in enumerate(ALPHABET)}
    source = (inspect.getsource(inspect) + inspect.getsource(subprocess)).lower()
    text = torch.tensor([codes.get(letter, UNKNOWN) for letter in source])
    return Data(_windows(text, batch_size, seed), _entropy(text))


def _shuffled(x: Tensor, y: Tensor, batch_size: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(y), generator=generator)
        for start in range(0, len(y) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield x[chosen], y[chosen]


def _windows(text: Tensor, batch_size: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.arange(CONTEXT)
    while True:
        starts = torch.randint(0, len(text) - CONTEXT - 1, (batch_size, 1), generator=generator)
        yield text[starts + offsets], text[starts + offsets + 1]


def _entropy(labels: Tensor) -> float:
    """Loss of the best constant prediction: the entropy of the label frequencies, in nats."""
    p = torch.bincount(labels.flatten()).double()
    p = p[p > 0] / p.sum()
    return float(-(p * p.log()).sum())
