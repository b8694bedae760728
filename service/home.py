"""The collector's home folder: the first token and the key of login cookies, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from initscope.service.settings import Settings
from initscope.service.store import tokens
from initscope.service.store.engine import Database


def ensure(settings: Settings) -> Path:
    """The home folder, made with mode 0700 if it is absent."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return settings.home


def cookie_key(settings: Settings) -> bytes:
    """The key that signs login cookies; made at the first start."""
    return _keep(ensure(settings) / "cookie.key", lambda: secrets.token_hex(32)).encode()


def first_token(settings: Settings, database: Database) -> str:
    """The token of the first start, stored with every scope: INITSCOPE_TOKEN, or the one of the home's token file."""
    if settings.token is not None:
        token, name = settings.token.get_secret_value(), "INITSCOPE_TOKEN"
    else:
        ensure(settings)
        token, name = _keep(settings.token_file, tokens.generate), "first token"
    with database.write() as connection:
        tokens.add(connection, token, tokens.SCOPES, name)
    return token


def _keep(path: Path, make: Callable[[], str]) -> str:
    """The text of a file that is made, with mode 0600, by whoever comes first."""
    if not path.exists():
        # Linked into place whole: a second process never reads half a secret.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make() + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
