from __future__ import annotations

import math

import pytest
from sqlalchemy import event

from initscope.hooks.vocabulary import Statistic
from tests.support import seeds
from tests.support.collector import Collector


def get(collector: Collector, run: seeds.Seeded, path: str, **query: object) -> dict:
    response = collector.http.get(f"/api/v1/runs/{run.id}/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def mlp(collector) -> seeds.Seeded:
    with collector.database.write() as conn:
        return seeds.add_mlp(conn, layers=6, steps=[0, 1, 2, 10, 20], gain=0.5)


def test_tensors_come_in_forward_order_and_can_be_asked_for_by_kind(collector, mlp):
    everything = get(collector, mlp, "tensors")["tensors"]
    assert len(everything) == 30
    outputs = get(collector, mlp, "tensors", kind="activation")["tensors"]
    assert [t["module_path"] for t in outputs] == [f"layers.{i}" for i in range(6)]
    assert outputs[2]["tensor_no"] == mlp.tensors["layers.2", "output", "activation"]
    assert (outputs[0]["shape"], outputs[0]["role"], outputs[0]["trainable"]) == ([64, 64], "hidden", True)


def test_a_tensor_tells_its_traits(collector):
    with collector.database.write() as conn:
        run_no, run_id = seeds.add_run(conn)
        seeds.add_tensor(conn, run_no, "fc", "weight", "weight", traits={"row_spread": 0.1, "digest": "ab"})
    (tensor,) = get(collector, seeds.Seeded(run_no, run_id, {}), "tensors")["tensors"]
    assert tensor["traits"]["row_spread"] == pytest.approx(0.1)
    assert tensor["traits"]["digest"] == "ab"
    assert tensor["traits"]["column_cosine"] is None


def test_a_curve_holds_every_record_of_a_tensor(collector, mlp):
    tensor = mlp.tensors["layers.1", "output", "activation"]
    rms, kurtosis = get(collector, mlp, "stats/series", tensor=tensor, statistic="rms,kurtosis")["series"]
    assert (rms["module_path"], rms["statistic"], rms["steps"]) == ("layers.1", "rms", [0, 1, 2, 10, 20])
    assert rms["values"] == [pytest.approx(0.5 * (1 + 0.002 * s)) for s in (0, 1, 2, 10, 20)]
    assert rms["nonfinite"] == [0] * 5
    assert kurtosis["values"] == [pytest.approx(3.0)] * 5


def test_a_curve_can_be_cut_by_steps(collector, mlp):
    tensor = mlp.tensors["layers.1", "weight", "weight"]
    (curve,) = get(collector, mlp, "stats/series", tensor=tensor, from_step=1, to_step=10)["series"]
    assert curve["steps"] == [1, 2, 10]


def test_several_tensors_come_in_the_order_that_was_asked_for(collector, mlp):
    wanted = [mlp.tensors[f"layers.{i}", "output", "activation"] for i in (4, 0, 2)]
    assert [c["tensor_no"] for c in get(collector, mlp, "stats/series", tensor=wanted)["series"]] == wanted


def test_a_long_curve_is_thinned_and_says_so(collector):
    with collector.database.write() as conn:
        run = seeds.add_mlp(conn, layers=1, steps=range(400))
        tensor = run.tensors["layers.0", "weight", "weight"]
        bad = seeds.normal(1.0, nan_count=5)
        seeds.add_records(conn, [seeds.record_row(run.run_no, tensor, 400, bad)])
    (curve,) = get(collector, run, "stats/series", tensor=tensor, max_points=40)["series"]
    assert len(curve["steps"]) <= 40
    assert curve["total_points"] == 401
    assert (curve["steps"][-1], curve["nonfinite"][-1], sum(curve["nonfinite"])) == (400, 5, 5)


def test_a_profile_has_every_statistic_of_each_tensor_and_what_theory_expects(collector, mlp):
    profile = get(collector, mlp, "stats/profile", step=15, kind=["activation", "activation_gradient"])
    assert profile["step"] == 10
    outputs = [t for t in profile["tensors"] if t["kind"] == "activation"]
    assert [t["module_path"] for t in outputs] == [f"layers.{i}" for i in range(6)]
    assert set(outputs[0]["statistics"]) == {s.value for s in Statistic}
    assert [t["statistics"]["rms"] for t in outputs] == [pytest.approx(1.02 * 0.5**d) for d in range(6)]
    assert outputs[0]["statistics"]["dead_fraction"] is None
    last = outputs[-1]
    # Halved five times, it has left the band of a healthy start, which stays where the signal began.
    assert last["expected"]["low"] > last["statistics"]["rms"]
    assert last["expected"]["low"] * last["expected"]["high"] == pytest.approx(1.02**2)


def test_a_profile_of_weights_only_is_as_short_as_that(collector, mlp):
    profile = get(collector, mlp, "stats/profile", kind="weight", statistic="rms,zero_fraction")
    assert profile["step"] == 20
    assert [t["statistics"] for t in profile["tensors"]] == [{"rms": pytest.approx(0.125), "zero_fraction": 0.0}] * 6


def test_a_grid_of_a_small_run_shows_each_record(collector, mlp):
    grid = get(collector, mlp, "stats/grid", kind="activation")
    assert grid["steps"] == [[s, s] for s in (0, 1, 2, 10, 20)]
    assert [[t["module_path"] for t in row] for row in grid["rows"]] == [[f"layers.{i}"] for i in range(6)]
    assert grid["high"] == [[pytest.approx(0.5**d * (1 + 0.002 * s)) for s in (0, 1, 2, 10, 20)] for d in range(6)]
    assert (grid["low"], grid["nonfinite"]) == (None, [])


def test_a_binned_grid_shows_the_lowest_and_the_highest(collector, mlp):
    grid = get(collector, mlp, "stats/grid", kind="activation", max_rows=2, max_steps=1)
    assert [len(row) for row in grid["rows"]] == [3, 3]
    assert grid["steps"] == [[0, 20]]
    assert grid["low"] == [[pytest.approx(0.25)], [pytest.approx(0.5**5)]]
    assert grid["high"] == [[pytest.approx(1.04)], [pytest.approx(1.04 * 0.5**3)]]


def test_values_that_are_not_finite_are_counted_and_absent_ones_are_null(collector):
    with collector.database.write() as conn:
        run_no, run_id = seeds.add_run(conn)
        tensor = seeds.add_tensor(conn, run_no, "fc", "output", "activation", depth=0)
        good, gone = seeds.normal(2.0, posinf_count=1), seeds.normal(2.0, count=64, nan_count=64)
        seeds.add_records(conn, [seeds.record_row(run_no, tensor, s, x) for s, x in enumerate((good, gone))])
        run = seeds.Seeded(run_no, run_id, {})
    (curve,) = get(collector, run, "stats/series", tensor=tensor)["series"]
    assert (curve["values"], curve["nonfinite"]) == ([pytest.approx(2.0), None], [1, 64])
    statistics = get(collector, run, "stats/profile")["tensors"][0]["statistics"]
    assert (statistics["rms"], statistics["mean"], statistics["nan_count"], statistics["count"]) == (None, None, 64, 64)
    grid = get(collector, run, "stats/grid")
    assert (grid["high"], grid["nonfinite"]) == ([[pytest.approx(2.0), None]], [[0, 0, 1], [0, 1, 64]])


def test_logged_numbers_keep_nan_and_infinities_as_words(collector):
    with collector.database.write() as conn:
        run_no, run_id = seeds.add_run(conn)
        seeds.add_scalars(conn, run_no, "loss", [(0, 2.5), (1, math.inf), (2, -math.inf), (3, math.nan)])
        seeds.add_scalars(conn, run_no, "acc", [(0, 0.1)])
    acc, loss = get(collector, seeds.Seeded(run_no, run_id, {}), "scalars")["scalars"]
    assert acc == {"name": "acc", "steps": [0], "values": [0.1], "total_points": 1}
    assert loss["values"] == [2.5, "Infinity", "-Infinity", "NaN"]


def test_a_thinned_scalar_still_shows_where_it_became_nan(collector):
    with collector.database.write() as conn:
        run_no, run_id = seeds.add_run(conn)
        points = [(s, math.nan if s == 777 else 1.0 / (s + 1)) for s in range(1000)]
        seeds.add_scalars(conn, run_no, "loss", points)
    (loss,) = get(collector, seeds.Seeded(run_no, run_id, {}), "scalars", max_points=20)["scalars"]
    assert len(loss["steps"]) <= 20
    assert loss["values"][loss["steps"].index(777)] == "NaN"


def test_the_newest_attempt_is_shown_unless_another_is_asked_for(collector):
    with collector.database.write() as conn:
        run_no, run_id = seeds.add_run(conn, attempt=1)
        tensor = seeds.add_tensor(conn, run_no, "fc", "weight", "weight", depth=0)
        seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, seeds.normal(1.0 + a), a) for a in (0, 1)])
    run = seeds.Seeded(run_no, run_id, {})
    values = [
        get(collector, run, "stats/series", tensor=tensor, **query)["series"][0]["values"]
        for query in ({}, {"attempt": 0})
    ]
    assert values == [[pytest.approx(2.0)], [pytest.approx(1.0)]]
    beyond = collector.http.get(f"/api/v1/runs/{run_id}/stats/grid", params={"attempt": 2})
    assert (beyond.status_code, beyond.json()["error"]["field"]) == (404, "attempt")


