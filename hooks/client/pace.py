"""When to try again: exponential back-off with full jitter, and pauses that the collector asks for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

_FIRST: Final = 0.5
_CAP: Final = 30.0
_LONGEST_REQUEST: Final = 300.0


class Pace:
    """Times are seconds of one monotonic clock; `rest` says until when to wait.

    Jitter comes from the system, never from the global random state, which belongs to the training.
    """

    def __init__(self, uniform: Callable[[float, float], float] | None = None) -> None:
        self._uniform = uniform or random.SystemRandom().uniform
        self.failures = 0
        self.rest = 0.0
        self.asked = False
        """Whether the collector wanted this rest: then not even the end of the run cuts it short."""

    def succeeded(self) -> None:
        """The collector works."""
        self.failures, self.rest, self.asked = 0, 0.0, False

    def failed(self, now: float, after: float | None = None, *, closing: bool = False) -> None:
        """A try failed; `after` is the collector's Retry-After in seconds. At the end of a run tries come quickly."""
        self.failures += 1
        if after is not None:
            self.rest = now + min(max(after, 0.0), _LONGEST_REQUEST) + self._uniform(0.0, _FIRST)
            self.asked = True
            return
        cap = _FIRST if closing else min(_CAP, _FIRST * 2 ** min(self.failures - 1, 10))
        self.rest, self.asked = now + self._uniform(0.0, cap), False

    def pause(self, until: float) -> None:
        """Nothing is sent before this time."""
        self.rest, self.asked = until, True

    def hasten(self, now: float) -> None:
        """The run ends: do not wait out a back-off of our own."""
        if not self.asked:
            self.rest = min(self.rest, now)
