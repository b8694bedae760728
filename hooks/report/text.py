"""A report for a terminal: the verdict, a table that fits, the findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from initscope.hooks.report import words
from initscope.hooks.report.rows import LayerRow
from initscope.hooks.rules import Finding
from initscope.hooks.vocabulary import Severity

if TYPE_CHECKING:
    from initscope.hooks.report.report import Report

_GAP: Final = 2
_LEAST_NAME: Final = 24
_SURE: Final = 0.5
_MARKS: Final = {Severity.CRITICAL: "!!", Severity.WARNING: "!", Severity.INFO: "·"}

verdict = words.verdict


def report(given: Report) -> str:
    """The whole report."""
    parts = [heading(given)]
    if given.layers:
        parts.append(table(given.layers, marks_of(given.layers, given.findings)))
        parts.append(legend(given))
    parts += [_finding(f) for f in given.findings]
    if given.notes:
        parts.append("\n".join(words.wrapped(f"note: {note}") for note in given.notes))
    return "\n\n".join(part for part in parts if part)


def heading(given: Report) -> str:
    """The verdict, and what was looked at."""
    return f"initscope check: {given.verdict.value.upper()} ({count(given)})\n{words.wrapped(summary(given))}"


def count(given: Report) -> str:
    """How many findings there are of each severity."""
    numbers = [(severity.value, sum(f.severity is severity for f in given.findings)) for severity in reversed(Severity)]
    told = [f"{n} {name}{'s' if n > 1 and name == 'warning' else ''}" for name, n in numbers if n]
    return ", ".join(told) or "nothing found"


def summary(given: Report) -> str:
    """What was looked at."""
    model = given.description
    parts = [f"{model.model_class or 'model'}, {model.parameter_count:,} parameters"]
    if given.loss is not None:
        guess = f" (a uniform guess has {given.trivial_loss:.4g})" if given.trivial_loss is not None else ""
        parts.append(f"first loss {given.loss:.4g}{guess}")
    if given.is_trained:
        parts.append("weights that were trained before")
    elif given.scheme is not None:
        parts.append(f"most weights follow {given.scheme}")
    if not given.has_forward:
        parts.append("weights alone (a batch would show signals and gradients)")
    return ", ".join(parts)


def legend(given: Report) -> str:
    """What the columns are."""
    lines = "oct: log2 of std ÷ expected std (what keeps the signal)."
    if given.has_forward:
        lines += " gain: rms of output ÷ input. signal: share of the output that depends on the input."
    if given.has_backward:
        lines += " back: rms of the gradient at the input ÷ at the output."
    return words.wrapped(lines)


def marks_of(rows: Sequence[LayerRow], findings: Sequence[Finding]) -> list[Severity | None]:
    """The worst severity of what findings, and what they explain, say of each row.

    What is about no matrix (an output, a bias) is shown at its module's first row.
    """
    first = {row.path: row.name for row in reversed(rows)}
    matrices = {(row.path, row.name) for row in rows}
    marks: dict[tuple[str, str], Severity] = {}
    for found in (f for root in findings for f, _ in root.flattened()):
        path = found.module_path
        if path is None or path not in first:
            continue
        own = (path, found.tensor_name or "")
        place = own if own in matrices else (path, first[path])
        marks[place] = max(marks.get(place, found.severity), found.severity, key=lambda severity: severity.rank)
    return [marks.get((row.path, row.name)) for row in rows]


def number(value: float | None) -> str:
    """Three significant digits; nothing for an absent one."""
    return "" if value is None else f"{value:.3g}"


def signed(value: float | None) -> str:
    """One digit behind the point, with its sign."""
    return "" if value is None else "0.0" if abs(value) < 0.05 else f"{value:+.1f}"


def share(value: float | None) -> str:
    """A percentage."""
    return "" if value is None else f"{100 * value:.0f}%"


def shape(row: LayerRow) -> str:
    """`768×3072`."""
    return "×".join(map(str, row.shape))


def std(row: LayerRow) -> str:
    """The std, or what is there instead of numbers."""
    if row.nonfinite_count:
        return f"{row.nonfinite_count} NaN/Inf" if row.std is not None else "NaN/Inf"
    return number(row.std)


def _scheme(row: LayerRow) -> str:
    """The scheme's id, with a question mark where others fit as well."""
    doubt = "?" if row.scheme_confidence is not None and row.scheme_confidence < _SURE else ""
    return f"{row.scheme}{doubt}" if row.scheme else ""


