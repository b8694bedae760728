"""What happens when a finding opens: it is told, a function is called, or the training is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from initscope.hooks.rules import Finding
from initscope.hooks.rules.badstart import BadStart

OnFinding = Callable[[Finding], object] | Literal["print", "raise"]
WORDS: Final = ("print", "raise")


@dataclass(frozen=True, slots=True)
class Action:
    """What was asked for. `tells`: on standard error, which a function beside a url does without."""

    call: Callable[[Finding], object] | None = None
    tells: bool = True
    raises: bool = False

    @staticmethod
    def of(given: Any, *, with_url: bool) -> Action | None:
        """None if nothing is diagnosed here: there is a url, and nobody asked. `TypeError` for what is no action."""
        if given is None:
            return None if with_url else Action()
        if callable(given):
            return Action(call=given, tells=not with_url)
        if given not in WORDS:
            said = repr(given) if isinstance(given, str) else type(given).__name__
            raise TypeError(f'on_finding: "print", "raise" or a function of a finding, got {said}')
        return Action(raises=given == "raise")


class Alarm:
    """Carries a critical finding from the diagnosis thread to the next step boundary on the training thread.

    No lock and no wait: `due` is a list that one thread appends to once and the other looks at. `on_ring` is called
    before the error is raised.
    """

    __slots__ = ("_is_armed", "due", "on_ring")

    def __init__(self, *, armed: bool = False, on_ring: Callable[[], object] | None = None) -> None:
        self.due: list[Finding] = []
        self.on_ring = on_ring
        self._is_armed = armed

    def set(self, finding: Finding) -> None:
        """A critical finding has opened. Only the first one counts."""
        if self._is_armed:
            self._is_armed = False
            self.due.append(finding)

    def ring(self) -> None:
        """At a step boundary, if there is something in `due`: ends the run and raises `BadStart`, exactly once."""
        try:
            finding = self.due.pop()
        except IndexError:
            return  # another thread that trains the same model was first
        on_ring, self.on_ring = self.on_ring, None
        if on_ring is not None:
            on_ring()
        raise BadStart(finding)

    def disarm(self) -> None:
        """The run is over: nothing rings any more."""
        self._is_armed = False
        self.due.clear()
        self.on_ring = None
