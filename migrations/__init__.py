"""Alembic migrations, shipped as package data of the collector."""
