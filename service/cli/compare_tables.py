"""Comparisons as tables in the terminal. Names from training jobs are text, never markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from initscope.hooks.encoding import number_from_json

Json = Mapping[str, Any]
_COLUMNS: Final = {
    "weight": "weight",
    "activation": "output",
    "activation_gradient": "gradient of output",
    "gradient": "gradient",
    "update": "update",
}
_COLOURS: Final = {"critical": "bold red", "warning": "yellow", "info": "cyan", "ok": "green"}
_MOST_ROWS: Final = 200


def show_comparison(console: Console, found: Json, *, everything: bool) -> None:
    """Both runs, their findings, kinds, layers, and the conclusion."""
    console.print(_sides(found["runs"]))
    if any(side.get("findings") for side in found["runs"]):
        console.print(_findings(found["runs"]))
    if any(not pair["is_same"] for pair in found["schemes"]):
        console.print(_scheme_table([pair for pair in found["schemes"] if not pair["is_same"]][:_MOST_ROWS]))
    console.print(_kinds(found["kinds"]))
    rows = _layers(found["differences"], everything=everything)
    if rows:
        console.print(_layer_table(rows[:_MOST_ROWS]))
    if len(rows) > _MOST_ROWS or found["left_out"]:
        console.print(Text(f"{max(0, len(rows) - _MOST_ROWS) + found['left_out']} rows more by --json", style="dim"))
    for key, name in (("only_a", "A"), ("only_b", "B")):
        if found[key]:
            shown = ", ".join(path or "(model)" for path in found[key][:8])
            more = f" and {len(found[key]) - 8} more" if len(found[key]) > 8 else ""
            console.print(Text(f"only in {name}: {shown}{more}"))
    console.print(_conclusion(found))


def _sides(runs: Sequence[Json]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("", "run", "step", "verdict", "scheme", "logged at the step", "id"):
        table.add_column(heading, overflow="fold")
    for letter, side in zip("AB", runs, strict=True):
        verdict = side.get("verdict") or "–"
        scalars = ", ".join(f"{name} {number(value)}" for name, value in list(side["scalars"].items())[:4])
        step = "–" if side["step"] is None else f"{side['step']:,}"
        table.add_row(
            letter, Text(side["name"]), step, Text(verdict, style=_COLOURS.get(verdict, "")), _scheme(side),
            Text(scalars or "–"),
            Text(side["id"] or "–", style="dim"),
        )  # fmt: skip
    return table


def _findings(runs: Sequence[Json]) -> Table:
    table = Table(title="Findings", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for letter in "AB":
        table.add_column(letter, ratio=1, overflow="fold")
    for pair in zip_longest(*(side["findings"] for side in runs)):
        table.add_row(*(_finding(finding) for finding in pair))
    return table


def _finding(finding: Json | None) -> Text:
    if finding is None:
        return Text()
    where = f" at {finding['module_path']}" if finding["module_path"] else ""
    line = Text(finding["severity"], style=_COLOURS.get(finding["severity"], ""))
    return line.append(f" {finding['rule']}{where}, step {finding['step']:,}", style="default")


def _scheme(side: Json) -> Text:
    name = "trained" if side["is_trained"] else side["scheme"] or "mixed"
    return Text(name if side["is_trained"] is not None else "–")


def _scheme_table(pairs: Sequence[Json]) -> Table:
    table = Table(title="Schemes that differ", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("layer", "A", "B"):
        table.add_column(heading, overflow="fold")
    for pair in pairs:
        shown = [f"{pair[side]['name']}  {pair[side]['formula']}".rstrip() for side in "ab"]
        table.add_row(Text(_name(pair)), *map(Text, shown))
    return table


def _kinds(kinds: Sequence[Json]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("rms of", "part", "median", "they part first at", "largest difference"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("part", "median") else "left")
    for kind in kinds:
        first = kind["first"]
        table.add_row(
            _COLUMNS[kind["kind"]], f"{kind['parted']} of {kind['compared']}", octaves(kind["median_octaves"]),
            _place(first) if first else Text("nowhere", style="green"), _place(kind["largest"]),
        )  # fmt: skip
    return table


def _place(difference: Json) -> Text:
    return Text(f"{_name(difference)}  ").append_text(_delta(difference))


def _name(difference: Json) -> str:
    path = difference["module_path"] or "(model)"
    name = "" if difference["name"] in ("weight", "output") else f" {difference['name']}"
    other = difference["module_path_b"]
    return f"{path}{name}" if other == difference["module_path"] else f"{path}{name} = {other or '(model)'}"


def _layers(differences: Sequence[Json], *, everything: bool) -> list[tuple[str, dict[str, Json]]]:
    """Rows (layer, differences by kind), in forward order; without `everything` those where something parts."""
    rows: dict[str, dict[str, Json]] = {}
    for difference in differences:
        rows.setdefault(_name(difference), {})[difference["kind"]] = difference
    return [(name, kinds) for name, kinds in rows.items() if everything or any(d["parts"] for d in kinds.values())]


def _layer_table(rows: Sequence[tuple[str, dict[str, Json]]]) -> Table:
    shown = [kind for kind in _COLUMNS if any(kind in kinds for _, kinds in rows)]
    table = Table(
        title="rms of A → B, and octaves between", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("layer", overflow="fold")
    for kind in shown:
        table.add_column(_COLUMNS[kind], overflow="fold")
    for name, kinds in rows:
        table.add_row(Text(name), *(_cell(kinds.get(kind)) for kind in shown))
    return table


def _cell(difference: Json | None) -> Text:
    if difference is None:
        return Text("–", style="dim")
    values = [_value(difference[side]) for side in "ab"]
    return Text(f"{values[0]} → {values[1]}  ").append_text(_delta(difference))


def _value(record: Json | None) -> str:
    if record is None:
        return "–"
    return f"{number(record['rms'])}{' ×' if record['nonfinite_count'] else ''}"


def _delta(difference: Json) -> Text:
    if difference["octaves"] is None and difference["parts"]:
        return Text("not finite in one", style="bold magenta")
    return Text(octaves(difference["octaves"]), style="bold red" if difference["parts"] else "dim")


def _conclusion(found: Json) -> Text:
    if found["is_equal"]:
        return Text(f"equal within {found['threshold']:g} octaves of rms and the luck of seeds", style="green")
    firsts = [kind for kind in found["kinds"] if kind["first"]]
    if not firsts:
        return Text("the models differ: layers have no counterpart", style="bold red")
    where = "; ".join(f"{_COLUMNS[kind['kind']]} from {_name(kind['first'])}" for kind in firsts)
    return Text(f"they differ: {where}", style="bold red")


def show_coordinates(console: Console, found: Json, *, everything: bool) -> None:
    """Slopes by activation and step, and the conclusion."""
    runs = ", ".join(f"{run['name']} ({run['width']:g})" for run in found["runs"])
    console.print(Text(f"widths: {runs}"))
    steps = sorted({slope["step"] for c in found["coordinates"] for slope in c["slopes"]})
    table = Table(
        title="Slope of log2 rms against log2 width", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("activation", overflow="fold")
    for step in steps:
        table.add_column(f"step {step:,}", justify="right")
    shown = [c for c in found["coordinates"] if everything or c["grows_from"] is not None or len(steps) == 0]
    for coordinate in shown or found["coordinates"]:
        slopes = {slope["step"]: slope for slope in coordinate["slopes"]}
        name = coordinate["module_path"] or "(model)"
        suffix = "" if coordinate["name"] == "output" else f" {coordinate['name']}"
        table.add_row(Text(name + suffix), *(_slope(slopes.get(step)) for step in steps))
    console.print(table)
    if len(shown or found["coordinates"]) < len(found["coordinates"]):
        console.print(Text("the others do not grow; --all shows them", style="dim"))
    console.print(Text(found["diagnosis"], style="green" if found["is_stable"] else "bold red"))


def _slope(slope: Json | None) -> Text:
    if slope is None:
        return Text("–", style="dim")
    return Text(f"{slope['slope']:+.2f} ± {slope['error']:.2f}", style="bold red" if slope["grows"] else "")


def octaves(value: Any) -> str:
    """+1.25; a word where there is no number."""
    x = number_from_json(value)
    if x is None:
        return "–"
    if math.isinf(x):
        return "from zero" if x > 0 else "to zero"
    return f"{x:+.2f}"


def number(value: Any) -> str:
    """Three significant digits; – for none."""
    x = number_from_json(value)
    return "–" if x is None else f"{x:.3g}"
