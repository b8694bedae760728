"""Settings of the client: keyword, else environment, else default. Bad ones are refused by name."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from initscope.hooks import vocabulary as v

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("", "0", "false", "no", "off")


class ConfigError(ValueError):
    """A setting that cannot be used. The message names it, as keyword and as variable, and never shows a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a client needs to know. Times in seconds, sizes in bytes."""

    url: str | None
    token: str | None = field(default=None, repr=False)
    project: str = "default"
    run_name: str = "run"
    run_id: str | None = None
    home: Path = Path("~/.initscope")
    disabled: bool = False
    flush_timeout: float = 5.0
    """The longest that `close` and the end of the interpreter wait for the collector."""
    token_file: Path | None = None
    """Where a collector of the same user on this host leaves its token; read again at every connection."""
    rules: Path | None = None
    """A file of thresholds for the diagnosis."""
    on_finding: str | None = None
    """What happens in the job when a finding opens: `print` or `raise`."""
    queue_bytes: int = 24 * 2**20
    queue_items: int = 20_000
    batch_records: int = 2_000
    linger: float = 1.0
    """How long a record waits for others before its batch is sent."""
    connect_timeout: float = 3.0
    request_timeout: float = 10.0
    heartbeat: float = v.HEARTBEAT_SECONDS

    @property
    def active(self) -> bool:
        """Whether there is anything to send to."""
        return self.url is not None and not self.disabled

    def current_token(self) -> str | None:
        """The token to send now: the given one, or what the token file holds at this moment."""
        return (_token_from(self.token_file) if self.token_file else None) or self.token


def resolve(
    *,
    url: str | None = None,
    token: str | None = None,
    project: str | None = None,
    run: str | None = None,
    run_id: str | None = None,
    environ: Mapping[str, str] = os.environ,
    **unknown: Any,
) -> Config:
    """Settings from keywords and INITSCOPE_*; a keyword wins. `ConfigError` names what cannot be used.

    Without a token, one that a collector of the same user left in `<home>/token` is taken if the url is loopback.
    No network is touched. With INITSCOPE_DISABLED=1 nothing else is looked at.
    """
    _refuse_unknown(unknown)
    home = Path(os.path.expanduser(environ.get("INITSCOPE_HOME") or "~/.initscope"))
    if _switch(environ, "INITSCOPE_DISABLED"):
        return Config(url=None, disabled=True, home=home)
    address = _url(url if url is not None else environ.get("INITSCOPE_URL"))
    secret = _token(token if token is not None else environ.get("INITSCOPE_TOKEN"))
    token_file = home / "token" if address and not secret and is_loopback(address) else None
    return Config(
        url=address,
        token=_token_from(token_file) if token_file else secret,
        project=_name("project", "INITSCOPE_PROJECT", project, environ) or "default",
        run_name=_name("run", "INITSCOPE_RUN", run, environ) or _display_name(),
        run_id=_name("run_id", "INITSCOPE_RUN_ID", run_id, environ),
        home=home,
        flush_timeout=_seconds(environ, "INITSCOPE_FLUSH_TIMEOUT", 5.0),
        token_file=token_file,
        rules=_path(environ, "INITSCOPE_RULES"),
        on_finding=_word(environ, "INITSCOPE_ON_FINDING", ("print", "raise")),
    )


def is_loopback(url: str) -> bool:
    """Whether the url's host is this machine by its spelling alone (no name is resolved)."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_unknown(unknown: Mapping[str, Any]) -> None:
    for name in unknown:
        near = difflib.get_close_matches(name, ("url", "token", "project", "run", "run_id"), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown option {name!r}{hint}")


def _url(given: str | None) -> str | None:
    if given is None or not _text("url (INITSCOPE_URL)", given).strip():
        return None
    url = given.strip().rstrip("/")
    parts, port_ok = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"url (INITSCOPE_URL) must begin with http:// or https:// and name a host, as in http://127.0.0.1:8642; "
            f"got {_without_password(given)!r}"
        )
    if not port_ok:
        raise ConfigError("url (INITSCOPE_URL) has a port that is no number from 1 to 65535")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("url (INITSCOPE_URL) must not carry a user or password; give the token by INITSCOPE_TOKEN")
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ConfigError("url (INITSCOPE_URL) must be an address only: no ?query, no #fragment, no spaces")
    return url


def _split(url: str) -> tuple[SplitResult | None, bool]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, True
    try:
        return parts, parts.port != 0
    except ValueError:
        return parts, False


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)[:200]


def _token(given: str | None) -> str | None:
    """A token as it may stand in a header; the value never gets into the message."""
    if given is None or not _text("token (INITSCOPE_TOKEN)", given).strip():
        return None
    token = given.strip()
    if not re.fullmatch(r"[!-~]{1,512}", token):
        raise ConfigError("token (INITSCOPE_TOKEN) must be printable ASCII without spaces, at most 512 characters")
    return token


def _token_from(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8") as file:
            return _token(file.readline(600))
    except (OSError, ValueError):  # absent, unreadable or no token: the collector's 401 will say what to do
        return None


def _name(keyword: str, variable: str, given: str | None, environ: Mapping[str, str]) -> str | None:
    name = given if given is not None else environ.get(variable)
    if name is None or name == "":
        return None
    if len(_text(f"{keyword} ({variable})", name)) > v.MAX_NAME or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
        raise ConfigError(f"{keyword} ({variable}) must have at most {v.MAX_NAME} characters, none of them control")
    return name


def _text(setting: str, given: object) -> str:
    if not isinstance(given, str):
        raise ConfigError(f"{setting} must be text, got {type(given).__name__}")
    return given


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 86_400:
        raise ConfigError(f"{variable} must be a positive number of seconds below a day, got {text[:40]!r}")
    return seconds


def _switch(environ: Mapping[str, str], variable: str) -> bool:
    text = environ.get(variable, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise ConfigError(f"{variable} must be 1 or 0, got {text[:40]!r}")
    return text in _TRUE


def _path(environ: Mapping[str, str], variable: str) -> Path | None:
    text = environ.get(variable, "").strip()
    return Path(os.path.expanduser(text)) if text else None


def _word(environ: Mapping[str, str], variable: str, words: tuple[str, ...]) -> str | None:
    text = environ.get(variable, "").strip().lower()
    if text and text not in words:
        raise ConfigError(f"{variable} must be {' or '.join(words)}, got {text[:40]!r}")
    return text or None


def _display_name() -> str:
    """The script and the time: only shown, never an identity."""
    script = Path(sys.argv[0] if sys.argv and sys.argv[0] != "-c" else "python")
    name = script.parent.name if script.stem == "__main__" else script.stem
    clean = re.sub(r"[^\w.\-]+", "-", name).strip("-") or "python"
    return f"{clean[:80]} {time.strftime('%Y-%m-%d %H:%M:%S')}"
