"""The model as places in forward order: every module with an output that was measured, and what kind it is.

What feeds what is read off the descriptions: the order of calls, the activations, norms and residual sums around each
module, and the shapes. Where they leave a doubt, nothing is linked: a prediction that is wrong is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.layers import Layer, fits, layers_of
from initscope.hooks.theory.activations import ACTIVATIONS, activation_name
from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import TensorInfo


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A module with an output. `layer` is its weight matrix; `gain` and `shift` belong to a norm."""

    output: TensorInfo
    gradient: TensorInfo | None = None
    layer: Layer | None = None
    gain: TensorInfo | None = None
    shift: TensorInfo | None = None

    @property
    def path(self) -> str:
        """Module path."""
        return self.output.module_path

    @property
    def depth(self) -> int:
        """Order of the module's first forward call."""
        return self.output.depth or 0

    @property
    def is_norm(self) -> bool:
        """Whether it normalizes."""
        return "norm" in self.output.module_type.lower() or self.gain is not None

    @property
    def is_table(self) -> bool:
        """Whether it looks rows up."""
        return self.layer is not None and self.layer.is_table

    @property
    def is_plain(self) -> bool:
        """Whether it is one matrix or kernel."""
        return self.layer is not None and self.layer.is_plain

    @property
    def is_block(self) -> bool:
        """Whether it is one of several blocks like it, whose output is what its last part made."""
        return self.layer is None and bool(self.path) and self.output.block == self.path

    @property
    def is_branch(self) -> bool:
        """Whether its output is added to a residual stream."""
        return self.output.residual or (self.layer is not None and self.layer.is_residual)

    @property
    def activation(self) -> str | None:
        """The activation that the module itself is."""
        name = activation_name(self.output.module_type)
        return name if self.layer is None and name in ACTIVATIONS else None


def places_of(tensors: Mapping[int, TensorInfo]) -> list[Place]:
    """Every module with one measured output, in forward order."""
    outputs = [t for t in tensors.values() if t.kind is Kind.ACTIVATION and t.depth is not None]
    first: dict[str, TensorInfo] = {}
    for t in sorted(outputs, key=lambda t: t.name):
        first.setdefault(t.module_path, t)
    gradients = {(t.module_path, t.name): t for t in tensors.values() if t.kind is Kind.ACTIVATION_GRADIENT}
    vectors = {(t.module_path, t.role): t for t in tensors.values() if t.kind is Kind.WEIGHT and t.role in _NORM}
    layers: dict[str, Layer] = {}
    for layer in layers_of(tensors):
        layers.setdefault(layer.path, layer)
    places = [
        Place(
            t,
            gradients.get((path, t.name)),
            layers.get(path),
            vectors.get((path, Role.NORM_GAIN)),
            vectors.get((path, Role.NORM_BIAS)),
        )
        for path, t in first.items()
    ]
    return sorted(places, key=lambda p: (p.depth, -len(p.path)))


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """What a layer reads: `source`'s output (a layer's or a `norm`'s), through an activation.

    `inside` is the share of a kernel's taps that lies inside the image: zeros around it take from the sum.
    """

    source: Place
    norm: Place | None = None
    activation: str | None = None
    inside: float = 1.0


def links_of(places: Sequence[Place]) -> dict[str, Link]:
    """For each plain layer, by path, the one output that it reads, where that is certain."""
    links: dict[str, Link] = {}
    before: Place | None = None
    norms: list[Place] = []
    read: set[str] = set()
    for place in places:
        if place.is_norm:
            norms.append(place)
        if place.layer is None:
            continue
        if place.is_plain:
            found = _through_norm(place, norms, read) if place.layer.norm_before else _directly(before, place)
            if found is not None:
                links[place.path] = found
                read.add(found.source.path)
        before = place
        norms = norms[-_RECENT:]
    return links


def _through_norm(place: Place, norms: Sequence[Place], read: set[str]) -> Link | None:
    norm = norms[-1] if norms else None
    if norm is None or place.layer is None or norm.is_branch:
        return None
    other = norms[-2] if len(norms) > 1 else norm
    if other is not norm and other.path not in read and not other.is_branch and other.output.shape == norm.output.shape:
        return None  # nobody has read the norm before: this layer may read the sum of the two
    inside = _inside(norm, place)
    if inside is None or not _same_width(norm, place):
        return None
    return Link(norm, norm, norm.output.activation_after, inside)


def _directly(before: Place | None, place: Place) -> Link | None:
    layer = place.layer
    if before is None or before.layer is None or layer is None or before.layer.is_table or not before.is_plain:
        return None
    name = activation_name(layer.activation_before)
    if before.layer.norm_after or before.is_branch or name != activation_name(before.layer.activation_after):
        return None
    if name is None and not _are_neighbours(before.path, place.path):
        return None  # the end of an attention reads a mixture of values, not the projection before it
    inside = _inside(before, place)
    return Link(before, None, name, inside) if inside is not None and fits(before.layer, layer) else None


def _are_neighbours(a: str, b: str) -> bool:
    """Whether two paths stand side by side in one numbered container."""
    (above, _, left), (same, _, right) = a.rpartition("."), b.rpartition(".")
    return above == same and left.isdigit() and right.isdigit()


def _same_width(norm: Place, place: Place) -> bool:
    """Whether a norm's channels are a layer's inputs."""
    layer = place.layer
    if layer is None or norm.gain is None or not norm.gain.shape or len(layer.weight.shape) < 2:
        return True
    inputs, width = layer.inputs, norm.gain.shape[-1]
    return width == inputs or inputs % max(1, width) == 0


def _inside(source: Place, place: Place) -> float | None:
    """Share of a layer's taps that see the source's output; None where something else lies between (pooling)."""
    into, out = source.output.shape, place.output.shape
    kernel = place.layer.weight.shape[2:] if place.layer is not None else []
    if not kernel:
        is_flat = place.layer is not None and math.prod(into[1:]) == place.layer.inputs
        return 1.0 if into[:-1] == out[:-1] or is_flat else None
    if len(into) != len(out) or len(into) != len(kernel) + 2:
        return None
    shares = [_axis(n, m, k) for n, m, k in zip(into[2:], out[2:], kernel, strict=True)]
    return None if any(share is None for share in shares) else math.prod(s for s in shares if s is not None)


def _axis(size: int, outputs: int, taps: int) -> float | None:
    """One axis of a convolution of stride 1: all taps count without padding, Σ over the border is lost with it."""
    if outputs == size - taps + 1:
        return 1.0
    half = (taps - 1) // 2
    return 1.0 - half * (half + 1) / (taps * size) if outputs == size > half and taps % 2 else None


def consumers(links: Iterable[Link]) -> dict[str, int]:
    """How many layers read each place, by path."""
    counts: dict[str, int] = {}
    for link in links:
        counts[link.source.path] = counts.get(link.source.path, 0) + 1
    return counts


_NORM: Final = frozenset({Role.NORM_GAIN, Role.NORM_BIAS})
_RECENT: Final = 4
