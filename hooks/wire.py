"""The wire: what a training job sends to a collector. One schema, two encodings, standard library only.

`initscope.hooks.encoding` writes and reads it. Moments travel as float32 in standardized form (std, skewness,
kurtosis; see `initscope.hooks.moments.from_standardized`), counts as int64. `docs/wire.md` has the contract.
"""

from __future__ import annotations

import hashlib
import uuid
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

from initscope.hooks import vocabulary as v
from initscope.hooks.moments import ChannelStats, TensorStats, from_standardized

WIRE_VERSION: Final = 1
MEDIA_JSON: Final = "application/vnd.initscope.v1+json"
MEDIA_BINARY: Final = "application/vnd.initscope.v1+binary"


# Names the collector's runs: derived, so that every collector and every client gives the same run the same one.
_RUNS: Final = uuid.UUID("b9a6c4de-5f0e-4f0b-9a51-6d3f0c2f7e18")


class WireError(ValueError):
    """A body that is no batch. `location` names the field, in the words of the schema."""

    def __init__(self, location: str, message: str) -> None:
        super().__init__(f"{location}: {message}")
        self.location = location
        self.message = message


class Limit:
    """A bound that pydantic enforces in the collector and that costs the client nothing."""

    def __init__(self, **bounds: Any) -> None:
        self.bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Adds the bounds to the schema of the annotated type (duck-typed: no pydantic import)."""
        schema = handler(source)
        target = schema["schema"] if schema.get("type") == "nullable" else schema
        target.update(self.bounds)
        return schema


# No control characters: PostgreSQL refuses NUL, logs suffer from the rest (pydantic refuses lone surrogates itself).
_TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, Limit(min_length=1, max_length=v.MAX_NAME, pattern=_TEXT)]
Words = Annotated[str, Limit(max_length=v.MAX_MODULE_PATH, pattern=_TEXT)]
Hex = Annotated[str, Limit(pattern=r"^[0-9a-f]{32}$")]
Count = Annotated[int, Limit(ge=0, le=v.MAX_COUNT)]
Step = Annotated[int, Limit(ge=0, le=v.MAX_STEP)]
Threshold = Annotated[float, Limit(allow_inf_nan=False)]
Rank = Annotated[int, Limit(ge=0, lt=v.MAX_RANKS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """Which run and attempt a session belongs to. `run_id` is the identity, `name` only a display name."""

    run_id: Name
    project: Name = "default"
    name: Name = "run"
    attempt: Annotated[int, Limit(ge=0, le=1_000_000)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKey:
    """One process life of a rank. `session_id` is 128 random bits in hex, renewed after a fork."""

    session_id: Hex
    rank: Rank = 0
    world_size: Annotated[int, Limit(ge=1, le=v.MAX_RANKS)] = 1
    host: Words = ""
    pid: Count = 0
    started_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerInfo:
    """One parameter group of an optimizer; absent hyperparameters are None."""

    name: Name
    lr: float | None = None
    momentum: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """What is known of the run. Sent in a session's first batch, and again whenever it grows."""

    model_class: Words = ""
    parameter_count: Count = 0
    first_step: Step = 0
    config: dict[str, Any] = field(default_factory=dict)
    tags: list[Name] = field(default_factory=list)
    optimizers: list[OptimizerInfo] = field(default_factory=list)
    loss: Words | None = None
    """`cross_entropy`, `mse`, … where a logged loss showed it."""
    output_classes: Count | None = None
    batch_size: Count | None = None
    pretrained: bool | None = None
    versions: dict[str, str] = field(default_factory=dict)
    limits: Annotated[
        dict[Name, Annotated[dict[Name, Threshold], Limit(max_length=v.MAX_LIMITS_PER_RULE)]],
        Limit(max_length=v.MAX_RULES),
    ] = field(default_factory=dict)
    """Thresholds that differ from the rules' own in this run, by rule and name."""
    disabled_rules: Annotated[list[Name], Limit(max_length=v.MAX_RULES)] = field(default_factory=list)
    """Rules that do not judge this run."""
    notes: list[Words] = field(default_factory=list)
    """What could not be observed, in sentences for the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Structure of a weight matrix at the start, which its moments do not show; read once. Absent where undefined.

    With the matrix as (rows, columns), axes after the first flattened: `row_spread` and `column_spread` are the
    coefficient of variation of the norms of rows and columns; `row_cosine` and `column_cosine` the rms cosine among at
    most 64 evenly spaced ones × √(their length), 1 for independent elements and 0 for orthogonal ones; `spectral_ratio`
    is σ₁ ÷ (rms · (√rows + √columns)) of a block of at most 256 × 512, 1 at most for independent elements. `digest`
    stands for the content: equal tensors have equal ones.
    """

    row_spread: float | None = None
    column_spread: float | None = None
    row_cosine: float | None = None
    column_cosine: float | None = None
    spectral_ratio: float | None = None
    digest: Words | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Description of one tensor. `depth` is the order of its module's first forward call."""

    key: Annotated[int, Limit(ge=0, le=v.MAX_TENSOR_KEY)]
    module_path: Words
    name: Annotated[str, Limit(min_length=1, max_length=v.MAX_TENSOR_NAME, pattern=_TEXT)]
    kind: v.Kind
    role: v.Role = v.Role.OTHER
    module_type: Words = ""
    shape: list[Count] = field(default_factory=list)
    dtype: Words = ""
    fan_in: float | None = None
    fan_out: float | None = None
    depth: Annotated[int, Limit(ge=0, le=v.MAX_COUNT)] | None = None
    block: Words | None = None
    activation_before: Words | None = None
    activation_after: Words | None = None
    norm_before: Words | None = None
    norm_after: Words | None = None
    residual: bool = False
    tied_with: Words | None = None
    trainable: bool = True
    traits: Traits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A logged number; NaN and infinities are values like any other."""

    step: Step
    name: Name
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The client's account: recorded = acknowledged + pending + Σ dropped, in records and scalars."""

    recorded: Count = 0
    acknowledged: Count = 0
    pending: Count = 0
    dropped: dict[str, Count] = field(default_factory=dict)
    hook_errors: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything of a batch but its columns. The identity of a batch is (session_id, sequence)."""

    run: RunKey
    session: SessionKey
    sequence: Count
    last_step: Step | None = None
    """Every row of this session up to this step is in this batch or an earlier one."""
    description: RunDescription | None = None
    tensors: Annotated[list[TensorInfo], Limit(max_length=v.MAX_TENSORS_PER_BATCH)] = field(default_factory=list)
    scalars: Annotated[list[Scalar], Limit(max_length=v.MAX_SCALARS_PER_BATCH)] = field(default_factory=list)
    status: v.RunStatus | None = None
    books: Books | None = None
    digests: Annotated[dict[Words, Words], Limit(max_length=v.MAX_DIGESTS)] = field(default_factory=dict)
    """What stands for the content of this rank's replicated parameters at the start, by full name (several ranks only).

    Equal parameters have equal ones. Once a session, sent until acknowledged.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A sign of life, posted every 5 s. Carries no rows and no sequence."""

    run: RunKey
    session: SessionKey
    last_step: Step | None = None
    books: Books = field(default_factory=Books)


INT_COLUMNS: Final = ("tensor", "step", "count", "nan_count", "posinf_count", "neginf_count", "zero_count")
FLOAT_COLUMNS: Final = (
    "mean", "std", "skewness", "kurtosis", "min", "max",
    "signal_fraction", "dead_fraction", "saturated_fraction", "row_similarity",
)  # fmt: skip
COLUMNS: Final = INT_COLUMNS + FLOAT_COLUMNS


@dataclass(slots=True)
class Records:
    """Columns of records, all of one length. NaN in a float column means absent."""

    columns: dict[str, Sequence[float]]
    FLOATS: ClassVar[frozenset[str]] = frozenset(FLOAT_COLUMNS)

    @staticmethod
    def empty() -> Records:
        """Columns without rows, ready for `append`."""
        return Records({c: array("f" if c in Records.FLOATS else "q") for c in COLUMNS})

    def append(self, tensor: int, step: int, stats: TensorStats) -> None:
        """Adds one record."""
        m, ch = stats.moments, stats.channels
        values = (
            tensor, step, m.count, m.nan_count, m.posinf_count, m.neginf_count, m.zero_count,
            m.mean, m.std, m.skewness, m.kurtosis, m.min, m.max,
            ch.signal_fraction, ch.dead_fraction, ch.saturated_fraction, ch.row_similarity,
        )  # fmt: skip
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.columns["tensor"])

    def row(self, index: int) -> tuple[int, int, TensorStats]:
        """(tensor key, step, statistics) of one record."""
        c = {name: column[index] for name, column in self.columns.items()}
        moments = from_standardized(
            count=int(c["count"]),
            nan_count=int(c["nan_count"]),
            posinf_count=int(c["posinf_count"]),
            neginf_count=int(c["neginf_count"]),
            zero_count=int(c["zero_count"]),
            mean=c["mean"],
            std=c["std"],
            skewness=c["skewness"],
            kurtosis=c["kurtosis"],
            min=c["min"],
            max=c["max"],
        )
        channels = ChannelStats(*(c[name] for name in FLOAT_COLUMNS[6:]))
        return int(c["tensor"]), int(c["step"]), TensorStats(moments, channels)


@dataclass(slots=True)
class Batch:
    """What one request carries."""

    header: Header
    records: Records = field(default_factory=Records.empty)


def run_uuid(project: str, run_id: str) -> str:
    """The run's id in the API and in the address of its page."""
    return str(uuid.uuid5(_RUNS, f"{project}\0{run_id}"))


def tensor_key(module_path: str, name: str, kind: v.Kind) -> int:
    """The number that stands for a tensor in records: 53 bits of a hash, so that all ranks agree without talking."""
    # A path that is no valid text must not end a training here; the collector refuses that one tensor.
    identity = f"{module_path}\0{name}\0{kind.value}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(identity, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 11
