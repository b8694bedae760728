"""Alembic's entry: runs inside the transaction that `initscope.service.store.schema` hands over."""

from __future__ import annotations

from alembic import context

from initscope.service.store.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
