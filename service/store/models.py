"""The tables. Migrations make them; a test holds both together.

Every key and query of run data carries `run_no`. Times are UTC, steps and counts 64-bit, moments double precision;
NULL in a moment means absent (no finite element), which is also how SQLite stores NaN.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite autoincrements only INTEGER PRIMARY KEY, which holds 64 bits there anyway.
Serial = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite has no time zones, so they are put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuses naive times instead of guessing their zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Adds the zone that SQLite dropped."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads a plain dict
        int: BigInteger(),
        float: Double(),
        str: Text(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


class Run(Base):
    """One training job, resumable. `id` is the uuid of the API, derived from (project, run_id)."""

    __tablename__ = "runs"
    __table_args__ = (UniqueConstraint("project", "run_id"), Index(None, "last_seen_at"))

    run_no: Mapped[int] = mapped_column(Serial, primary_key=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    project: Mapped[str]
    run_id: Mapped[str]
    name: Mapped[str]
    status: Mapped[str]
    note: Mapped[str] = mapped_column(default="")
    tags: Mapped[list[Any]] = mapped_column(default=list)
    description: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The wire's RunDescription as plain data."""
    attempt: Mapped[int] = mapped_column(default=0)
    """The newest attempt."""
    tensor_revision: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How often descriptions of tensors were written: who has read them reads again when it has grown."""
    last_step: Mapped[int | None]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    last_step_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Attempt(Base):
    """A stretch of a run between restarts or rewinds; rows merge only inside one."""

    __tablename__ = "attempts"

    run_no: Mapped[int] = mapped_column(ForeignKey("runs.run_no", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    world_size: Mapped[int]
    first_step: Mapped[int | None]
    evaluated_step: Mapped[int | None]
    """The last step that the rules have seen."""
    dirty_step: Mapped[int | None]
    """The lowest step that got rows after it was evaluated; the evaluation goes back to it."""
    created_at: Mapped[datetime]


class Session(Base):
    """One process life of a rank."""

    __tablename__ = "sessions"
    __table_args__ = (
        ForeignKeyConstraint(["run_no", "attempt"], ["attempts.run_no", "attempts.number"], ondelete="CASCADE"),
        Index(None, "run_no", "attempt"),
    )

    session_no: Mapped[int] = mapped_column(Serial, primary_key=True)
    session_id: Mapped[str] = mapped_column(String(32), unique=True)
    run_no: Mapped[int]
    attempt: Mapped[int]
    rank: Mapped[int]
    world_size: Mapped[int]
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[float]
    """The job's own clock, seconds since 1970; never used for order."""
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    last_step: Mapped[int | None]
    """Every row up to this step is stored."""
    current_step: Mapped[int | None]
    """Where the job is by its last heartbeat or batch; rows up to here may still be on their way."""
    status: Mapped[str]
    books: Mapped[dict[str, Any]] = mapped_column(default=dict)
    digests: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What stands for the rank's parameters at the start, by full name; None where it is the only one."""


