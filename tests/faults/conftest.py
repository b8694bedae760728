from __future__ import annotations

import pytest

from initscope.hooks.client import notices


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test hears the sentences that are said once a minute, and sees errors swallowed as in a job."""
    monkeypatch.delenv("INITSCOPE_RAISE", raising=False)
    monkeypatch.setattr(notices, "_last_said", {})
