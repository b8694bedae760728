"""Architectures started as their authors do, with the schemes that recognition should name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

init = nn.init
Names = Mapping[str, frozenset[str]]
"""Right names by the end of a weight's full name; "" for all others."""


@dataclass(frozen=True)
class Known:
    """A model with its truth; `scheme` is what the model as a whole should be named, None where it is mixed."""

    make: Callable[[], nn.Module]
    truth: Mapping[str, str]
    scheme: str | None = None

    def names(self, name: str) -> set[str]:
        """Right names of a weight: several, separated by blanks, where formulas give the same number."""
        ends = [end for end in self.truth if end and name.endswith(end)]
        return set(self.truth[max(ends, key=len) if ends else ""].split())


class Residual(nn.Module):
    """Two 3 × 3 convolutions with batch norm, and a 1 × 1 one beside them where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else None


class ResNet(nn.Module):
    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, bias=False)
        widths = (32, 32, 32, 64, 64, 96, 96)
        self.layers = nn.ModuleList(Residual(a, b) for a, b in pairwise(widths))
        if not norm:
            for block in self.layers:
                block.bn1, block.bn2 = nn.Identity(), nn.Identity()
        self.fc = nn.Linear(96, 50)


def resnet() -> nn.Module:
    model = ResNet()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def fixup() -> nn.Module:
    model = ResNet(norm=False)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
    for block in model.layers:
        with torch.no_grad():
            block.conv1.weight.mul_(len(model.layers) ** -0.5)
        init.zeros_(block.conv2.weight)
    init.zeros_(model.fc.weight)
    return model


def vgg() -> nn.Module:
    widths = (3, 32, 64, 64, 96, 96)
    layers = [nn.Conv2d(a, b, 3) for a, b in pairwise(widths)]
    model = nn.Sequential(*layers, nn.Linear(96 * 4, 256), nn.Linear(256, 128), nn.Linear(128, 40))
    for module in model:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            init.normal_(module.weight, std=0.01)
        init.zeros_(module.bias)
    return model


class Dense(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.narrow, self.conv = (
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.Conv2d(4 * growth, growth, 3, bias=False),
        )
        self.norm = nn.BatchNorm2d(inputs)


def densenet() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 48, 7), *[Dense(48 + 24 * i, 24) for i in range(6)], nn.Linear(192, 30))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)
    return model


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(400, 64)
        self.lstm = nn.LSTM(64, 96, num_layers=2, bidirectional=True)
        self.head = nn.Linear(192, 20)


def orthogonal_tagger() -> nn.Module:
    model = Tagger()
    for name, weight in model.lstm.named_parameters():
        if "weight_hh" in name:
            init.orthogonal_(weight)
        elif "weight_ih" in name:
            init.xavier_uniform_(weight)
    return model


class Block(nn.Module):
    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)


class Decoder(nn.Module):
    """Token table, blocks, untied head; never run."""

    def __init__(self, width: int = 128, blocks: int = 6, ratio: int = 4) -> None:
        super().__init__()
        self.wte = nn.Embedding(500, width)
        self.blocks = nn.ModuleList(Block(width, ratio) for _ in range(blocks))
        self.head = nn.Linear(width, 500, bias=False)


Rule = Callable[[str, torch.Tensor, int], object]
"""Draws a weight from its full name, itself, and its block (-1 outside)."""


def decoder(rule: Rule, *, width: int = 128, blocks: int = 6, ratio: int = 4) -> nn.Module:
    """A decoder whose every matrix is drawn by the rule."""
    model = Decoder(width, blocks, ratio)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            parts = name.split(".")
            rule(name, weight, int(parts[1]) if parts[0] == "blocks" else -1)
    return model


def _is_out(name: str) -> bool:
    return name.endswith(("out_proj.weight", "fc2.weight"))


def _normal(std: Callable[[str, torch.Tensor, int], float]) -> Rule:
    return lambda name, w, block: init.normal_(w, std=std(name, w, block))


def _deepnorm(name: str, w: torch.Tensor, block: int) -> None:
    scaled = block >= 0 and name.endswith(("v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight"))
    init.xavier_normal_(w, (8 * 6) ** -0.25 if scaled else 1.0)


def _tfixup(name: str, w: torch.Tensor, block: int) -> None:
    scaled = block >= 0 and name.endswith(("v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight"))
    init.xavier_uniform_(w, 0.67 * 6**-0.25 if scaled else 1.0)


def _mitchell(name: str, w: torch.Tensor, block: int) -> None:
    std = 1 / math.sqrt(2 * w.shape[1] * (block + 1)) if _is_out(name) else 1 / math.sqrt(w.shape[1])
    init.trunc_normal_(w, std=std, a=-3 * std, b=3 * std)


def _small(name: str, w: torch.Tensor, _block: int) -> None:
    init.normal_(w, std=2 / (6 * math.sqrt(128)) if _is_out(name) else math.sqrt(2 / (5 * 128)))


def _mup(_name: str, w: torch.Tensor, _block: int) -> None:
    init.normal_(w, std=min(1.0, math.sqrt(w.shape[0] / w.shape[1])) / math.sqrt(w.shape[1]))


OUT = ("out_proj.weight", "fc2.weight")
KNOWN: Mapping[str, Known] = {
    "ResNet": Known(resnet, {"": "he_fan_out_normal", "fc.weight": "pytorch_default"}, "he_fan_out_normal"),
    "ResNet with Fixup": Known(
        fixup,
        {
            "": "he_normal he_fan_out_normal", "conv1.weight": "fixup",
            **dict.fromkeys(("conv2.weight", "fc.weight"), "zero"),
        },
        "fixup",
    ),
    "VGG": Known(
        vgg, {"": "he_fan_out_normal", **{f"{i}.weight": "fixed_normal" for i in (5, 6, 7)}}
    ),
    "DenseNet": Known(densenet, {"": "he_normal", "7.weight": "pytorch_default"}, "he_normal"),
    "LSTM": Known(
        Tagger,
        {"": "pytorch_lstm", "words.weight": "pytorch_embedding", "head.weight": "pytorch_default"},
        "pytorch_default",
    ),
    "LSTM, orthogonal": Known(
        orthogonal_tagger,
        {
            "": "xavier_uniform", "words.weight": "pytorch_embedding", "head.weight": "pytorch_default",
            **{f"weight_hh_l{i}{end}": "orthogonal" for i in (0, 1) for end in ("", "_reverse")},
        },
    ),
    "GPT-2": Known(
        lambda: decoder(_normal(lambda name, _w, _b: 0.02 / math.sqrt(12) if _is_out(name) else 0.02)),
        {"": "gpt2", **dict.fromkeys(OUT, "gpt2_residual")},
        "gpt2",
    ),
    "GPT-2 with 1/√L": Known(
        lambda: decoder(_normal(lambda name, _w, _b: 0.02 / math.sqrt(6) if _is_out(name) else 0.02)),
        {"": "gpt2", **dict.fromkeys(OUT, "gpt2_residual_root_l")},
        "gpt2",
    ),
    "GPT-2 of std 0.011": Known(
        lambda: decoder(_normal(lambda name, _w, _b: 0.011 / math.sqrt(12) if _is_out(name) else 0.011)),
        {"": "gpt2", **dict.fromkeys(OUT, "gpt2_residual")},
        "gpt2",
    ),
    "0.02 everywhere": Known(
        lambda: decoder(_normal(lambda _n, _w, _b: 0.02)), {"": "fixed_normal"}, "fixed_normal"
    ),
    "small_init and wang": Known(lambda: decoder(_small), {"": "small_init", **dict.fromkeys(OUT, "wang")}, "wang"),
    "mitchell": Known(
        lambda: decoder(_mitchell), {"": "lecun_truncated_normal", **dict.fromkeys(OUT, "mitchell")}, "mitchell"
    ),
    "DeepNorm": Known(
        lambda: decoder(_deepnorm),
        {
            "": "xavier_normal",
            **dict.fromkeys(("v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight"), "deepnorm"),
        },
        "deepnorm",
    ),
    "T-Fixup": Known(
        lambda: decoder(_tfixup),
        {
            "": "xavier_uniform",
            **dict.fromkeys(("v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight"), "tfixup"),
        },
        "tfixup",
    ),
    "muP": Known(lambda: decoder(_mup), {"": "mup"}, "mup"),
}  # fmt: skip
