"""Errors of ours stay ours: a shield around every place where our code runs inside the training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from initscope.hooks.client.notices import warn

LIMIT: Final = 3
"""Errors after which a guard switches its users off."""


class Guard:
    """Counts and swallows exceptions of our own code.

    `passes` are exceptions that are not ours although they surface in our code (an asynchronous device error, for
    one): they go through untouched. KeyboardInterrupt and SystemExit always do. INITSCOPE_RAISE=1 lets everything
    through, for tests. With `limit=None` the guard never switches off (background loops).
    """

    __slots__ = ("_limit", "_loud", "_passes", "_shields", "errors", "off")

    def __init__(
        self,
        *,
        limit: int | None = LIMIT,
        passes: tuple[type[BaseException], ...] = (),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.errors = 0
        self.off = False
        self._limit = limit
        self._passes = passes
        self._loud = environ.get("INITSCOPE_RAISE", "") == "1"
        self._shields: dict[str, Shield] = {}

    def shield(self, place: str) -> Shield:
        """A context manager that keeps the errors of `place` from the training. Cheap: one object a place."""
        shield = self._shields.get(place)
        if shield is None:
            shield = self._shields[place] = Shield(self, place)
        return shield

    def swallows(self, error: BaseException, place: str) -> bool:
        """Whether `error` stays here; if so it is counted, and told the first time that `place` has one."""
        if self._loud or not isinstance(error, Exception) or isinstance(error, self._passes):
            return False
        self.errors += 1
        with contextlib.suppress(Exception):  # a broken log handler of the job is no reason to stop it
            self._tell(error, place)
        return True

    def _tell(self, error: Exception, place: str) -> None:
        if self._limit is not None and self.errors >= self._limit and not self.off:
            self.off = True
            warn("initscope is switched off after %d errors of its own; the training goes on", self.errors)
        warn("initscope had an error in its %s; the training is not affected", place, about=place, trace=error)


class Shield:
    """See `Guard.shield`. Holds no state of its own, so that threads and nested calls can share it."""

    __slots__ = ("_guard", "_place")

    def __init__(self, guard: Guard, place: str) -> None:
        self._guard = guard
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return error is not None and self._guard.swallows(error, self._place)
