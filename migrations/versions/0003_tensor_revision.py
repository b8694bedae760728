"""Counts how often a run's tensors were described, so that the evaluation reads them again only then."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds what the newest version needs."""
    op.add_column("runs", sa.Column("tensor_revision", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Takes it away again. Nothing refers to the column, so that SQLite needs no new table."""
    op.drop_column("runs", "tensor_revision")
