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
        *_told(scale, points),
        f'<polyline class="measured" points="{_path(scale, measured)}"/>',
        *(_dot(scale, at, y, points[at]) for at, y in measured),
        "</svg>",
    ]
    return "\n".join(parts)


def _scale(points: Sequence[Point], measured: Sequence[tuple[int, float]]) -> _Scale:
    values = [y for _, y in measured]
    told = (v for p in points if p.expected for v in (p.expected.low, p.expected.high, p.expected.predicted))
    values += [math.log2(v) for v in told if v is not None and 0 < v < math.inf]
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
    return f"{10.0**tick:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _told(scale: _Scale, points: Sequence[Point]) -> list[str]:
    """A band for each run of layers that have a healthy range, a line for each that have a prediction."""
    bands = [(p.expected.low, p.expected.high) if p.expected else (None, None) for p in points]
    found: list[str] = []
    for run in _runs([None not in band for band in bands]):
        places = _places(scale, run)
        top = [f"{x:.1f},{scale.y(_octaves(bands[at][1])):.1f}" for x, at in places]
        bottom = [f"{x:.1f},{scale.y(_octaves(bands[at][0])):.1f}" for x, at in reversed(places)]
        found.append(f'<polygon class="band" points="{" ".join(top + bottom)}"/>')
    lines = [p.expected.predicted if p.expected else None for p in points]
    for run in _runs([value is not None for value in lines]):
        line = [f"{x:.1f},{scale.y(_octaves(lines[at])):.1f}" for x, at in _places(scale, run)]
        found.append(f'<polyline class="predicted" points="{" ".join(line)}"/>')
    return found


def _runs(flags: Sequence[bool]) -> list[list[int]]:
    """Places of neighbours that are true."""
    runs: list[list[int]] = []
    for at, flag in enumerate(flags):
        if flag and at and flags[at - 1]:
            runs[-1].append(at)
        elif flag:
            runs.append([at])
    return runs


def _places(scale: _Scale, run: Sequence[int]) -> list[tuple[float, int]]:
    # A layer that stands alone gets a short line, for a point cannot be seen.
    room = 9.0 if len(run) == 1 else 0.0
    return [(scale.x(at) + shift, at) for at in run for shift in sorted({-room, room})]


def _octaves(value: float | None) -> float:
    return math.log2(value) if value is not None and value > 0 else -math.inf  # the scale ends it at its edge


def _path(scale: _Scale, measured: Sequence[tuple[int, float]]) -> str:
    return " ".join(f"{scale.x(at):.1f},{scale.y(y):.1f}" for at, y in measured)


def _dot(scale: _Scale, at: int, y: float, point: Point) -> str:
    told, expected = f"{point.name}: {point.rms:.3g}", point.expected
    if expected is not None and expected.predicted is not None:
        told += f", predicted {expected.predicted:.3g}"
    if expected is not None and expected.low is not None and expected.high is not None:
        told += f", healthy {expected.low:.3g} to {expected.high:.3g}"
    place = f'cx="{scale.x(at):.1f}" cy="{scale.y(y):.1f}"'
    return f'<circle class="dot" {place} r="3"><title>{escape(told)}</title></circle>'
