"""Tokens: random secrets of which only a hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, Select, insert, select, update

from initscope.service.store.models import Token

Scope = Literal["ingest", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("ingest", "read", "admin")
_FORMAT: Final = re.compile(r"is_([0-9a-f]{16})_[0-9a-f]{64}")
_TOKEN: Final = Token.__table__.c


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer of a token may do."""

    token_id: str
    scopes: frozenset[str]

    def allows(self, scope: str) -> bool:
        """Whether the bearer has the scope."""
        return scope in self.scopes


def generate() -> str:
    """A new token: `is_<id>_<secret>`, the secret 256 random bits."""
    return f"is_{secrets.token_hex(8)}_{secrets.token_hex(32)}"


def token_id(token: str) -> str:
    """Under which a token is found: its own id, or 64 bits of its hash where an operator chose the token."""
    match = _FORMAT.fullmatch(token)
    return match.group(1) if match else _hash(token).hex()[:16]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def add(connection: Connection, token: str, scopes: Collection[Scope], name: str) -> str:
    """Stores a token's hash; its id. A token that is stored already stays as it is, even when revoked."""
    identity = token_id(token)
    if connection.execute(select(_TOKEN.token_id).where(_TOKEN.token_id == identity)).first() is None:
        values = {"token_id": identity, "secret_hash": _hash(token), "scopes": sorted(scopes), "name": name}
        connection.execute(insert(Token).values(**values, created_at=datetime.now(UTC), revoked_at=None))
    return identity


def find(connection: Connection, token: str) -> Grant | None:
    """What a token grants; None for an unknown or revoked one."""
    row = connection.execute(_active(token_id(token))).first()
    # Compared even when there is no row, so that the time of an answer tells nothing about ids.
    matches = hmac.compare_digest(row.secret_hash if row else bytes(32), _hash(token))
    return _grant(row) if row and matches else None


def find_by_id(connection: Connection, identity: str) -> Grant | None:
    """What a token grants that was checked before (a signed cookie names it); None for a revoked one."""
    row = connection.execute(_active(identity)).first()
    return _grant(row) if row else None


def _grant(row: Row[Any]) -> Grant:
    """Admin implies every scope."""
    return Grant(row.token_id, frozenset(SCOPES if "admin" in row.scopes else row.scopes))


def list_all(connection: Connection) -> list[Token]:
    """Every token, oldest first, hashes left out."""
    rows = connection.execute(
        select(_TOKEN.token_id, _TOKEN.name, _TOKEN.scopes, _TOKEN.created_at, _TOKEN.revoked_at).order_by(
            _TOKEN.created_at, _TOKEN.token_id
        )
    )
    return [Token(**row._mapping) for row in rows]


def revoke(connection: Connection, identity: str) -> bool:
    """Ends a token; False if there is no active one of that id."""
    where = (_TOKEN.token_id == identity, _TOKEN.revoked_at.is_(None))
    return connection.execute(update(Token).where(*where).values(revoked_at=datetime.now(UTC))).rowcount == 1


def _active(identity: str) -> Select[tuple[str, bytes, list[str]]]:
    return select(_TOKEN.token_id, _TOKEN.secret_hash, _TOKEN.scopes).where(
        _TOKEN.token_id == identity, _TOKEN.revoked_at.is_(None)
    )
