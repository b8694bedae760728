"""The module tree: paths without wrappers, which modules are watched, blocks, tied weights.

Looks only; changes nothing in the user's modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import nn

from initscope.hooks.probe.kinds import Fans, effective_fans
from initscope.hooks.vocabulary import MAX_MODULE_PATH, MAX_TENSOR_NAME

Select = Callable[[str], bool]
"""Whether a module path is watched."""

_WRAPPER_PARTS: Final = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
_PASSIVE: Final = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)


@dataclass(slots=True)
class Site:
    """A module of the model. `watched`: its outputs are measured."""

    path: str
    module: nn.Module
    watched: bool
    block: str | None = None

    @property
    def type_name(self) -> str:
        """The module's class."""
        return type(self.module).__name__


@dataclass(slots=True)
class Weight:
    """A parameter at the first place where the model has it; `aliases` are the other (module path, name)."""

    path: str
    name: str
    tensor: nn.Parameter
    fans: Fans
    aliases: list[tuple[str, str]] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """Module path and name, as in a state dict."""
        return f"{self.path}.{self.name}" if self.path else self.name


@dataclass(slots=True)
class Tree:
    """What a walk found, modules in registration order."""

    sites: dict[str, Site]
    weights: list[Weight]
    notes: list[str]

    def close(self) -> None:
        """Lets go of the model."""
        self.sites.clear()
        self.weights.clear()


def walk(model: nn.Module, select: Select = lambda _: True) -> Tree:
    """Every module once, every parameter once (tied ones with their aliases)."""
    notes: list[str] = []
    sites: dict[str, Site] = {}
    for path, module in _modules(model):
        if len(path) > MAX_MODULE_PATH:
            notes.append(f"not measured, its path is too long: {path[:80]}…")
        elif path not in sites:
            sites[path] = Site(path, module, watched=select(path) and _is_watched(module))
    for site in sites.values():
        site.block = _block_of(site.path, sites)
        parent = sites.get(_parent(site.path))
        if site.path and select(site.path) and site.path == site.block:
            site.watched = True
        if parent is not None and isinstance(parent.module, nn.ModuleList | nn.ModuleDict) and select(site.path):
            site.watched = site.watched or not isinstance(site.module, (*_PASSIVE, nn.ModuleList, nn.ModuleDict))
    if "" in sites:
        sites[""].watched = select("") and not isinstance(model, nn.ModuleList | nn.ModuleDict)
    return Tree(sites, _weights(sites, select, notes), notes)


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside DataParallel, DDP, torch.compile and the like."""
    while True:
        inner = [child for name, child in model.named_children() if _is_wrapping(model, name)]
        if len(inner) != 1:
            return model
        model = inner[0]


def _is_wrapping(parent: nn.Module, name: str) -> bool:
    if name in _WRAPPER_PARTS:
        return True
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return name == "module" and isinstance(parent, parallel)


def _modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    seen: set[int] = set()

    def visit(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        children = list(module.named_children())
        if not any(_is_wrapping(module, name) for name, _ in children):
            yield path, module
        for name, child in children:
            own = path if _is_wrapping(module, name) else f"{path}.{name}" if path else name
            yield from visit(own, child)

    return visit("", root)


def _is_watched(module: nn.Module) -> bool:
    if isinstance(module, _PASSIVE):
        return False
    is_leaf = next(module.children(), None) is None
    holds = any(p is not None for p in module._parameters.values())
    return (is_leaf or holds) and not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.ParameterList)


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _block_of(path: str, sites: dict[str, Site]) -> str | None:
    """The nearest ancestor (or itself) that is one of several like it in a numbered container."""
    while path:
        if path.rpartition(".")[2].isdigit() and _is_repeated(path, sites):
            return path
        path = _parent(path)
    return None


def _is_repeated(path: str, sites: dict[str, Site]) -> bool:
    site, parent = sites.get(path), sites.get(_parent(path))
    if site is None or parent is None or next(site.module.children(), None) is None:
        return False
    return sum(type(child) is type(site.module) for child in parent.module.children()) >= 2


def _weights(sites: dict[str, Site], select: Select, notes: list[str]) -> list[Weight]:
    found: dict[int, Weight] = {}
    for site in sites.values():
        for name, tensor in site.module._parameters.items():
            if tensor is None or not select(site.path):
                continue
            if id(tensor) in found:
                found[id(tensor)].aliases.append((site.path, name))
            elif (reason := _unmeasurable(name, tensor)) is not None:
                notes.append(f"not measured, {reason}: {site.path}.{name}"[:MAX_MODULE_PATH])
            else:
                found[id(tensor)] = Weight(
                    site.path, name, tensor, effective_fans(site.module, name, tensor, site.path)
                )
    return list(found.values())


def _unmeasurable(name: str, tensor: torch.Tensor) -> str | None:
    if len(name) > MAX_TENSOR_NAME:
        return "its name is too long"
    return why_not(tensor)


def why_not(tensor: torch.Tensor) -> str | None:
    """Why a tensor cannot be measured, in words; None if it can."""
    if type(tensor) not in (torch.Tensor, nn.Parameter):
        return f"{type(tensor).__name__} is no plain tensor"
    if tensor.is_meta:
        return "it is on the meta device"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "it is sparse or quantised"
    if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
        return f"{str(tensor.dtype).removeprefix('torch.')} is no type that is measured"
    return None
