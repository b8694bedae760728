"""A report's faces: text that fits a terminal, JSON that any reader takes, a page that needs nothing else."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from initscope.hooks.report import LayerRow, Report
from initscope.hooks.report.chart import Point, drawing
from initscope.hooks.report.text import shortened
from initscope.hooks.rules import Finding
from initscope.hooks.theory import Expected
from initscope.hooks.vocabulary import Cause, Kind, Role, Severity, Verdict
from initscope.hooks.wire import RunDescription

EVIL = '<img src=x onerror="alert(1)">&"\''


def finding(severity: Severity = Severity.WARNING, path: str | None = "body.2", **values: object) -> Finding:
    given = {
        "rule": "weight-scale", "cause": Cause.TOO_SMALL_VANISH, "step": 0, "tensor_name": "weight",
        "kind": Kind.WEIGHT, "diagnosis": "The weights are too small.", "remedy": "nn.init.ones_(model.body[2].weight)",
        "evidence": {"std": math.inf, "scheme": "odd"}, **values,
    }  # fmt: skip
    return Finding(severity=severity, module_path=path, **given)  # type: ignore[arg-type]


def row(path: str = "body.2", **values: object) -> LayerRow:
    given = {
        "name": "weight", "module_type": "Linear", "role": Role.HIDDEN, "shape": (64, 64), "depth": 2, "std": 0.0123456,
        "expected_std": 0.125, "octaves": -3.34, "forward_gain": 0.14, "expected_forward_gain": 1.0, "output_rms": 0.2,
        "gradient_rms": 1e-9, "predicted_rms": Expected(1.0, 0.1, 0.5, 2.0), "signal_fraction": 0.25, **values,
    }  # fmt: skip
    return LayerRow(path=path, **given)  # type: ignore[arg-type]


def report(*findings: Finding, rows: tuple[LayerRow, ...] = (row(),), **values: object) -> Report:
    description = RunDescription(model_class="Net", parameter_count=4096, loss="cross_entropy", output_classes=10)
    given = {"loss": 2.5, "has_forward": True, "has_backward": True, "description": description, **values}
    return Report(findings=findings, layers=rows, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("severities", "verdict", "code"),
    [
        ([], Verdict.OK, 0),
        ([Severity.INFO], Verdict.OK, 0),
        ([Severity.INFO, Severity.WARNING], Verdict.WARNING, 1),
        ([Severity.WARNING, Severity.CRITICAL], Verdict.CRITICAL, 2),
    ],
)
def test_the_exit_code_is_the_worst_finding_infos_left_out(severities, verdict, code) -> None:
    given = report(*(finding(s) for s in severities))
    assert (given.verdict, given.exit_code) == (verdict, code)


def test_text_says_verdict_numbers_and_remedy_and_marks_the_layer() -> None:
    text = str(report(finding(Severity.CRITICAL), rows=(row("body.0"), row()), notes=("something was not measured",)))
    lines = text.splitlines()
    assert lines[0] == "initscope check: CRITICAL (1 critical)"
    assert lines[1] == "Net, 4,096 parameters, first loss 2.5 (a uniform guess has 2.303)"
    marked = [line for line in lines if line.startswith("!!")]
    assert [line.split()[1:6] for line in marked] == [["body.2", "64×64", "0.0123", "0.125", "-3.3"]]
    assert "CRITICAL in body.2.weight (weight-scale)" in lines
    assert "  change   nn.init.ones_(model.body[2].weight)" in lines
    assert lines[-1] == "note: something was not measured"


@pytest.mark.parametrize("length", [3, 30, 400])
def test_the_table_fits_a_terminal_and_names_keep_both_ends(length: int) -> None:
    path = "encoder." + "x" * length + ".weight_at_the_end"
    rows = tuple(
        row(f"{path}{i}", scheme="kaiming_normal fan_out", shape=(51200, 1024, 3, 3), dead_fraction=0.5,
            saturated_fraction=1.0, backward_gain=-1.23e-12, std=1.23e-12, expected_std=1.23e-12, output_rms=1.23e30)
        for i in range(3)
    )  # fmt: skip
    table = [line for line in str(report(rows=rows)).splitlines() if "encoder" in line or line.startswith("layer")]
    assert len(table) == 4
    assert max(map(len, table)) <= 110
    assert all(re.match(r"encoder\S*[0-2] ", line) for line in table[1:])


def test_a_name_is_shortened_in_its_middle() -> None:
    assert shortened("transformer.h.11.mlp.c_proj", 15) == "transfo….c_proj"
    assert shortened("short", 15) == "short"


def test_columns_without_any_number_are_left_out() -> None:
    bare = row(forward_gain=None, expected_forward_gain=None, output_rms=None, predicted_rms=None, signal_fraction=None)
    head = next(line for line in str(report(rows=(bare,))).splitlines() if line.startswith("layer"))
    assert head.split() == ["layer", "shape", "std", "expected", "oct"]


def test_a_finding_on_a_bias_or_an_output_is_shown_at_the_modules_first_row() -> None:
    rows = (row("cell", name="weight_ih_l0"), row("cell", name="weight_hh_l0"), row("head"))
    for about in ({"tensor_name": "bias_hh_l0"}, {"tensor_name": "output", "kind": Kind.ACTIVATION}):
        lines = str(report(finding(path="cell", **about), rows=rows)).splitlines()
        assert [line.split()[1] for line in lines if line.startswith("! ")] == ["cell.weight_ih_l0"]
    lines = str(report(finding(path="cell", tensor_name="weight_hh_l0"), rows=rows)).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("! ")] == ["cell.weight_hh_l0"]


def test_json_is_plain_and_non_finite_numbers_are_text() -> None:
    given = report(
        finding(consequences=(finding(path="body.4"),)), rows=(row(std=None, nonfinite_count=9),), loss=math.nan
    )
    data = json.loads(json.dumps(given.to_json(), allow_nan=False))
    assert (data["verdict"], data["exit_code"], data["loss"]) == ("warning", 1, "NaN")
    assert data["findings"][0]["evidence"] == {"std": "Infinity", "scheme": "odd"}
    assert data["findings"][0]["consequences"][0]["module_path"] == "body.4"
    assert data["layers"][0]["std"] is None
    assert data["layers"][0]["nonfinite_count"] == 9
    assert data["layers"][0]["predicted_rms"] == {"predicted": 1.0, "tolerance": 0.1, "low": 0.5, "high": 2.0}
    assert data["layers"][0]["role"] == "hidden"


class Page(HTMLParser):
    """Tags of a page, and whether each is closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_page_asks_for_nothing_and_runs_nothing() -> None:
    text = report(finding(), rows=(row("a"), row("b"))).to_html()
    page = Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"} == set()
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "href", "onclick", "onload"))
    assert not re.search(r"url\(|@import|https?:", text)
    assert sum(tag == "svg" for tag, _ in page.tags) == 2


