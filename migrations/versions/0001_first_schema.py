"""The first schema: runs, sessions, records, findings, tokens, and the views that dashboards query."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _serial() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


_VIEWS: Final = {
    "v_run": """
        SELECT r.run_no, r.id AS run_id, r.project, r.name, r.status, r.attempt, r.last_step,
               r.created_at, r.last_seen_at, r.last_step_at, r.ended_at,
               COALESCE(f.critical_count, 0) AS critical_count, COALESCE(f.warning_count, 0) AS warning_count
        FROM runs r
        LEFT JOIN (
            SELECT run_no, attempt,
                   SUM(CASE WHEN severity = 'critical' THEN 1 ELSE 0 END) AS critical_count,
                   SUM(CASE WHEN severity = 'warning' THEN 1 ELSE 0 END) AS warning_count
            FROM findings
            WHERE state IN ('open', 'closed') AND parent IS NULL
            GROUP BY run_no, attempt
        ) f ON f.run_no = r.run_no AND f.attempt = r.attempt
    """,
    "v_tensor_stats": """
        SELECT s.run_no, r.id AS run_id, s.attempt, s.step, t.module_path, t.name, t.kind, t.role, t.module_type,
               t.depth, t.block, s.count, s.nan_count, s.posinf_count, s.neginf_count, s.zero_count,
               s.nan_count + s.posinf_count + s.neginf_count AS nonfinite_count,
               s.mean, s.min, s.max,
               CASE WHEN s.count > s.nan_count + s.posinf_count + s.neginf_count
                    THEN SQRT(s.m2 / (s.count - s.nan_count - s.posinf_count - s.neginf_count)) END AS std,
               CASE WHEN s.count > s.nan_count + s.posinf_count + s.neginf_count
                    THEN SQRT(s.mean * s.mean + s.m2 / (s.count - s.nan_count - s.posinf_count - s.neginf_count))
                    END AS rms,
               CASE WHEN s.count > 0 THEN s.zero_count * 1.0 / s.count END AS zero_fraction,
               s.signal_fraction, s.dead_fraction, s.saturated_fraction, s.row_similarity, s.session_count
        FROM tensor_stats s
        JOIN runs r ON r.run_no = s.run_no AND r.attempt = s.attempt
        JOIN tensors t ON t.run_no = s.run_no AND t.tensor_no = s.tensor_no
    """,
    "v_finding": """
        SELECT f.run_no, r.id AS run_id, r.project, r.name AS run_name, f.id AS finding_id, f.attempt, f.fingerprint,
               f.episode, f.rule, f.severity, f.cause, f.state, f.module_path, f.tensor_name, f.kind, f.parent,
               f.first_step, f.opened_step, f.last_step, f.resolved_step, f.diagnosis, f.remedy, f.opened_at,
               f.updated_at
        FROM findings f
        JOIN runs r ON r.run_no = f.run_no AND r.attempt = f.attempt
    """,
}
"""A documented contract: the newest attempt of each run only."""


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_no", _serial(), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("description", sa.JSON(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("run_no", name="pk_runs"),
        sa.UniqueConstraint("id", name="uq_runs_id"),
        sa.UniqueConstraint("project", "run_id", name="uq_runs_project_run_id"),
    )
    op.create_index("ix_runs_last_seen_at", "runs", ["last_seen_at"], unique=False)


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("run_no", _serial(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("world_size", sa.BigInteger(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=True),
        sa.Column("evaluated_step", sa.BigInteger(), nullable=True),
        sa.Column("dirty_step", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_attempts_run_no_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_no", "number", name="pk_attempts"),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("session_no", _serial(), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("run_no", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("world_size", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("current_step", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("books", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_no", "attempt"],
            ["attempts.run_no", "attempts.number"],
            name="fk_sessions_run_no_attempt_attempts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_no", name="pk_sessions"),
        sa.UniqueConstraint("session_id", name="uq_sessions_session_id"),
    )
    op.create_index("ix_sessions_run_no_attempt", "sessions", ["run_no", "attempt"], unique=False)


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("session_no", _serial(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_no"], ["sessions.session_no"], name="fk_batches_session_no_sessions", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_no", "sequence", name="pk_batches"),
    )


def _tensors() -> None:
    op.create_table(
        "tensors",
        sa.Column("tensor_no", _serial(), nullable=False),
        sa.Column("run_no", _serial(), nullable=False),
        sa.Column("tensor_key", sa.BigInteger(), nullable=False),
        sa.Column("module_path", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("module_type", sa.Text(), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("fan_in", sa.Double(), nullable=True),
        sa.Column("fan_out", sa.Double(), nullable=True),
        sa.Column("depth", sa.BigInteger(), nullable=True),
        sa.Column("block", sa.Text(), nullable=True),
        sa.Column("activation_before", sa.Text(), nullable=True),
        sa.Column("activation_after", sa.Text(), nullable=True),
        sa.Column("norm_before", sa.Text(), nullable=True),
        sa.Column("norm_after", sa.Text(), nullable=True),
        sa.Column("residual", sa.Boolean(), nullable=False),
        sa.Column("tied_with", sa.Text(), nullable=True),
        sa.Column("trainable", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_tensors_run_no_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tensor_no", name="pk_tensors"),
        sa.UniqueConstraint("run_no", "module_path", "name", "kind", name="uq_tensors_run_no_module_path_name_kind"),
        sa.UniqueConstraint("run_no", "tensor_key", name="uq_tensors_run_no_tensor_key"),
    )


def _tensor_stats() -> None:
    op.create_table(
        "tensor_stats",
        sa.Column("run_no", _serial(), autoincrement=False, nullable=False),
        sa.Column("tensor_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("nan_count", sa.BigInteger(), nullable=False),
        sa.Column("posinf_count", sa.BigInteger(), nullable=False),
        sa.Column("neginf_count", sa.BigInteger(), nullable=False),
        sa.Column("zero_count", sa.BigInteger(), nullable=False),
        sa.Column("mean", sa.Double(), nullable=True),
        sa.Column("m2", sa.Double(), nullable=True),
        sa.Column("m3", sa.Double(), nullable=True),
        sa.Column("m4", sa.Double(), nullable=True),
        sa.Column("min", sa.Double(), nullable=True),
        sa.Column("max", sa.Double(), nullable=True),
        sa.Column("signal_fraction", sa.Double(), nullable=True),
        sa.Column("dead_fraction", sa.Double(), nullable=True),
        sa.Column("saturated_fraction", sa.Double(), nullable=True),
        sa.Column("row_similarity", sa.Double(), nullable=True),
        sa.Column("session_count", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_tensor_stats_run_no_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_no", "tensor_no", "attempt", "step", name="pk_tensor_stats"),
    )
    op.create_index("ix_tensor_stats_run_no_step", "tensor_stats", ["run_no", "step"], unique=False)


def _scalars() -> None:
    op.create_table(
        "scalars",
        sa.Column("run_no", _serial(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("value_class", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_scalars_run_no_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_no", "name", "attempt", "step", name="pk_scalars"),
    )


def _findings() -> None:
    op.create_table(
        "findings",
        sa.Column("finding_no", _serial(), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_no", _serial(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("episode", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("module_path", sa.Text(), nullable=True),
        sa.Column("tensor_name", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("opened_step", sa.BigInteger(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("resolved_step", sa.BigInteger(), nullable=True),
        sa.Column("seen_count", sa.BigInteger(), nullable=False),
        sa.Column("clean_count", sa.BigInteger(), nullable=False),
        sa.Column("diagnosis", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_no"], ["runs.run_no"], name="fk_findings_run_no_runs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("finding_no", name="pk_findings"),
        sa.UniqueConstraint("id", name="uq_findings_id"),
        sa.UniqueConstraint(
            "run_no", "attempt", "fingerprint", "episode", name="uq_findings_run_no_attempt_fingerprint_episode"
        ),
    )
    op.create_index("ix_findings_run_no_state", "findings", ["run_no", "state"], unique=False)


def _finding_transitions() -> None:
    op.create_table(
        "finding_transitions",
        sa.Column("transition_no", _serial(), nullable=False),
        sa.Column("finding_no", _serial(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["finding_no"],
            ["findings.finding_no"],
            name="fk_finding_transitions_finding_no_findings",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("transition_no", name="pk_finding_transitions"),
    )
    op.create_index("ix_finding_transitions_finding_no", "finding_transitions", ["finding_no"], unique=False)


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name="pk_tokens"),
    )


def upgrade() -> None:
    _runs()
    _attempts()
    _sessions()
    _batches()
    _tensors()
    _tensor_stats()
    _scalars()
    _findings()
    _finding_transitions()
    _tokens()
    for name, query in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    for name in _VIEWS:
        op.execute(f"DROP VIEW {name}")
    for table in (
        "tokens",
        "finding_transitions",
        "findings",
        "scalars",
        "tensor_stats",
        "tensors",
        "batches",
        "sessions",
        "attempts",
        "runs",
    ):
        op.drop_table(table)
