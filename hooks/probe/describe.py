"""The model in words: which tensors there are, and what each one is for."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch.nn.utils.parametrize import ParametrizationList

from initscope.hooks.probe.graph import Around, Structure
from initscope.hooks.probe.kinds import effective_fans, is_norm
from initscope.hooks.probe.observe import Trace
from initscope.hooks.probe.walk import Site, Tree, Weight
from initscope.hooks.vocabulary import MAX_CONFIG_BYTES, MAX_TENSORS_PER_RUN, Kind, Role
from initscope.hooks.wire import TensorInfo, Traits, tensor_key

PARAMETER_KINDS: Final = (Kind.WEIGHT, Kind.GRADIENT, Kind.UPDATE)


class Registry:
    """Tensors by key. Grows when an output is seen for the first time, is refined when the first forward was read."""

    def __init__(self, tree: Tree) -> None:
        self.infos: dict[int, TensorInfo] = {}
        self.is_new = True
        """Whether something has changed since `taken`."""
        self._tree = tree
        self._trace: Trace | None = None
        self._structure = Structure()
        self._depths: dict[str, int] = {}
        self._keys: dict[tuple[str, str, Kind], int] = {}
        self._traits: dict[str, Traits] = {}
        self._main_weights = {w.path: w for w in reversed(tree.weights) if w.tensor.dim() > 1}
        for weight in tree.weights:
            for kind in PARAMETER_KINDS:
                self._put(self._parameter(weight, weight.path, weight.name, kind))
            for path, name in weight.aliases:
                self._put(self._parameter(weight, path, name, Kind.WEIGHT))

    def key(self, site: Site, name: str, kind: Kind, tensor: torch.Tensor) -> int | None:
        """The key of an output; None when the run has as many tensors as it may have."""
        known = self._keys.get((site.path, name, kind))
        if known is None and len(self.infos) < MAX_TENSORS_PER_RUN:
            shape, dtype = list(tensor.shape), _dtype(tensor)
            known = self._put(self._output(site.path, name, kind, shape, dtype))
        return known

    def weight_key(self, weight: Weight, kind: Kind) -> int:
        """The key of a parameter's weight, gradient or update."""
        return self._keys[(weight.path, weight.name, kind)]

    def refine(self, trace: Trace, structure: Structure) -> None:
        """Takes in what the first forward showed; outputs that are only a child's output are tensors no more."""
        self._trace, self._structure = trace, structure
        told = [p for p in trace.order if self._tree.sites[p].watched or p in self._weight_paths()]
        self._depths = {path: depth for depth, path in enumerate(told)}
        gone = {key for key, info in self.infos.items() if info.module_path in trace.returns_child and _is_output(info)}
        for key in gone:
            info = self.infos.pop(key)
            del self._keys[(info.module_path, info.name, info.kind)]
        by_place = {(w.path, w.name): w for w in self._tree.weights}
        by_place.update({alias: w for w in self._tree.weights for alias in w.aliases})
        for info in list(self.infos.values()):
            if _is_output(info):
                self._put(self._output(info.module_path, info.name, info.kind, info.shape, info.dtype))
            else:
                weight = by_place[(info.module_path, info.name)]
                self._put(self._parameter(weight, info.module_path, info.name, info.kind))

    def learn_traits(self, traits: Mapping[str, Traits]) -> None:
        """Takes in the structure of weights at the start, by full name."""
        self._traits.update(traits)
        for weight in self._tree.weights:
            if weight.full_name in traits:
                for path, name in [(weight.path, weight.name), *weight.aliases]:
                    self._put(self._parameter(weight, path, name, Kind.WEIGHT))

    def follow(self, weights: Iterable[Weight]) -> None:
        """Takes in which parameters were thawed. Not the other way: some loops freeze for one backward only."""
        for weight in weights:
            if not weight.tensor.requires_grad or self.infos[self.weight_key(weight, Kind.WEIGHT)].trainable:
                continue
            for kind in PARAMETER_KINDS:
                self._put(self._parameter(weight, weight.path, weight.name, kind))
            for info in [i for i in self.infos.values() if i.module_path == weight.path and _is_output(i)]:
                self._put(self._output(info.module_path, info.name, info.kind, info.shape, info.dtype))

    @property
    def parameter_keys(self) -> set[int]:
        """Keys of weights, gradients and updates."""
        return {key for key, info in self.infos.items() if not _is_output(info)}

    def close(self) -> None:
        """Lets go of the model; the descriptions stay."""
        self._main_weights.clear()

    def taken(self) -> list[TensorInfo]:
        """All tensors, for sending."""
        self.is_new = False
        return list(self.infos.values())

    def _put(self, info: TensorInfo) -> int:
        self.infos[info.key] = info
        self._keys[(info.module_path, info.name, info.kind)] = info.key
        self.is_new = True
        return info.key

    def _weight_paths(self) -> set[str]:
        return {w.path for w in self._tree.weights}

    def _parameter(self, weight: Weight, path: str, name: str, kind: Kind) -> TensorInfo:
        places = [(weight.path, weight.name), *weight.aliases]
        others = [f"{p}.{n}" if p else n for p, n in places if (p, n) != (path, name)]
        is_first = (path, name) == places[0]
        role = self._role(weight) if is_first else self._alias_role(weight)
        # A tied matrix is looked up in one place and multiplied in the other.
        fans = weight.fans if is_first else effective_fans(self._tree.sites[path].module, name, weight.tensor)
        return replace(
            self._bare(path, name, kind),
            role=role,
            shape=list(weight.tensor.shape),
            dtype=_dtype(weight.tensor),
            fan_in=fans[0],
            fan_out=fans[1],
            tied_with=others[0] if others else None,
            trainable=weight.tensor.requires_grad,
            residual=role is Role.RESIDUAL_OUTPUT,
            traits=self._traits.get(weight.full_name) if kind is Kind.WEIGHT else None,
        )

    def _output(self, path: str, name: str, kind: Kind, shape: list[int], dtype: str) -> TensorInfo:
        weight = self._main_weights.get(path)
        parameters = [w for w in self._tree.weights if w.path == path]
        return replace(
            self._bare(path, name, kind),
            role=Role.OTHER if weight is None else self._role(weight),
            shape=shape,
            dtype=dtype,
            trainable=not parameters or any(w.tensor.requires_grad for w in parameters),
        )

    def _bare(self, path: str, name: str, kind: Kind) -> TensorInfo:
        site = self._tree.sites[path]
        around = self._structure.around.get(path, _NOTHING)
        return TensorInfo(
            key=tensor_key(path, name, kind),
            module_path=path,
            name=name,
            kind=kind,
            module_type=site.type_name,
            depth=self._depth(path),
            block=site.block,
            activation_before=around.activation_before,
            activation_after=around.activation_after,
            norm_before=around.norm_before,
            norm_after=around.norm_after,
            residual=around.residual,
        )

    def _depth(self, path: str) -> int | None:
        """Of a module that never ran itself (an attention's projection), the depth of what ran it."""
        while path not in self._depths and path:
            path = path.rpartition(".")[0]
        return self._depths.get(path)

    def _role(self, weight: Weight) -> Role:
        known = self._structure.roles.get(weight.full_name)
        fixed = _fixed_role(weight, self._tree.sites[weight.path])
        if fixed in (None, Role.EMBEDDING, Role.RECURRENT):
            return known or fixed or (Role.HIDDEN if weight.tensor.dim() > 1 else Role.OTHER)
        return fixed

    def _alias_role(self, weight: Weight) -> Role:
        reads = weight.full_name in self._structure.reads_output
        return Role.OUTPUT if reads else self._role(weight)


