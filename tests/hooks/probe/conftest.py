"""Errors of the probe are errors here; one thread; every monitor is closed with its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from initscope.hooks.probe import monitor as monitors


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("INITSCOPE_RAISE", "1")
    for name in ("INITSCOPE_URL", "INITSCOPE_DISABLED", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    for monitor in list(monitors._live.values()):
        monitor.close()