class BatchRow(Base):
    """The identity of an accepted batch: what makes ingest exactly-once."""

    __tablename__ = "batches"

    session_no: Mapped[int] = mapped_column(
        ForeignKey("sessions.session_no", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    received_at: Mapped[datetime]
    accepted: Mapped[int]
    rejected: Mapped[int]


class Tensor(Base):
    """Description of one tensor of a run; `tensor_key` is the wire's key."""

    __tablename__ = "tensors"
    __table_args__ = (
        UniqueConstraint("run_no", "tensor_key"),
        UniqueConstraint("run_no", "module_path", "name", "kind"),
    )

    tensor_no: Mapped[int] = mapped_column(Serial, primary_key=True)
    run_no: Mapped[int] = mapped_column(ForeignKey("runs.run_no", ondelete="CASCADE"))
    tensor_key: Mapped[int]
    module_path: Mapped[str]
    name: Mapped[str]
    kind: Mapped[str]
    role: Mapped[str]
    module_type: Mapped[str]
    shape: Mapped[list[Any]]
    dtype: Mapped[str]
    fan_in: Mapped[float | None]
    fan_out: Mapped[float | None]
    depth: Mapped[int | None]
    block: Mapped[str | None]
    activation_before: Mapped[str | None]
    activation_after: Mapped[str | None]
    norm_before: Mapped[str | None]
    norm_after: Mapped[str | None]
    residual: Mapped[bool] = mapped_column(Boolean)
    tied_with: Mapped[str | None]
    trainable: Mapped[bool] = mapped_column(Boolean)
    traits: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Structure of a weight at the start, as `initscope.hooks.wire.Traits`."""


class TensorStatsRow(Base):
    """A record: the moments of one tensor at one step, merged over the sessions of an attempt."""

    __tablename__ = "tensor_stats"
    __table_args__ = (Index(None, "run_no", "step"),)

    run_no: Mapped[int] = mapped_column(
        ForeignKey("runs.run_no", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    tensor_no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int]
    nan_count: Mapped[int]
    posinf_count: Mapped[int]
    neginf_count: Mapped[int]
    zero_count: Mapped[int]
    mean: Mapped[float | None]
    m2: Mapped[float | None]
    m3: Mapped[float | None]
    m4: Mapped[float | None]
    min: Mapped[float | None]
    max: Mapped[float | None]
    signal_fraction: Mapped[float | None]
    dead_fraction: Mapped[float | None]
    saturated_fraction: Mapped[float | None]
    row_similarity: Mapped[float | None]
    session_count: Mapped[int] = mapped_column(default=1)
    """How many sessions (ranks) are merged in this row."""


class ScalarRow(Base):
    """A logged number. `value` is NULL unless `value_class` is finite: SQLite would turn NaN into NULL anyway."""

    __tablename__ = "scalars"

    run_no: Mapped[int] = mapped_column(
        ForeignKey("runs.run_no", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float | None]
    value_class: Mapped[str] = mapped_column(String(8))
    """finite, nan, posinf or neginf."""


class FindingRow(Base):
    """An episode of a finding; `fingerprint` is the same for the same rule and subject."""

    __tablename__ = "findings"
    __table_args__ = (UniqueConstraint("run_no", "attempt", "fingerprint", "episode"), Index(None, "run_no", "state"))

    finding_no: Mapped[int] = mapped_column(Serial, primary_key=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    run_no: Mapped[int] = mapped_column(ForeignKey("runs.run_no", ondelete="CASCADE"))
    attempt: Mapped[int]
    fingerprint: Mapped[str]
    episode: Mapped[int]
    """0 for the first time that this fingerprint opened in the attempt, then 1, …"""
    rule: Mapped[str]
    severity: Mapped[str]
    cause: Mapped[str]
    state: Mapped[str]
    module_path: Mapped[str | None]
    tensor_name: Mapped[str | None]
    kind: Mapped[str | None]
    parent: Mapped[str | None]
    """Fingerprint of the finding that explains this one."""
    first_step: Mapped[int]
    opened_step: Mapped[int | None]
    last_step: Mapped[int]
    resolved_step: Mapped[int | None]
    seen_count: Mapped[int]
    clean_count: Mapped[int]
    diagnosis: Mapped[str]
    remedy: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    opened_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]


class FindingTransition(Base):
    """Every change of an episode's state, in order."""

    __tablename__ = "finding_transitions"
    __table_args__ = (Index(None, "finding_no"),)

    transition_no: Mapped[int] = mapped_column(Serial, primary_key=True)
    finding_no: Mapped[int] = mapped_column(ForeignKey("findings.finding_no", ondelete="CASCADE"))
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    severity: Mapped[str]
    step: Mapped[int]
    at: Mapped[datetime]


class Token(Base):
    """A token's hash and scopes; the secret itself is never stored."""

    __tablename__ = "tokens"

    token_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    scopes: Mapped[list[Any]]
    name: Mapped[str]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