def test_every_word_of_the_model_is_escaped() -> None:
    found = finding(
        path=EVIL, tensor_name=EVIL, diagnosis=EVIL, remedy=EVIL, rule=EVIL, consequences=(finding(path=EVIL),)
    )
    rows = (row(EVIL, scheme=EVIL), row(EVIL, name=EVIL))
    page = Page(report(found, rows=rows, notes=(EVIL,), description=RunDescription(model_class=EVIL)).to_html())
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.words.count(EVIL) >= 10


def test_a_notebook_gets_the_page_without_its_frame() -> None:
    given = report(finding())
    shown = given._repr_html_()
    assert shown.startswith('<div class="initscope">')
    assert shown in given.to_html()
    assert repr(given) == "<Report: warning (1 warning), 1 rows; print it>"


def test_a_drawing_shows_each_measured_layer_and_each_run_of_predictions() -> None:
    points = [
        Point("a", 1.0, Expected(1.0, 0.1, 0.5, 2.0)), Point("b", 0.25, Expected(1.0, 0.1, 0.4, 2.5)),
        Point("c", None, None),
        Point("d", 4.0, Expected(2.0, 0.1, None, None)), Point("e", 0.0, None),
    ]  # fmt: skip
    svg = drawing("rms", points)
    assert svg.count("<circle") == 3  # zero has no place on a scale of octaves
    assert svg.count('class="band"') == 1
    assert svg.count('class="predicted"') == 2
    assert "b: 0.25, predicted 1, healthy 0.4 to 2.5" in svg
    assert "d: 4, predicted 2<" in svg
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert heights[2] < heights[0] < heights[1]
    assert heights[1] - heights[0] == pytest.approx(heights[0] - heights[2], abs=0.2)  # two octaves each


def test_nothing_is_drawn_of_less_than_two_layers() -> None:
    assert drawing("rms", [Point("a", 1.0, None), Point("b", None, None)]) == ""
    assert "<svg" not in report(rows=(row(output_rms=None, gradient_rms=None),)).to_html()


def test_extreme_numbers_stay_inside_the_drawing() -> None:
    svg = drawing(
        "rms", [Point("a", 1e-300, None), Point("b", 1e300, Expected(1.0, 0.1, 0.0, math.inf)), Point("c", 1.0, None)]
    )
    for x, y in re.findall(r'c[x]="([^"]+)" cy="([^"]+)"', svg):
        assert 0 <= float(x) <= 460
        assert 0 <= float(y) <= 230
    assert not re.search(r'="[^"]*(nan|inf)', svg)


def test_a_real_report_of_weights_alone_has_a_page() -> None:
    from initscope.hooks import check

    text = check(torch.nn.Linear(3, 3)).to_html()
    assert "weights alone" in text
