"""Runs that are watched for real: errors of the probe are errors here, and nothing of the machine's settings counts."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INITSCOPE_RAISE", "1")
    for name in ("INITSCOPE_URL", "INITSCOPE_DISABLED", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(1)
    torch.manual_seed(0)
