"""Structure of a weight at the start, beside its description."""

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


def downgrade() -> None:
    """Takes it away again. Nothing refers to the column, so that SQLite needs no new table."""
    op.drop_column("tensors", "traits")