_NOTHING: Final = Around()


def _fixed_role(weight: Weight, site: Site) -> Role | None:
    """What a parameter's place alone says."""
    if is_norm(site.module):
        return Role.NORM_BIAS if "bias" in weight.name else Role.NORM_GAIN
    if weight.name.startswith("bias") or weight.name.endswith("bias"):
        return Role.BIAS
    if isinstance(site.module, ParametrizationList):
        return Role.OTHER
    if isinstance(site.module, torch.nn.RNNBase | torch.nn.modules.rnn.RNNCellBase):
        return Role.RECURRENT if weight.name.startswith("weight_hh") else None
    if isinstance(site.module, torch.nn.Embedding | torch.nn.EmbeddingBag):
        last = site.path.rpartition(".")[2].lower()
        return Role.POSITION if "pos" in last or last == "wpe" else Role.EMBEDDING
    return None


def _is_output(info: TensorInfo) -> bool:
    return info.kind in (Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def versions() -> dict[str, str]:
    """What runs here."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def plain_config(config: Mapping[str, Any] | None) -> tuple[dict[str, Any], str | None]:
    """(config as JSON can carry it, a note where it could not be kept): foreign values become their text."""
    if config is None:
        return {}, None
    if not isinstance(config, Mapping):
        raise TypeError(f"config: a mapping of names to values, as vars(args) is; got {type(config).__name__}")
    try:
        text = json.dumps(dict(config), default=str, skipkeys=True)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config: cannot be written as JSON: {error}") from None
    if len(text.encode()) > MAX_CONFIG_BYTES:
        return {}, f"config left out: {len(text.encode())} bytes are more than {MAX_CONFIG_BYTES}"
    plain: dict[str, Any] = json.loads(text)
    return plain, None
