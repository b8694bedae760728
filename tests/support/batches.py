"""Batches of the wire for tests: one that shows every field, and hypothesis strategies for all others."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from initscope.hooks import vocabulary as v
from initscope.hooks.moments import ChannelStats, TensorStats, from_standardized
from initscope.hooks.wire import (
    COLUMNS,
    Batch,
    Books,
    Header,
    OptimizerInfo,
    Records,
    RunDescription,
    RunKey,
    Scalar,
    SessionKey,
    TensorInfo,
    tensor_key,
)


def example() -> Batch:
    """A batch with every field given and non-finite numbers wherever one may stand."""
    path, name, kind = "blocks.0.fc", "weight", v.Kind.WEIGHT
    key = tensor_key(path, name, kind)
    header = Header(
        run=RunKey(run_id="job-7", project="vision", name="wide stem", attempt=2),
        session=SessionKey(session_id="0" * 31 + "7", rank=1, world_size=4, host="node3", pid=4242, started_at=1.75e9),
        sequence=9,
        last_step=20,
        description=RunDescription(
            model_class="Net",
            parameter_count=1_234_567,
            first_step=0,
            config={"lr": 0.1, "layers": [1, 2], "note": "größer"},
            tags=["baseline"],
            optimizers=[OptimizerInfo(name="SGD", lr=0.1, momentum=0.9, weight_decay=0.0)],
            loss="cross_entropy",
            output_classes=10,
            batch_size=64,
            pretrained=False,
            versions={"torch": "2.13.0"},
            notes=["2 modules were never called"],
        ),
        tensors=[
            TensorInfo(
                key=key, module_path=path, name=name, kind=kind, role=v.Role.HIDDEN, module_type="Linear",
                shape=[64, 32], dtype="float32", fan_in=32.0, fan_out=64.0, depth=3, block="blocks.0",
                activation_before="relu", activation_after="relu", norm_before="LayerNorm", norm_after=None,
                residual=True, tied_with="head", trainable=True,
            )
        ],
        scalars=[
            Scalar(step=19, name="loss", value=2.25),
            Scalar(step=20, name="loss", value=math.nan),
            Scalar(step=20, name="grad_norm", value=math.inf),
        ],
        status=v.RunStatus.RUNNING,
        books=Books(recorded=30, acknowledged=20, pending=7, dropped={"queue_full": 3}, hook_errors=1),
    )  # fmt: skip
    records = Records.empty()
    records.append(key, 19, _stats(2048, mean=0.5, std=0.25))
    records.append(key, 20, _stats(2048, nan_count=2048))
    return Batch(header, records)


def _stats(count: int, *, nan_count: int = 0, mean: float = math.nan, std: float = math.nan) -> TensorStats:
    moments = from_standardized(
        count=count, nan_count=nan_count, posinf_count=0, neginf_count=0, zero_count=0,
        mean=mean, std=std, skewness=0.0 * mean, kurtosis=3.0 + 0.0 * mean, min=mean - 4 * std, max=mean + 4 * std,
    )  # fmt: skip
    return TensorStats(moments, ChannelStats(signal_fraction=0.5, dead_fraction=0.125))


_words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
_names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
_counts = st.integers(0, v.MAX_COUNT)
_steps = st.integers(0, v.MAX_STEP)
_any_float = st.floats()
_json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)
_runs = st.builds(RunKey, run_id=_names, project=_names, name=_names, attempt=st.integers(0, 1_000_000))
_sessions = st.builds(
    SessionKey,
    session_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    rank=st.integers(0, 9),
    world_size=st.integers(1, v.MAX_RANKS),
    host=_words,
    pid=_counts,
    started_at=st.floats(0, 4e9),
)
_descriptions = st.builds(
    RunDescription,
    model_class=_words,
    parameter_count=_counts,
    config=st.dictionaries(_names, _json_values, max_size=3),
    tags=st.lists(_names, max_size=2),
    optimizers=st.lists(st.builds(OptimizerInfo, name=_names, lr=st.none() | _any_float), max_size=2),
    loss=st.none() | _words,
    pretrained=st.none() | st.booleans(),
)
_tensors = st.builds(
    TensorInfo,
    key=st.integers(0, v.MAX_TENSOR_KEY),
    module_path=_words,
    name=_names,
    kind=st.sampled_from(v.Kind),
    role=st.sampled_from(v.Role),
    shape=st.lists(_counts, max_size=4),
    fan_in=st.none() | st.floats(0, 1e9),
    depth=st.none() | st.integers(0, 2**20),
)
_books = st.builds(Books, recorded=_counts, acknowledged=_counts, dropped=st.dictionaries(_names, _counts, max_size=2))
headers = st.builds(
    Header,
    run=_runs,
    session=_sessions,
    sequence=_counts,
    last_step=st.none() | _steps,
    description=st.none() | _descriptions,
    tensors=st.lists(_tensors, max_size=3),
    scalars=st.lists(st.builds(Scalar, step=_steps, name=_names, value=_any_float), max_size=4),
    status=st.none() | st.sampled_from(v.RunStatus),
    books=st.none() | _books,
)


@st.composite
def _records(draw: st.DrawFn) -> Records:
    rows = draw(st.integers(0, 6))
    records = Records.empty()
    for name in COLUMNS:
        cell = st.floats(width=32) if name in Records.FLOATS else st.integers(-(2**63), 2**63 - 1)
        column = draw(st.lists(cell, min_size=rows, max_size=rows) | cell.map(lambda x: [x] * rows))
        records.columns[name].extend(column)  # type: ignore[attr-defined]
    return records


records = _records()
batches = st.builds(Batch, headers, records)
