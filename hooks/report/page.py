"""A report as one page: no script, nothing from elsewhere, every word of the model escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from initscope.hooks.report import text, words
from initscope.hooks.report.chart import Point, drawing
from initscope.hooks.report.rows import BlockRow, LayerRow
from initscope.hooks.rules import Finding

if TYPE_CHECKING:
    from initscope.hooks.report.report import Report

_STYLE: Final = """
.initscope { --ink: #1c2330; --soft: #5b6577; --line: #d9dee7; --paper: #ffffff; --raised: #f5f7fa;
  --ok: #1a7f4b; --info: #2f6fc4; --warning: #a25b00; --critical: #c02b2b; --measured: #2f6fc4; --band: #1a7f4b;
  color: var(--ink); background: var(--paper); font: 14px/1.5 system-ui, sans-serif; padding: 24px;
  color-scheme: light; }
@media (prefers-color-scheme: dark) { .initscope { --ink: #e4e8ef; --soft: #9aa4b5; --line: #343c4a; --paper: #161a21;
  --raised: #1f252e; --ok: #4cc38a; --info: #7db2f5; --warning: #f0a742; --critical: #ff7d75; --measured: #7db2f5;
  --band: #4cc38a; color-scheme: dark; } }
.initscope main { max-width: 1120px; margin: 0 auto; }
.initscope h1 { font-size: 20px; margin: 0; } .initscope h2 { font-size: 16px; margin: 28px 0 8px; }
.initscope p { margin: 4px 0; } .initscope .soft { color: var(--soft); }
.initscope .ok { color: var(--ok); } .initscope .info { color: var(--info); }
.initscope .warning { color: var(--warning); } .initscope .critical { color: var(--critical); }
.initscope article { border: 1px solid var(--line); border-left: 4px solid currentColor; border-radius: 6px;
  padding: 10px 14px; margin: 10px 0; }
.initscope article > * { color: var(--ink); }
.initscope article > h3 { font-size: 15px; margin: 0 0 4px; color: inherit; }
.initscope pre { background: var(--raised); border-radius: 4px; padding: 8px 10px; margin: 8px 0; overflow-x: auto;
  user-select: all; font: 13px/1.45 ui-monospace, monospace; }
.initscope .charts { display: flex; flex-wrap: wrap; gap: 16px; } .initscope svg { flex: 1 1 420px; max-width: 552px; }
.initscope .table { overflow-x: auto; }
.initscope table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
.initscope th, .initscope td { padding: 3px 8px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; background: none; color: inherit; }
.initscope th { color: var(--soft); font-weight: 500; } .initscope .words { text-align: left; }
.initscope tr.critical td:first-child, .initscope tr.warning td:first-child { font-weight: 600; }
.initscope td { color: var(--ink); } .initscope tr.critical td:first-child { color: var(--critical); }
.initscope tr.warning td:first-child { color: var(--warning); }
.initscope tr.info td:first-child { color: var(--info); }
.initscope svg .title { fill: var(--ink); font-size: 13px; font-weight: 600; }
.initscope svg .tick { fill: var(--soft); font-size: 11px; } .initscope svg .axis { fill: none; stroke: var(--soft); }
.initscope svg .grid { stroke: var(--line); } .initscope svg .band { fill: var(--band); opacity: 0.16; }
.initscope svg .predicted { fill: none; stroke: var(--band); stroke-dasharray: 5 4; stroke-width: 1.5; }
.initscope svg .measured { fill: none; stroke: var(--measured); stroke-width: 1.8; }
.initscope svg .dot { fill: var(--measured); }
"""


def document(given: Report) -> str:
    """The whole page."""
    title = escape(f"initscope check: {given.description.model_class or 'model'}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        "<style>body { margin: 0; } .initscope { min-height: 100vh; box-sizing: border-box; }</style>"
        f"</head><body>{fragment(given)}</body></html>\n"
    )


def fragment(given: Report) -> str:
    """What stands in the page, with its style: a notebook shows this alone."""
    parts = [_heading(given), _findings(given), _charts(given), _table(given), _notes(given)]
    return f'<div class="initscope"><style>{_STYLE}</style><main>{"".join(parts)}</main></div>'


def _heading(given: Report) -> str:
    verdict = given.verdict.value
    return (
        f'<h1>initscope check: <span class="{verdict}">{verdict}</span> ({text.count(given)})</h1>'
        f'<p class="soft">{escape(text.summary(given))}</p>'
    )


def _findings(given: Report) -> str:
    return "".join(_finding(f) for f in given.findings)


def _finding(found: Finding) -> str:
    where = words.place(found)
    parts = [
        f"<h3>{escape(found.severity.value)}{escape(f' in {where}') if where else ''} · {escape(found.rule)}</h3>",
        f"<p>{escape(found.diagnosis)}</p>",
        f'<p class="soft">cause: {escape(found.cause.value)}</p>',
        f"<pre><code>{escape(found.remedy)}</code></pre>",
        *_consequences(found),
    ]
    return f'<article class="{found.severity.value}">{"".join(parts)}</article>'


def _consequences(found: Finding) -> Sequence[str]:
    if not found.consequences:
        return ()
    items = "".join(
        f"<li>{escape(f.rule)}{escape(f' in {words.place(f)}') if f.module_path else ''}: {escape(f.diagnosis)}</li>"
        for f in found.consequences
    )
    return (f"<details><summary>explains {len(found.consequences)} more</summary><ul>{items}</ul></details>",)


def _charts(given: Report) -> str:
    """Only rows with an output: the others have no place on the way of the signal."""
    rows = [r for r in given.layers if r.output_rms is not None or r.gradient_rms is not None]
    names = [r.full_name for r in rows]
    drawn = [
        drawing("Signal: rms of outputs", _points(names, rows, backward=False)),
        drawing("Gradient: rms at outputs", _points(names, rows, backward=True)),
        drawing("Signal: rms behind each block", _points([b.path for b in given.blocks], given.blocks, backward=False)),
        drawing(
            "Gradient: rms behind each block", _points([b.path for b in given.blocks], given.blocks, backward=True)
        ),
    ]
    if not any(drawn):
        return ""
    return (
        f'<h2>By depth</h2><div class="charts">{"".join(drawn)}</div><p class="soft">Solid: measured. Dashed: what '
        "these weights should give. Band: where a healthy start stays. Both only where theory has a word.</p>"
    )


def _points(names: Sequence[str], rows: Sequence[LayerRow | BlockRow], *, backward: bool) -> list[Point]:
    if backward:
        return [Point(name, r.gradient_rms, r.predicted_gradient_rms) for name, r in zip(names, rows, strict=True)]
    return [Point(name, r.output_rms, r.predicted_rms) for name, r in zip(names, rows, strict=True)]


def _table(given: Report) -> str:
    rows = given.layers
    if not rows:
        return ""
    columns = [c for c in text.COLUMNS if any(c.cell(r) for r in rows)]
    head = "".join(f'<th{_words(c)} title="{escape(c.meaning)}">{escape(c.title)}</th>' for c in columns)
    body = []
    for row, mark in zip(rows, text.marks_of(rows, given.findings), strict=True):
        cells = "".join(f"<td{_words(c)}>{escape(c.cell(row))}</td>" for c in columns)
        body.append(
            f'<tr class="{mark.value if mark else ""}"><td class="words">{escape(row.full_name)}</td>{cells}</tr>'
        )
    return (
        f'<h2>Layers</h2><div class="table"><table><thead><tr><th class="words">layer</th>{head}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div><p class="soft">{escape(text.legend(given))}</p>'
    )


def _words(column: text.Column) -> str:
    return ' class="words"' if column.is_text else ""


def _notes(given: Report) -> str:
    if not given.notes:
        return ""
    return f"<h2>Notes</h2>{''.join(f'<p>{escape(note)}</p>' for note in given.notes)}"
