"""The coordinate check: how the scale of activations depends on the width of the model.

In a parametrization whose hyperparameters carry over to larger models the size of every activation is the same at any
width, at initialization and after each of the first steps (Yang et al. 2022, "Tensor Programs V", section D.1). Under
the standard one, with one learning rate for all widths, it grows from the first update on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any, Final

from initscope.hooks.comparison.luck import luck_of, outputs_axis
from initscope.hooks.layers import layers_of
from initscope.hooks.moments import TensorStats
from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import TensorInfo

GROWTH: Final = 0.25
"""Slope of log2 rms against log2 width above which an activation grows with width."""
LEAST_WIDTHS: Final = 3
_CONFIG_NAMES: Final = ("width", "hidden_size", "d_model", "n_embd")
_CERTAIN: Final = 2.0
"""Standard errors that a slope must lie above zero."""
_CERTAIN_RISE: Final = 4.0
"""Standard errors that a slope must have risen since the first step. μP nets of three widths reach 3.9."""
_Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Subject:
    """A run of the model at one width; `steps[step][key]` are records of its activations."""

    width: float
    tensors: Mapping[int, TensorInfo]
    steps: Mapping[int, Mapping[int, TensorStats]]


@dataclass(frozen=True, slots=True)
class Slope:
    """Least squares of log2 rms against log2 width over `points` runs at a step.

    `error` is the standard error: of the fit, or of what finite width alone makes of these runs, whichever is larger.
    `rise` is how much steeper the slope is than at the first step, over the same runs; None at the first.
    """

    step: int
    slope: float
    error: float
    points: int
    rise: float | None
    grows: bool


@dataclass(frozen=True, slots=True)
class Coordinate:
    """An activation over widths and steps; `rms[i]` belongs to `slopes[i]`: one value a subject, None for no record."""

    module_path: str
    name: str
    role: Role
    depth: int | None
    slopes: tuple[Slope, ...]
    rms: tuple[tuple[float | None, ...], ...]

    @property
    def grows_from(self) -> int | None:
        """The first step at which it grows with width; None if it does at none."""
        return next((s.step for s in self.slopes if s.grows), None)

    @property
    def largest(self) -> Slope:
        """The steepest slope."""
        return max(self.slopes, key=lambda s: s.slope)


@dataclass(frozen=True, slots=True)
class CoordinateCheck:
    """Activations that at least three widths have in common, in forward order of the first run."""

    widths: tuple[float, ...]
    coordinates: tuple[Coordinate, ...]

    @property
    def growing(self) -> tuple[Coordinate, ...]:
        """Those that grow with width."""
        return tuple(c for c in self.coordinates if c.grows_from is not None)

    @property
    def diagnosis(self) -> str:
        """One sentence, with what to change."""
        if not self.coordinates:
            return "No activation was recorded at the same step at three widths or more."
        growing = self.growing
        if not growing:
            return f"None of {len(self.coordinates)} activations grows with width: the start is stable in width."
        begin = min(c.grows_from for c in growing if c.grows_from is not None)
        first = next(c for c in growing if c.grows_from == begin)
        slope = next(s for s in first.slopes if s.grows)
        where = first.module_path or "the model"
        found = f"{where} grows with width from step {begin} on: rms ∝ width^{slope.slope:.2f} ± {slope.error:.2f}."
        if begin == 0:
            return (
                f"{found} The initialization does: draw hidden matrices with std ∝ 1/√fan_in and heads with ∝ 1/fan_in."
            )
        return (
            f"{found} The updates do: with Adam divide the learning rate of hidden matrices and the head by the width."
        )


def widths_of(models: Sequence[tuple[Mapping[int, TensorInfo], Mapping[str, Any]]]) -> list[float | None]:
    """Widths of runs, each given by its tensors and config: one entry of every config, else read from shapes.

    `width`, `hidden_size`, `d_model` or `n_embd` counts only if all configs have it; widths of two sources do not
    compare. From shapes it is the median number of outputs of the hidden matrices: for any architecture that is
    scaled as a whole, a constant times its width. None for a model without a hidden matrix.
    """
    for name in _CONFIG_NAMES:
        given = [config.get(name) for _, config in models]
        if all(isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < math.inf for x in given):
            return [float(x) for x in given if x is not None]
    return [_width_of_shapes(tensors) for tensors, _ in models]


def _width_of_shapes(tensors: Mapping[int, TensorInfo]) -> float | None:
    plain = [layer for layer in layers_of(tensors) if layer.is_plain and not layer.is_head]
    rows = [layer.weight.shape[outputs_axis(layer.weight)] for layer in plain]
    return float(median_low(rows)) if rows else None


def check_coordinates(subjects: Sequence[Subject], *, threshold: float = GROWTH) -> CoordinateCheck:
    """Slopes of every activation at every step that at least three different widths have in common.

    Growth is flagged if the slope exceeds the threshold for certain, or has risen by more than that since the first
    step for certain: the draw of a run's weights, which makes most of the error, is the same at all its steps.
    Shrinking is not flagged: outputs and attention logits may shrink with width at the start.
    """
    lucks = [luck_of(subject.tensors) for subject in subjects]
    found: dict[_Identity, list[tuple[int, TensorInfo]]] = defaultdict(list)
    for index, subject in enumerate(subjects):
        for tensor in subject.tensors.values():
            if tensor.kind is Kind.ACTIVATION:
                found[tensor.module_path, tensor.name].append((index, tensor))
    steps = sorted({step for subject in subjects for step in subject.steps})
    tracks = []
    for places in found.values():
        luck = {index: lucks[index].of(tensor) for index, tensor in places}
        rows = [(step, row) for step in steps if (row := _row(subjects, places, luck, step)) is not None]
        if rows:
            tracks.append((places[0][1], rows))
    tracks.sort(key=lambda t: (math.inf if t[0].depth is None else t[0].depth, t[0].module_path, t[0].name))
    spread = _spread_of_rises([rows for _, rows in tracks])
    coordinates = tuple(_coordinate(tensor, rows, len(subjects), spread, threshold) for tensor, rows in tracks)
    return CoordinateCheck(tuple(subject.width for subject in subjects), coordinates)


_Row = dict[int, tuple[float, float, float]]
"""Points of one activation at one step by subject: log2 width, log2 rms, luck."""


def _row(
    subjects: Sequence[Subject], places: Sequence[tuple[int, TensorInfo]], luck: Mapping[int, float], step: int
) -> _Row | None:
    row: _Row = {}
    for index, tensor in places:
        record = subjects[index].steps.get(step, {}).get(tensor.key)
        if record is not None and 0.0 < record.moments.rms < math.inf:
            row[index] = (math.log2(subjects[index].width), math.log2(record.moments.rms), luck[index])
    return row if _has_widths(row) else None


def _has_widths(row: _Row) -> bool:
    return len({x for x, _, _ in row.values()}) >= LEAST_WIDTHS


def _rise(first: _Row, row: _Row) -> tuple[float, float, float] | None:
    """(slope of the change since the first step, residual variance, Σ (x − mean)²) over runs that have both."""
    both: _Row = {i: (x, y - first[i][1], 0.0) for i, (x, y, _) in row.items() if i in first}
    if not _has_widths(both):
        return None
    points = list(both.values())
    slope, error = least_squares(points)
    mean = math.fsum(x for x, _, _ in points) / len(points)
    width = math.fsum((x - mean) ** 2 for x, _, _ in points)
    return slope, error * error * width, width


def _spread_of_rises(tracks: Sequence[Sequence[tuple[int, _Row]]]) -> float:
    """Residual variance of the changes, pooled over all activations and steps: each has few points of its own."""
    found = [rise[1] for rows in tracks for _, row in rows[1:] if (rise := _rise(rows[0][1], row)) is not None]
    return math.fsum(found) / len(found) if found else 0.0


def _coordinate(
    tensor: TensorInfo, rows: Sequence[tuple[int, _Row]], count: int, spread: float, threshold: float
) -> Coordinate:
    slopes = []
    for step, row in rows:
        slope, error = least_squares(list(row.values()))
        rise = None if row is rows[0][1] else _rise(rows[0][1], row)
        grows = slope > _CERTAIN * error
        if rise is not None:
            grows = grows or rise[0] > max(threshold, _CERTAIN_RISE * math.sqrt(spread / rise[2]))
        slopes.append(Slope(step, slope, error, len(row), rise[0] if rise else None, grows and slope > threshold))
    rms = tuple(tuple(2.0 ** row[i][1] if i in row else None for i in range(count)) for _, row in rows)
    return Coordinate(tensor.module_path, tensor.name, tensor.role, tensor.depth, tuple(slopes), rms)


def least_squares(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """(slope, standard error) of y over x; each point is (x, y, standard deviation of y that is known, or 0).

    The error is √(Σ residual² ÷ (n − 2) ÷ Sxx), or what the known deviations make of the slope if that is more: with
    three points residuals alone are often small by chance.
    """
    n = len(points)
    mean_x = math.fsum(x for x, _, _ in points) / n
    mean_y = math.fsum(y for _, y, _ in points) / n
    spread = math.fsum((x - mean_x) ** 2 for x, _, _ in points)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y, _ in points) / spread
    residual = math.fsum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y, _ in points)
    known = math.fsum(((x - mean_x) * deviation / spread) ** 2 for x, _, deviation in points)
    return slope, max(math.sqrt(residual / (n - 2) / spread), math.sqrt(known))
