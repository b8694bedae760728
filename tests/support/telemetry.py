"""Clients, rows and accounts for tests of the way to the collector."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from initscope.hooks.client.client import Client
from initscope.hooks.client.config import Config
from initscope.hooks.moments import ChannelStats, Moments, TensorStats
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import Books, RunKey, SessionKey, TensorInfo, tensor_key

RUN = RunKey(run_id="run-1", project="tests", name="a run")
SESSION = SessionKey(session_id="00000000000000000000000000000001", host="here", pid=1)
STATS = TensorStats(
    Moments(count=4, mean=0.5, m2=1.0, m3=0.0, m4=1.0, min=-1.0, max=2.0), ChannelStats(0.5, 0.0, 0.0, 0.1)
)


def config(url: str | None, **changes: Any) -> Config:
    """Quick settings: nothing waits long."""
    quick = Config(url=url, token="secret-token-of-tests", linger=0.05, connect_timeout=1.0, request_timeout=1.0)
    return replace(quick, **changes)


def client(url: str | None, **changes: Any) -> Client:
    return Client(config(url, **changes), RUN, replace(SESSION, session_id=_next_session()))


def rows(count: int, first_key: int = 0) -> Callable[[], Iterable[tuple[int, TensorStats]]]:
    """A source of `count` records with the keys from `first_key` on."""
    return lambda: [(first_key + i, STATS) for i in range(count)]


def tensors(count: int) -> list[TensorInfo]:
    names = [f"layers.{i}" for i in range(count)]
    return [
        TensorInfo(key=tensor_key(name, "weight", Kind.WEIGHT), module_path=name, name="weight", kind=Kind.WEIGHT)
        for name in names
    ]


def balance(books: Books) -> int:
    """0 if recorded = acknowledged + pending + Σ dropped."""
    return books.recorded - books.acknowledged - books.pending - sum(books.dropped.values())


_sessions = iter(range(1, 2**62))


def _next_session() -> str:
    return f"{next(_sessions):032x}"