def _predicted(row: LayerRow) -> str:
    return number(row.predicted_rms.predicted if row.predicted_rms else None)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its heading, its cells, whether it is text, and how soon it yields where room is short."""

    title: str
    cell: Callable[[LayerRow], str]
    meaning: str
    is_text: bool = False
    yields: float = math.inf


COLUMNS: Final = (
    Column("shape", shape, "of the weight", is_text=True, yields=2),
    Column("scheme", _scheme, "the initialization that the weight looks like", is_text=True),
    Column("std", std, "of the weight"),
    Column("expected", lambda r: number(r.expected_std), "std that keeps the signal behind this activation"),
    Column("oct", lambda r: signed(r.octaves), "log2 of std ÷ expected std"),
    Column("gain", lambda r: number(r.forward_gain), "rms of the output ÷ rms of the input"),
    Column("healthy", lambda r: number(r.expected_forward_gain), "gain that keeps the signal", yields=1),
    Column("back", lambda r: number(r.backward_gain), "rms of the gradient at the input ÷ at the output"),
    Column("rms", lambda r: number(r.output_rms), "of the output"),
    Column("predicted", _predicted, "rms of the output that these weights should give", yields=3),
    Column("signal", lambda r: share(r.signal_fraction), "share of the output that depends on the input", yields=4),
    Column("dead", lambda r: share(r.dead_fraction), "units in front of a rectifier that were never above zero"),
    Column("sat.", lambda r: share(r.saturated_fraction), "elements in the flat part of the activation"),
)


def table(rows: Sequence[LayerRow], marks: Sequence[Severity | None]) -> str:
    """Rows under headings, no wider than a terminal; columns without any number are left out."""
    flags = ["" if mark is None else _MARKS[mark] for mark in marks]
    flag_width = max(map(len, flags))
    columns = [(c, cells) for c in COLUMNS if any(cells := [c.cell(r) for r in rows])]
    names = [r.full_name for r in rows]
    wanted = min(max(map(len, [*names, "layer"])), _LEAST_NAME)
    while (room := words.WIDTH - flag_width - (flag_width > 0) - _width(columns)) < wanted:
        soonest = min(columns, key=lambda column: column[0].yields)
        if soonest[0].yields == math.inf:
            break
        columns.remove(soonest)
    room = min(max(room, 8), max(map(len, [*names, "layer"])))
    lines = [_line("layer", [c.title for c, _ in columns], columns, room, "", flag_width)]
    for at, name in enumerate(names):
        cells = [cells[at] for _, cells in columns]
        lines.append(_line(shortened(name, room), cells, columns, room, flags[at], flag_width))
    return "\n".join(lines)


def shortened(name: str, width: int) -> str:
    """A name with its middle left out, so that its beginning and end can still be read."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


_Columns = list[tuple[Column, list[str]]]


def _width(columns: _Columns) -> int:
    return sum(_GAP + _cell_width(column, cells) for column, cells in columns)


def _cell_width(column: Column, cells: list[str]) -> int:
    return max(map(len, [column.title, *cells]))


def _line(name: str, cells: list[str], columns: _Columns, room: int, flag: str, flag_width: int) -> str:
    parts = [f"{flag:<{flag_width}} {name:<{room}}" if flag_width else f"{name:<{room}}"]
    for cell, (column, all_cells) in zip(cells, columns, strict=True):
        width = _cell_width(column, all_cells)
        parts.append(f"{cell:<{width}}" if column.is_text else f"{cell:>{width}}")
    return (" " * _GAP).join(parts).rstrip()


def _finding(found: Finding) -> str:
    where = words.place(found)
    head = f"{found.severity.value.upper()}{f' in {where}' if where else ''} ({found.rule})"
    return words.finding(found, head)