def test_a_run_without_rows_has_empty_charts(collector):
    with collector.database.write() as conn:
        run = seeds.Seeded(*seeds.add_run(conn), {})
    assert get(collector, run, "stats/profile") == {"attempt": 0, "step": None, "tensors": []}
    assert get(collector, run, "stats/grid")["rows"] == []
    assert get(collector, run, "scalars")["scalars"] == []


@pytest.mark.parametrize(
    ("path", "field", "status"),
    [
        ("stats/series", "tensor", 422),
        ("stats/series?tensor=-1", "tensor.0", 422),
        ("stats/series?tensor=1&statistic=loudness", "statistic", 422),
        ("stats/series?tensor=1&max_points=1", "max_points", 422),
        ("stats/series?tensor=987654", "tensor", 404),
        ("stats/profile?kind=colour", "kind.0", 422),
        ("stats/profile?step=-1", "step", 422),
        ("stats/grid?statistic=loudness", "statistic", 422),
        ("stats/grid?max_rows=0", "max_rows", 422),
        ("stats/grid?attempt=1e3", "attempt", 422),
    ],
)
def test_a_question_that_makes_no_sense_names_its_field(embedded, path, field, status):
    with embedded.database.write() as conn:
        _, run = seeds.add_run(conn)
    response = embedded.http.get(f"/api/v1/runs/{run}/{path}")
    assert (response.status_code, response.json()["error"]["field"]) == (status, field)


