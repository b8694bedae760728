from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from initscope.hooks import vocabulary as v
from initscope.hooks.moments import ABSENT, ChannelStats, Moments, TensorStats
from initscope.hooks.wire import COLUMNS, FLOAT_COLUMNS, Header, Records, RunKey, SessionKey, TensorInfo, tensor_key
from tests.support.batches import example, records
from tests.support.twins import moments_of


def validate(kind: Any, /, **values: Any) -> Any:
    return TypeAdapter(kind).validate_python(values)


RUN = {"run_id": "job-7"}
SESSION = {"session_id": "0" * 32}
TENSOR = {"key": 1, "module_path": "fc", "name": "weight", "kind": "weight"}


@pytest.mark.parametrize(
    ("kind", "good", "field", "bad"),
    [
        (RunKey, RUN, "run_id", ""),
        (RunKey, RUN, "run_id", "x" * (v.MAX_NAME + 1)),
        (RunKey, RUN, "run_id", "a\x00b"),
        (RunKey, RUN, "name", "a\nb"),
        (RunKey, RUN, "project", "\ud800"),
        (RunKey, RUN, "attempt", -1),
        (SessionKey, SESSION, "session_id", "0" * 31),
        (SessionKey, SESSION, "session_id", "G" * 32),
        (SessionKey, SESSION, "rank", v.MAX_RANKS),
        (SessionKey, SESSION, "world_size", 0),
        (TensorInfo, TENSOR, "key", 2**53),
        (TensorInfo, TENSOR, "kind", "wait"),
        (TensorInfo, TENSOR, "role", "boss"),
        (TensorInfo, TENSOR, "name", ""),
        (TensorInfo, TENSOR, "module_path", "x" * (v.MAX_MODULE_PATH + 1)),
        (TensorInfo, TENSOR, "shape", [-1]),
        (TensorInfo, TENSOR, "depth", -1),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_name(kind: Any, good: dict[str, Any], field: str, bad: Any) -> None:
    validate(kind, **good)
    with pytest.raises(ValidationError) as caught:
        validate(kind, **{**good, field: bad})
    assert caught.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize("field", ["sequence", "last_step"])
def test_negative_positions_of_a_batch_are_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        validate(Header, **{"run": RUN, "session": SESSION, "sequence": 0, field: -1})


def test_the_root_module_has_an_empty_path() -> None:
    assert validate(TensorInfo, **{**TENSOR, "module_path": ""}).module_path == ""


def test_a_field_of_a_later_version_does_not_hurt() -> None:
    assert validate(RunKey, **RUN, colour="red") == RunKey(run_id="job-7")


def test_tensor_keys_are_the_same_in_every_process_and_fit_their_bound() -> None:
    """All ranks must agree without talking, today and in ten years: the number is part of the wire."""
    assert tensor_key("blocks.0.fc", "weight", v.Kind.WEIGHT) == 3222160069598722
    paths = [f"blocks.{i}.fc" for i in range(2000)]
    keys = {tensor_key(path, "weight", kind) for path in paths for kind in v.Kind}
    assert len(keys) == len(paths) * len(v.Kind)
    assert all(0 <= key <= v.MAX_TENSOR_KEY for key in keys)


def test_a_tensor_key_does_not_confuse_path_and_name() -> None:
    assert tensor_key("a.b", "c", v.Kind.WEIGHT) != tensor_key("a", "b.c", v.Kind.WEIGHT)


values = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=20)


@given(values, st.floats(0, 1) | st.just(ABSENT))
def test_a_record_read_back_is_the_record_up_to_float32(elements: list[float], share: float) -> None:
    twin, table = moments_of(elements), Records.empty()
    table.append(5, 7, TensorStats(twin, ChannelStats(signal_fraction=share)))
    key, step, read = table.row(0)
    assert (key, step, len(table)) == (5, 7, 1)
    assert read.channels.signal_fraction == pytest.approx(share, rel=1e-6, abs=1e-40, nan_ok=True)
    got = read.moments
    assert (got.count, got.nonfinite_count, got.zero_count) == (twin.count, twin.nonfinite_count, twin.zero_count)
    for name in ("mean", "std", "min", "max"):
        assert getattr(got, name) == pytest.approx(getattr(twin, name), rel=1e-6, abs=1e-40, nan_ok=True), name


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e15, 3e37])
def test_the_shape_of_tiny_and_huge_tensors_survives_float32(scale: float) -> None:
    """The fourth power of 1e-12 is no float32; the kurtosis is."""
    import random

    rng, table = random.Random(5), Records.empty()
    twin = moments_of([rng.gauss(0.1, 1.0) * scale for _ in range(200)])
    table.append(1, 0, TensorStats(twin))
    read = table.row(0)[2].moments
    for name in ("mean", "rms", "std", "skewness", "kurtosis", "norm"):
        assert getattr(read, name) == pytest.approx(getattr(twin, name), rel=1e-5), name


@given(records)
def test_any_row_can_be_read_without_an_error(table: Records) -> None:
    for index in range(len(table)):
        table.row(index)


def test_a_path_that_is_no_valid_text_has_a_key_too() -> None:
    assert tensor_key("\ud800", "weight", v.Kind.WEIGHT) != tensor_key("a", "weight", v.Kind.WEIGHT)


def test_columns_are_the_fields_of_a_record_in_a_fixed_order() -> None:
    assert tuple(Records.empty().columns) == COLUMNS
    assert COLUMNS[:7] == ("tensor", "step", "count", "nan_count", "posinf_count", "neginf_count", "zero_count")
    assert FLOAT_COLUMNS[6:] == tuple(ChannelStats.__dataclass_fields__)


def test_a_record_of_no_element_is_a_record() -> None:
    table = Records.empty()
    table.append(1, 0, TensorStats(Moments()))
    assert math.isnan(table.row(0)[2].moments.mean)


def test_the_example_of_the_tests_shows_every_field_that_is_no_default() -> None:
    """Golden bodies are made from it: a new field of the wire must appear in it."""
    header = example().header
    blank = replace(header, description=None, tensors=[], scalars=[], status=None, books=None, last_step=None)
    for field in ("description", "tensors", "scalars", "status", "books", "last_step"):
        assert getattr(header, field) != getattr(blank, field)
