"""Measured against predicted rms over depth, as a drawing that stands in a page by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from initscope.hooks.theory import Expected

_WIDTH: Final = 460
_HEIGHT: Final = 230
_LEFT: Final = 52
_RIGHT: Final = 10
_TOP: Final = 26
_BOTTOM: Final = 24
_MOST_TICKS: Final = 6


@dataclass(frozen=True, slots=True)
class Point:
    """A layer in a drawing: its name, what was measured, and what theory says of it."""

    name: str
    rms: float | None
    expected: Expected | None


@dataclass(frozen=True, slots=True)
class _Scale:
    """Places of layers and of rms (log2) in the drawing."""

    count: int
    low: float
    high: float

    def x(self, at: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (at + 0.5) / self.count

    def y(self, octaves: float) -> float:
        inside = (min(max(octaves, self.low), self.high) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - inside * (_HEIGHT - _TOP - _BOTTOM)


def drawing(title: str, points: Sequence[Point]) -> str:
    """SVG of the points in forward order; empty where fewer than two were measured."""
    measured = [(at, math.log2(p.rms)) for at, p in enumerate(points) if p.rms is not None and p.rms > 0]
    if len(measured) < 2:
        return ""
    scale = _scale(points, measured)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="{_LEFT}" y="15">{escape(title)}</text>',
        *_axes(scale),
        *_predicted(scale, points),
        f'<polyline class="measured" points="{_path(scale, measured)}"/>',
        *(_dot(scale, at, y, points[at]) for at, y in measured),
        "</svg>",
    ]
    return "\n".join(parts)


def _scale(points: Sequence[Point], measured: Sequence[tuple[int, float]]) -> _Scale:
    values = [y for _, y in measured]
    bands = (v for p in points if p.expected for v in (p.expected.low, p.expected.high))
    values += [math.log2(v) for v in bands if 0 < v < math.inf]
    low, high = min(values), max(values)
    middle, room = (low + high) / 2, max(high - low, 2.0) * 0.56
    return _Scale(len(points), middle - room, middle + room)


def _axes(scale: _Scale) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    lines = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>']
    for tick in _ticks(scale.low, scale.high):
        y = scale.y(tick * math.log2(10))
        lines.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        lines.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_power(tick)}</text>')
    lines.append(f'<text class="tick" x="{_LEFT}" y="{_HEIGHT - 8}">first layer</text>')
    lines.append(f'<text class="tick" x="{right}" y="{_HEIGHT - 8}" text-anchor="end">last layer</text>')
    return lines


def _ticks(low: float, high: float) -> list[float]:
    """Decades, or parts of one where less than two are shown."""
    low, high = low / math.log2(10), high / math.log2(10)
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if (high - low) / s <= _MOST_TICKS)
    first = math.ceil(low / step)
    return [at * step for at in range(first, math.floor(high / step) + 1)]


def _power(tick: float) -> str:
    """10 to this power, as a person writes it."""
    return f"{10.0**tick:.2g}" if -3 <= tick <= 3 else f"1e{tick:.0f}" if tick == round(tick) else f"1e{tick:.1f}"


def _predicted(scale: _Scale, points: Sequence[Point]) -> list[str]:
    """A band and a line for each run of layers that theory speaks of."""
    found: list[str] = []
    for run in _runs(points):
        # A layer that stands alone gets a short line, for a point cannot be seen.
        room = 5.0 if len(run) == 1 else 0.0
        places = [(scale.x(at) + shift, expected) for at, expected in run for shift in sorted({-room, room})]
        top = [f"{x:.1f},{scale.y(_octaves(e.high)):.1f}" for x, e in places]
        bottom = [f"{x:.1f},{scale.y(_octaves(e.low)):.1f}" for x, e in reversed(places)]
        line = [f"{x:.1f},{scale.y(_octaves(e.rms)):.1f}" for x, e in places]
        found.append(f'<polygon class="band" points="{" ".join(top + bottom)}"/>')
        found.append(f'<polyline class="predicted" points="{" ".join(line)}"/>')
    return found


def _runs(points: Sequence[Point]) -> list[list[tuple[int, Expected]]]:
    runs: list[list[tuple[int, Expected]]] = []
    last = -2
    for at, point in enumerate(points):
        if point.expected is None:
            continue
        if at != last + 1:
            runs.append([])
        runs[-1].append((at, point.expected))
        last = at
    return runs


def _octaves(value: float) -> float:
    return math.log2(value) if value > 0 else -math.inf  # the scale ends it at its edge


def _path(scale: _Scale, measured: Sequence[tuple[int, float]]) -> str:
    return " ".join(f"{scale.x(at):.1f},{scale.y(y):.1f}" for at, y in measured)


def _dot(scale: _Scale, at: int, y: float, point: Point) -> str:
    told = f"{point.name}: {point.rms:.3g}" + (f", predicted {point.expected.rms:.3g}" if point.expected else "")
    place = f'cx="{scale.x(at):.1f}" cy="{scale.y(y):.1f}"'
    return f'<circle class="dot" {place} r="3"><title>{escape(told)}</title></circle>'
