"""Rules that raised: said in the log, once a minute each, and the others judge on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from initscope.hooks.rules import Rule

_LOG: Final = logging.getLogger("initscope.rules")
_REPEAT_SECONDS: Final = 60.0


class Failures:
    """The rules that failed at the step under judgement: their silence there is no all-clear."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}
        self._failed: set[str] = set()

    def note(self, rule: Rule, error: Exception) -> None:
        """A rule raised. An error with its traceback, unless that was said less than a minute ago."""
        self._failed.add(rule.id)
        now = self._clock()
        if now - self._told.get(rule.id, -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            self._told[rule.id] = now
            _LOG.error("rule %s failed; the other rules judge on", rule.id, exc_info=error)

    def taken(self) -> set[str]:
        """Ids of the rules that failed since the last call."""
        failed, self._failed = self._failed, set()
        return failed
