from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from initscope.hooks.moments import TensorStats
from tests.support import seeds
from tests.support.collector import Collector, running_collector, stats


def get(collector: Collector, path: str = "compare", **query: object) -> dict:
    response = collector.http.get(f"/api/v1/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def refusal(collector: Collector, path: str, **query: object) -> tuple[int, str, str]:
    response = collector.http.get(f"/api/v1/{path}", params=query)
    error = response.json()["error"]
    return response.status_code, error["code"], error["field"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector for questions that are refused whatever the database; it has one run."""
    with running_collector(tmp_path_factory.mktemp("home")) as running:
        with running.database.write() as conn:
            seeds.add_mlp(conn, "fading", layers=2, steps=[0])
        yield running


@pytest.fixture
def pair(collector) -> tuple[seeds.Seeded, seeds.Seeded]:
    """A deep net whose signal halves at every layer beside one that keeps it."""
    with collector.database.write() as conn:
        fading = seeds.add_mlp(conn, "fading", layers=6, steps=[0, 1, 2, 10], gain=0.5)
        seeds.add_finding(conn, fading.run_no, "forward-drift", "critical", module_path="layers.3", kind="activation")
        steady = seeds.add_mlp(conn, "steady", layers=6, steps=[0, 1, 2, 5], gain=1.0)
        seeds.add_scalars(conn, steady.run_no, "accuracy", [(0, math.nan)])
    return fading, steady


def test_two_runs_lie_side_by_side_by_depth(collector, pair):
    answer = get(collector, run=[run.id for run in pair])
    fading, steady = answer["runs"]
    assert [(r["name"], r["step"], r["verdict"]) for r in (fading, steady)] == [
        ("fading", 0, "critical"),
        ("steady", 0, "ok"),
    ]
    assert [f["rule"] for f in fading["findings"]] == ["forward-drift"]
    outputs = [d for d in answer["differences"] if d["kind"] == "activation"]
    assert [d["module_path"] for d in outputs] == [f"layers.{i}" for i in range(6)]
    assert [d["octaves"] for d in outputs] == [pytest.approx(float(i)) for i in range(6)]
    assert [d["a"]["rms"] for d in outputs] == [pytest.approx(0.5**i) for i in range(6)]
    assert [d["b"]["std"] for d in outputs] == [pytest.approx(1.0)] * 6
    weights = [d for d in answer["differences"] if d["kind"] == "weight"]
    assert [(d["octaves"], d["parts"]) for d in weights] == [(pytest.approx(0.0), False)] * 6
    assert not answer["is_equal"]


def test_each_kind_says_where_the_runs_part_first_and_most(collector, pair):
    kinds = {k["kind"]: k for k in get(collector, run=[run.id for run in pair])["kinds"]}
    assert list(kinds) == ["weight", "gradient", "update", "activation", "activation_gradient"]
    assert (kinds["weight"]["compared"], kinds["weight"]["parted"], kinds["weight"]["first"]) == (6, 0, None)
    forward, backward = kinds["activation"], kinds["activation_gradient"]
    assert forward["largest"]["module_path"] == "layers.5"
    assert backward["largest"]["module_path"] == "layers.0"
    assert forward["median_octaves"] == pytest.approx(2.5)
    # The signal parts on its way from the input, the gradient on its way from the loss.
    assert forward["first"]["depth"] < backward["first"]["depth"]


def test_a_step_is_the_newest_that_both_had_by_then(collector, pair):
    answer = get(collector, run=[run.id for run in pair], step=7)
    assert [r["step"] for r in answer["runs"]] == [2, 5]
    assert [r["scalars"]["loss"] for r in answer["runs"]] == [pytest.approx(2.3 * math.exp(-s / 400)) for s in (2, 5)]
    assert get(collector, run=[run.id for run in pair])["runs"][1]["scalars"]["accuracy"] == "NaN"


def test_only_some_kinds_can_be_asked_for(collector, pair):
    answer = get(collector, run=[run.id for run in pair], kind=["update", "weight"])
    assert {d["kind"] for d in answer["differences"]} == {"weight", "update"}
    assert len(answer["differences"]) == 12


def test_of_many_differences_the_largest_are_shown_in_forward_order(collector, pair):
    answer = get(collector, run=[run.id for run in pair], kind="activation", limit=2)
    assert [d["module_path"] for d in answer["differences"]] == ["layers.4", "layers.5"]
    assert answer["left_out"] == 4


def test_a_tolerance_decides_what_is_equal(collector, pair):
    wide = get(collector, run=[run.id for run in pair], tolerance=12)
    assert wide["is_equal"]
    assert not any(d["parts"] for d in wide["differences"])
    assert get(collector, run=[pair[0].id] * 2, tolerance=0)["is_equal"]


def test_a_run_is_found_by_its_id_the_beginning_of_it_or_its_name(collector, pair):
    fading, steady = pair
    for reference in (fading.id, fading.id[:13], fading.id.upper()[:13], "fading"):
        assert get(collector, run=[reference, steady.id])["runs"][0]["id"] == fading.id


def test_a_name_of_several_runs_is_refused_and_their_ids_are_told(collector, pair):
    with collector.database.write() as conn:
        twin = seeds.add_mlp(conn, "steady", layers=1, steps=[0])
    response = collector.http.get("/api/v1/compare", params={"run": ["fading", "steady"]})
    assert response.status_code == 409
    error = response.json()["error"]
    assert (error["code"], error["field"]) == ("ambiguous", "run")
    assert twin.id in error["hint"]
    assert pair[1].id in error["hint"]


def test_a_run_without_records_is_compared_with_nothing(collector, pair):
    with collector.database.write() as conn:
        _, empty = seeds.add_run(conn, "empty")
    answer = get(collector, run=[pair[0].id, empty])
    assert (answer["runs"][1]["step"], answer["differences"], answer["kinds"]) == (None, [], [])
    assert answer["only_a"] == [f"layers.{i}" for i in range(6)]
    assert not answer["is_equal"]


def drawn(std: float) -> TensorStats:
    """The record of 4,096 numbers drawn from N(0, std²)."""
    return stats(count=4096, std=std, min=-3.9 * std, max=3.9 * std)


def test_the_schemes_of_both_are_told_at_any_step(collector):
    runs = []
    with collector.database.write() as conn:
        for std in (0.125, 2**0.5 / 8):
            run_no, run = seeds.add_run(conn, last_step=3)
            for depth in range(3):
                values = {"depth": depth, "activation_before": "relu" if depth else None}
                tensor = seeds.add_tensor(conn, run_no, f"l{depth}", "weight", "weight", **values)
                rows = [seeds.record_row(run_no, tensor, s, drawn(std * (1 + s))) for s in (0, 3)]
                seeds.add_records(conn, rows)
            runs.append(run)
    for step in (None, 3):
        answer = get(collector, run=runs, **({} if step is None else {"step": step}))
        assert [r["is_trained"] for r in answer["runs"]] == [False, False]
        assert [pair["module_path"] for pair in answer["schemes"]] == ["l0", "l1", "l2"]
        assert [pair["is_same"] for pair in answer["schemes"]] == [False] * 3
        first = answer["schemes"][1]
        assert (first["b"]["name"], first["b"]["formula"]) == ("he_normal", "√(2/fan_in)")
        assert first["a"]["std"] == pytest.approx(0.125)
    asked_without = get(collector, run=runs, schemes=False)
    assert asked_without["schemes"] == []
    assert asked_without["runs"][0]["scheme"] is None


def test_zeros_and_numbers_that_are_not_finite_have_a_difference(collector):
    runs = []
    with collector.database.write() as conn:
        for records in ((seeds.normal(0.0), seeds.normal(1.0)), (seeds.normal(1.0), seeds.normal(1.0, nan_count=4096))):
            run_no, run = seeds.add_run(conn, last_step=0)
            for depth, record in enumerate(records):
                tensor = seeds.add_tensor(conn, run_no, f"l{depth}", "output", "activation", depth=depth)
                seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, record)])
            runs.append(run)
    first, second = get(collector, run=runs)["differences"]
    assert (first["octaves"], first["parts"]) == ("Infinity", True)
    assert (second["octaves"], second["parts"], second["b"]["rms"]) == (None, True, None)
    assert second["b"]["nonfinite_count"] == 4096


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("compare", {}, (422, "invalid_field", "run")),
        ("compare", {"run": ["fading"]}, (422, "invalid_field", "run")),
        ("compare", {"run": ["fading"] * 3}, (422, "invalid_field", "run")),
        ("compare", {"run": ["x"] * 100}, (422, "invalid_field", "run")),
        ("compare", {"run": ["fading", "nobody"]}, (404, "not_found", "run")),
        ("compare", {"run": ["fading", "a\x00b"]}, (400, "bad_request", None)),
        ("compare", {"run": ["fading", "%"]}, (404, "not_found", "run")),
        ("compare", {"run": ["fading", ""]}, (422, "invalid_field", "run.1")),
        ("compare", {"run": ["fading"] * 2, "step": -1}, (422, "invalid_field", "step")),
        ("compare", {"run": ["fading"] * 2, "kind": "colour"}, (422, "invalid_field", "kind.0")),
        ("compare", {"run": ["fading"] * 2, "tolerance": "nan"}, (422, "invalid_field", "tolerance")),
        ("compare", {"run": ["fading"] * 2, "limit": 10**9}, (422, "invalid_field", "limit")),
        ("coordinate-check", {"run": ["fading"] * 2}, (422, "invalid_field", "run")),
        ("coordinate-check", {"run": ["fading"] * 17}, (422, "invalid_field", "run")),
        ("coordinate-check", {"run": ["fading"] * 3}, (422, "too_few_widths", "width")),
        ("coordinate-check", {"run": ["fading"] * 3, "width": [1, 2]}, (422, "invalid_field", "width")),
        ("coordinate-check", {"run": ["fading"] * 3, "width": [1, 2, "inf"]}, (422, "invalid_field", "width.2")),
        ("coordinate-check", {"run": ["fading"] * 3, "steps": "0,x"}, (422, "invalid_field", "steps")),
        ("coordinate-check", {"run": ["fading"] * 3, "steps": ""}, (422, "invalid_field", "steps")),
        (
            "coordinate-check",
            {"run": ["fading"] * 3, "steps": ",".join(map(str, range(40)))},
            (422, "invalid_field", "steps"),
        ),
        ("coordinate-check", {"run": ["fading", "fading", "nobody"]}, (404, "not_found", "run")),
    ],
)
def test_a_question_that_makes_no_sense_names_its_field(shared, path, query, expected):
    assert refusal(shared, path, **query) == expected


def add_width(conn, width: int, growth: float, **values) -> seeds.Seeded:
    """A run whose outputs are width^(growth · step) at steps 0 to 3."""
    run_no, run = seeds.add_run(conn, f"width {width}", last_step=3, **values)
    tensors = {}
    for depth in range(3):
        path = f"layers.{depth}"
        shape = [width, width if depth else 16]
        tensors[path, "weight", "weight"] = seeds.add_tensor(
            conn, run_no, path, "weight", "weight", depth=depth, shape=shape, fan_in=float(shape[1])
        )
        tensor = tensors[path, "output", "activation"] = seeds.add_tensor(
            conn, run_no, path, "output", "activation", depth=depth
        )
        rows = [
            seeds.record_row(run_no, tensor, s, seeds.normal(width ** (growth * s * (depth > 0)))) for s in range(4)
        ]
        seeds.add_records(conn, rows)
    return seeds.Seeded(run_no, run, tensors)


def test_the_coordinate_check_finds_what_grows_with_width_and_since_when(collector):
    with collector.database.write() as conn:
        runs = [add_width(conn, width, 0.4) for width in (512, 1024, 2048)]
    answer = get(collector, "coordinate-check", run=[run.id for run in runs])
    assert [r["width"] for r in answer["runs"]] == [512, 1024, 2048]
    assert not answer["is_stable"]
    first, second, third = answer["coordinates"]
    assert (first["grows_from"], second["grows_from"], third["grows_from"]) == (None, 1, 1)
    assert [s["slope"] for s in second["slopes"]] == [pytest.approx(0.4 * s, abs=1e-9) for s in range(4)]
    assert [s["step"] for s in second["slopes"]] == [0, 1, 2, 3]
    assert second["slopes"][1]["rms"] == [pytest.approx(w**0.4) for w in (512, 1024, 2048)]
    assert "layers.1 grows with width from step 1 on" in answer["diagnosis"]


def test_runs_whose_outputs_ignore_width_are_stable(collector):
    with collector.database.write() as conn:
        runs = [add_width(conn, width, 0.0) for width in (512, 1024, 2048)]
    answer = get(collector, "coordinate-check", run=[run.id for run in runs], steps="1,3")
    assert answer["is_stable"]
    assert [s["step"] for s in answer["coordinates"][2]["slopes"]] == [1, 3]


def test_widths_that_are_given_or_in_the_config_win_over_shapes(collector):
    with collector.database.write() as conn:
        runs = [add_width(conn, 64, 0.0, description={"config": {"d_model": width}}) for width in (512, 1024, 2048)]
    ids = [run.id for run in runs]
    assert [r["width"] for r in get(collector, "coordinate-check", run=ids)["runs"]] == [512, 1024, 2048]
    given = get(collector, "coordinate-check", run=ids, width=[1, 2, 4])
    assert [r["width"] for r in given["runs"]] == [1, 2, 4]


@pytest.mark.parametrize(("path", "copies", "most"), [("compare", 2, 12), ("coordinate-check", 3, 6)])
def test_the_number_of_queries_does_not_grow_with_the_model(embedded, path, copies, most):
    with embedded.database.write() as conn:
        runs = [seeds.add_mlp(conn, layers=12, steps=[0, 1]).id for _ in range(copies)]
    statements: list[str] = []

    def note(_conn, _cursor, statement, *_rest):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        get(embedded, path, run=runs, **({"width": [1, 2, 4]} if copies == 3 else {}))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert 0 < len([s for s in statements if any(t in s for t in ("tensor_stats", "tensors", "scalars"))]) <= most
