"""Structure of a weight at the start, beside its description; what each rank starts with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds what the newest version needs."""
    op.add_column("tensors", sa.Column("traits", sa.JSON(), nullable=True))
    op.add_column("sessions", sa.Column("digests", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Takes it away again. Nothing refers to the columns, so that SQLite needs no new table."""
    op.drop_column("sessions", "digests")
    op.drop_column("tensors", "traits")