def test_a_tensor_of_another_run_is_not_shown(collector, mlp):
    with collector.database.write() as conn:
        other = seeds.add_mlp(conn, layers=1, steps=[0])
    foreign = other.tensors["layers.0", "weight", "weight"]
    response = collector.http.get(f"/api/v1/runs/{mlp.id}/stats/series", params={"tensor": foreign})
    assert response.status_code == 404


@pytest.mark.parametrize(
    ("path", "most"),
    [("stats/profile", 6), ("stats/grid", 6), ("scalars", 4), ("findings", 4), ("tensors", 4)],
)
def test_the_number_of_queries_does_not_grow_with_the_model(embedded, path, most):
    with embedded.database.write() as conn:
        run = seeds.add_mlp(conn, layers=12, steps=[0, 1])
    statements: list[str] = []
    from sqlalchemy.engine import Engine

    def note(_conn, _cursor, statement, *_rest):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        get(embedded, run, path)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len([s for s in statements if "tensor_stats" in s or "tensors" in s or "scalars" in s]) <= most


def test_weights_come_with_the_scheme_that_they_were_drawn_by(collector, mlp):
    everything = get(collector, mlp, "tensors")["tensors"]
    weights = [t for t in everything if t["kind"] == "weight"]
    assert len(weights) == 6
    profile = get(collector, mlp, "stats/profile", kind="weight", step=0, statistic="std")["tensors"]
    assert [t["scheme"]["std"] for t in weights] == [pytest.approx(t["statistics"]["std"]) for t in profile]
    assert {t["scheme"] is None for t in everything if t["kind"] != "weight"} == {True}
    scheme = weights[0]["scheme"]
    assert {"name", "formula", "confidence", "std", "expected_std", "alternatives"} < scheme.keys()
    assert 0.0 <= scheme["confidence"] <= 1.0
    assert get(collector, mlp, "tensors", kind="weight")["tensors"] == weights
