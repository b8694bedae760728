"""Settings of the collector: keyword, then `INITSCOPE_*`, then the default."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Everything an operator can set; each field is also `INITSCOPE_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="INITSCOPE_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8642, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    home: Path = Field(
        default=Path("~/.initscope"), description="Folder of the embedded database, the token file and the cookie key."
    )
    database_url: str | None = Field(
        default=None, description="sqlite:///PATH or postgresql://USER@HOST/NAME; by default a SQLite file in the home."
    )
    token: SecretStr | None = Field(
        default=None, description="First token, with every scope, instead of a made one; at least 16 characters."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host names that requests may name besides loopback and the bound one; by comma."
    )
    rules: Path | None = Field(
        default=None, description="TOML file of thresholds, rules to switch off, and modules with rules of your own."
    )
    behind_proxy: bool = Field(default=False, description="A proxy in front speaks TLS: other hosts may be bound.")
    insecure: bool = Field(default=False, description="Bind other hosts without TLS: tokens travel in clear text.")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("home", "rules")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            secret = value.get_secret_value()
            if len(secret) < 16 or not secret.isascii() or not secret.isprintable() or " " in secret:
                raise ValueError("needs at least 16 printable ASCII characters without spaces")
        return value

    @property
    def url(self) -> str:
        """Where the database is: the one that was set, or the SQLite file in the home."""
        return self.database_url or f"sqlite:///{self.home / 'initscope.db'}"

    @property
    def token_file(self) -> Path:
        """Where a client of the same user finds the first token."""
        return self.home / "token"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the bound host."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
