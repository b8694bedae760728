"""Diagnosis inside the job: the same rules as the collector's, on a thread of their own, told on standard error."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TextIO

from initscope.hooks.client.guard import Guard
from initscope.hooks.client.notices import warn
from initscope.hooks.moments import TensorStats
from initscope.hooks.probe import text
from initscope.hooks.probe.acting import Action, Alarm
from initscope.hooks.rules import (
    Episode,
    Finding,
    Model,
    Rule,
    Transition,
    Window,
    advance,
    checked,
    close,
    fold,
    judged,
)
from initscope.hooks.rules.selection import Selection
from initscope.hooks.rules.window import START_STEPS, WINDOW_STEPS
from initscope.hooks.vocabulary import EpisodeState, RunStatus, Severity
from initscope.hooks.wire import RunDescription, TensorInfo

Rows = Callable[[], Sequence[tuple[int, TensorStats]]]

_MOST_WAITING: Final = 2_000
_MOST_SCALARS: Final = 1_000
"""Logged values kept by name; the first ones are kept too, for rules about the start."""
_CLOSE_SECONDS: Final = 5.0


class LocalDiagnosis:
    """Judges each sampled step and tells once when a finding opens or resolves.

    The methods put a message into a queue and return. `action.call` is called with each finding that opens, on the
    diagnosis thread; the first critical one sets the alarm. `pause` is called there between two rules. It sees the
    records of this process only: `about` is a sentence that says so, written once, before anything else.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        action: Action | None = None,
        alarm: Alarm | None = None,
        about: str = "",
        stream: TextIO | None = None,
        pause: Callable[[], object] | None = None,
    ) -> None:
        self._pause = pause or _yield
        self._action = action or Action()
        self._selection = selection
        self._rules = {rule.id: rule for rule in selection.active}
        self._alarm = alarm or Alarm()
        self._about = about
        self._has_told_about = False
        self._stream = (stream or sys.stderr) if self._action.tells else None
        self._inbox: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = Guard(limit=None)
        self._pid = os.getpid()
        self._dropped = 0
        self._model = Model({})
        self._steps: OrderedDict[int, dict[int, TensorStats]] = OrderedDict()
        self._waiting: set[int] = set()
        self._baseline: tuple[int, dict[int, TensorStats]] | None = None
        self._scalars: dict[str, list[tuple[int, float]]] = {}
        self._episodes: dict[str, Episode] = {}
        self._last_step = 0

    # -- called by the monitor, on the training thread -----------------------------------------------------------------

    def describe(self, description: RunDescription, tensors: Sequence[TensorInfo]) -> None:
        """The model as it is known now."""
        self._put(self._take_description, description, list(tensors))

    def replicas(self, digests: Mapping[str, str]) -> None:
        """Says nothing here: other ranks are not seen."""

    def record(self, step: int, count: int, rows: Rows) -> bool:  # noqa: ARG002 - as the client's
        """One sampled step; `rows` is called on the diagnosis thread."""
        return self._put(self._take_rows, step, rows)

    def scalar(self, step: int, name: str, value: float | Callable[[], float]) -> bool:
        """One logged number."""
        return self._put(self._take_scalar, step, name, value)

    def reached(self, step: int) -> None:
        """Everything up to `step` was handed over: it can be judged."""
        if self._thread is not None:
            self._put(self._judge, step)

    def close(self, status: RunStatus, timeout: float | None = None) -> None:
        """Judges what is left, for at most `timeout` seconds, and ends the thread."""
        self._put(self._end, status)
        self._inbox.put(None)
        if self._thread is not None and self._pid == os.getpid() and not self._is_here():
            self._thread.join(_CLOSE_SECONDS if timeout is None else timeout)

    def open_findings(self, timeout: float = 10.0) -> list[Finding]:
        """Findings that are open, worst first, after everything handed over so far was judged."""
        self._put(self._judge, sys.maxsize)
        self._settle(timeout)
        return _told(self._episodes)

    def report(self) -> str:
        """The verdict and every finding, in text."""
        findings = self.open_findings()
        report = text.report(findings, self._last_step, self._dropped)
        return f"{self._about}\n{report}" if self._about else report

    # -- on the diagnosis thread ---------------------------------------------------------------------------------------

    def _take_description(self, description: RunDescription, tensors: list[TensorInfo]) -> None:
        self._model = Model({t.key: t for t in tensors}, description)

    def _take_rows(self, step: int, rows: Rows) -> None:
        records = dict(rows())
        if self._baseline is None:
            self._baseline = (step, records)
        self._steps[step] = records
        while len(self._steps) > WINDOW_STEPS:
            self._steps.popitem(last=False)
        self._waiting.add(step)

    def _take_scalar(self, step: int, name: str, value: float | Callable[[], float]) -> None:
        series = self._scalars.setdefault(name, [])
        series.append((step, float(value() if callable(value) else value)))
        if len(series) > _MOST_SCALARS:
            del series[START_STEPS]

    def _judge(self, reached: int) -> None:
        for step in sorted(s for s in self._waiting if s <= reached):
            self._waiting.discard(step)
            steps = {s: r for s, r in self._steps.items() if s <= step}
            if self._baseline is None or step not in steps:
                continue
            window = Window(self._model, steps, self._baseline[1], self._baseline[0], self._scalars)
            failed: set[str] = set()
            found = self._found(window, self._failed(failed))
            could = judged(window, self._selection.active) - failed
            self._episodes, changes = advance(self._episodes, found, step, self._rules, could)
            self._last_step = max(self._last_step, step)
            self._tell(changes)

    def _found(self, window: Window, on_error: Callable[[Rule, Exception], None]) -> list[Finding]:
        """As `diagnose`, with a pause after each rule: the training must not wait for all of them."""
        self._pause()
        found: list[Finding] = []
        for some in checked(window, self._selection.active, self._selection.limits, on_error):
            found += some
            self._pause()
        folded = fold(found, self._rules, window)
        self._pause()
        return folded

    def _failed(self, failed: set[str]) -> Callable[[Rule, Exception], None]:
        """Notes a rule that raised at this step: the others judge, and its silence is no all-clear."""

        def note(rule: Rule, error: Exception) -> None:
            failed.add(rule.id)
            if not self._guard.swallows(error, f"rule {rule.id}"):
                raise error

        return note

    def _end(self, status: RunStatus) -> None:
        self._judge(sys.maxsize)
        self._episodes, _ = close(self._episodes, self._last_step)
        findings = _told(self._episodes)
        self._write(text.ending(findings, self._last_step, status))

    def _tell(self, changes: Sequence[Transition]) -> None:
        for change in changes:
            episode = self._episodes.get(change.fingerprint)
            if episode is None or episode.parent is not None:
                continue
            if change.to_state is EpisodeState.OPEN:
                # First of all: what is written or called may fail.
                if episode.severity is Severity.CRITICAL:
                    self._alarm.set(replace(episode.finding, severity=episode.severity))
                if change.from_state is not EpisodeState.OPEN and self._action.call is not None:
                    with self._guard.shield("on_finding callback"):
                        self._action.call(episode.finding)
                if episode.severity is not Severity.INFO:
                    self._write(text.opened(episode.finding))
            elif change.to_state is EpisodeState.RESOLVED and episode.severity is not Severity.INFO:
                self._write(text.resolved(episode.finding, change.step))

    def _write(self, words: str) -> None:
        if self._stream is None or not words:
            return
        if self._about and not self._has_told_about:
            self._has_told_about = True
            words = f"{self._about}\n{words}"
        self._stream.write(words + "\n")
        self._stream.flush()

    # -- the queue -----------------------------------------------------------------------------------------------------

    def _put(self, work: Callable[..., None], *arguments: Any) -> bool:
        if self._pid != os.getpid():
            return False
        if self._inbox.qsize() >= _MOST_WAITING:
            self._dropped += 1
            warn("initscope: the diagnosis is behind the training; some steps are not judged")
            return False
        self._inbox.put((work, arguments))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="initscope-diagnosis", daemon=True)
            self._thread.start()
        return True

    def _run(self) -> None:
        while (message := self._inbox.get()) is not None:
            work, arguments = message
            with self._guard.shield("diagnosis"):
                work(*arguments)

    def _is_here(self) -> bool:
        """Whether a callback of the user asks: its thread cannot wait for itself."""
        return self._thread is threading.current_thread()

    def _settle(self, timeout: float) -> None:
        if self._thread is None or not self._thread.is_alive() or self._pid != os.getpid() or self._is_here():
            return
        done = threading.Event()
        self._inbox.put((done.set, ()))
        deadline = time.monotonic() + timeout
        while not done.wait(0.05) and self._thread.is_alive() and time.monotonic() < deadline:
            continue


def _yield() -> None:
    """Gives the interpreter to whoever waits for it: this thread is never what the training waits for."""
    time.sleep(_PAUSE_SECONDS)


_PAUSE_SECONDS: Final = 1e-4
_TOLD: Final = (EpisodeState.OPEN, EpisodeState.CLOSED)


def _told(episodes: Mapping[str, Episode]) -> list[Finding]:
    """Findings that are open or were at the end, worst first, with the severity that their episode has."""
    roots = [e for e in episodes.values() if e.parent is None and e.state in _TOLD]
    roots.sort(key=lambda e: (-e.severity.rank, e.first_step))
    return [replace(e.finding, severity=e.severity) for e in roots]
