"""Initializations and changes of a start. Each takes a model, changes it in place, and may be combined with others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tests.benchmarks.starts.case import Change

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def matrices(model: nn.Module, skip: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Linear and convolution layers with their paths; paths that begin with one of the words of `skip` are left out."""
    for path, module in model.named_modules():
        if isinstance(module, _MATRICES) and not path.startswith(tuple(skip.split()) or ("\0",)):
            yield path, module


def each(draw: Callable[[Tensor], object], skip: str = "") -> Change:
    """`draw` on every weight matrix; biases become zero."""

    def change(model: nn.Module) -> None:
        for _, module in matrices(model, skip):
            draw(module.weight)  # type: ignore[arg-type]
            if isinstance(module.bias, Tensor):
                module.bias.zero_()

    return change


def he(skip: str = "") -> Change:
    """He et al. 2015, √(2 ÷ fan-in)."""
    return each(lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), skip)


def xavier(gain: float = 1.0, skip: str = "") -> Change:
    """Glorot and Bengio 2010."""
    return each(lambda w: nn.init.xavier_normal_(w, gain), skip)


def orthogonal(gain: float = 1.0, skip: str = "") -> Change:
    """Saxe et al. 2013."""
    return each(lambda w: nn.init.orthogonal_(w, gain), skip)


def lecun(skip: str = "") -> Change:
    """√(1 ÷ fan-in), truncated at two standard deviations, as SELU wants it."""
    return each(lambda w: nn.init.trunc_normal_(w, 0, s := w[0].numel() ** -0.5, -2 * s, 2 * s), skip)


def sparse(connections: int = 15) -> Change:
    """Martens 2010: a few inputs for each unit. For linear layers."""

    def draw(w: Tensor) -> None:
        nn.init.zeros_(w)
        for row in w:
            at = torch.randperm(len(row))[:connections]
            row[at] = torch.randn(len(at)) * math.sqrt(2 / len(at))

    return each(draw)


def normal(std: float, skip: str = "") -> Change:
    """N(0, std²) everywhere."""
    return each(lambda w: nn.init.normal_(w, std=std), skip)


def fill(value: float, skip: str = "") -> Change:
    """One value everywhere."""
    return each(lambda w: nn.init.constant_(w, value), skip)


def everything(value: float) -> Change:
    """Every parameter, norms and biases too."""

    def change(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.fill_(value)

    return change


def times(factor: float, skip: str = "") -> Change:
    """All weight matrices × factor."""

    def change(model: nn.Module) -> None:
        for _, module in matrices(model, skip):
            module.weight.mul_(factor)  # type: ignore[operator]

    return change


def of(paths: str, act: Callable[[Tensor], object], name: str = "weight") -> Change:
    """`act` on one parameter of each of some modules; a path may be that of a parameter itself."""

    def change(model: nn.Module) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for path in paths.split():
            act(parameters[path] if path in parameters else parameters[f"{path}.{name}"])

    return change


def scale(paths: str, factor: float, name: str = "weight") -> Change:
    """One parameter of some modules × factor."""
    return of(paths, lambda w: w.mul_(factor), name)


def constant(paths: str, value: float, name: str = "weight") -> Change:
    """One parameter of some modules becomes a value."""
    return of(paths, lambda w: w.fill_(value), name)


def drawn(paths: str, std: float, name: str = "weight") -> Change:
    """One parameter of some modules is drawn from N(0, std²)."""
    return of(paths, lambda w: w.normal_(0, std), name)


def freeze(*paths: str) -> Change:
    """Parameters under these paths are not trained."""

    def change(model: nn.Module) -> None:
        for path in paths:
            model.get_submodule(path).requires_grad_(False)

    return change


def matching(model: nn.Module, *endings: str) -> str:
    """Paths of the modules of a model that end so, in one text."""
    return " ".join(path for path, _ in model.named_modules() if path.endswith(endings))


def one_nan(path: str) -> Change:
    """A single NaN in a weight."""

    def act(w: Tensor) -> None:
        w.view(-1)[1] = math.nan

    return of(path, act)


def recurrent_orthogonal(gain: float = 1.0) -> Change:
    """Orthogonal recurrent weights, gate by gate."""

    def change(model: nn.Module) -> None:
        for name, w in model.named_parameters():
            if "weight_hh" in name:
                for gate in w.split(w.shape[1]):
                    nn.init.orthogonal_(gate, gain)

    return change


def recurrent_times(factor: float, kind: str = "weight") -> Change:
    """All weights of recurrent layers × factor; `kind`: the beginning of their names."""

    def change(model: nn.Module) -> None:
        for name, w in model.named_parameters():
            if name.rpartition(".")[2].startswith(kind) and "_l" in name:
                w.mul_(factor)

    return change
