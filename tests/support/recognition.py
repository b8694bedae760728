"""What recognition says of a real model as it is, without a step of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from initscope.hooks.moments import Moments, TensorStats, merge_all
from initscope.hooks.probe.describe import Registry
from initscope.hooks.probe.reduce import measure, to_moments
from initscope.hooks.probe.traits import read_traits
from initscope.hooks.probe.walk import walk
from initscope.hooks.schemes import Recognition, Scheme, recognise
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import RunDescription, TensorInfo


@dataclass(frozen=True)
class Seen:
    """A model's description and records by key, with its recognition by full name of a weight."""

    tensors: Mapping[int, TensorInfo]
    stats: Mapping[int, TensorStats]
    names: Mapping[str, int]
    found: Recognition

    def scheme(self, name: str) -> Scheme:
        return self.found.by_key[self.names[name]]

    def trained(self, name: str) -> float:
        return self.found.trained[self.names[name]]


def describe(model: nn.Module) -> tuple[dict[int, TensorInfo], dict[int, TensorStats], dict[str, int]]:
    """Descriptions and step-0 records of all parameters, as the probe makes them before the first forward."""
    tree = walk(model)
    registry = Registry(tree)
    traits = read_traits([weight.tensor for weight in tree.weights])
    registry.learn_traits({w.full_name: t for w, t in zip(tree.weights, traits, strict=True)})
    keys = {w.full_name: registry.weight_key(w, Kind.WEIGHT) for w in tree.weights}
    stats = {keys[w.full_name]: TensorStats(moments_of(w.tensor)) for w in tree.weights}
    return {k: t for k, t in registry.infos.items() if t.kind is Kind.WEIGHT}, stats, keys


def moments_of(weight: torch.Tensor) -> Moments:
    """Moments as the probe measures them."""
    return merge_all(to_moments(count, [float(x) for x in part]) for count, part in measure(weight.detach()))


def recognised(model: nn.Module, description: RunDescription | None = None) -> Seen:
    """Recognition of a model from its weights alone."""
    tensors, stats, names = describe(model)
    return Seen(tensors, stats, names, recognise(tensors, stats, description))
