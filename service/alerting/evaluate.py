"""From new rows to episodes: window → rules → life cycle → findings and transitions, a step after the other."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection

from initscope.hooks.rules import (
    Episode,
    Model,
    Transition,
    Window,
    advance,
    close,
    diagnose,
    judged,
    reopen,
)
from initscope.hooks.rules.selection import Selection, select
from initscope.hooks.rules.window import START_STEPS, WINDOW_STEPS, StepStats
from initscope.hooks.vocabulary import EpisodeState
from initscope.service.alerting import episodes as rows
from initscope.service.alerting.failures import Failures
from initscope.service.store import evaluation
from initscope.service.store.engine import Database
from initscope.service.store.evaluation import Work
from initscope.service.store.read_tensors import load_tensors

_GRACE: Final = 2.0
"""Seconds that a step waits for ranks that have not reached it."""
_STEPS_PER_PASS: Final = 50
"""Steps that one pass takes on, so that one long run does not keep the others waiting."""
_CACHED_ATTEMPTS: Final = 64


@dataclass
class _Attempt:
    """What the evaluator remembers of an attempt between two passes; the database has all of it."""

    model: Model
    baseline_step: int
    baseline: StepStats
    steps: OrderedDict[int, StepStats]
    episodes: dict[str, Episode]
    evaluated_step: int | None = None
    tensor_revision: int | None = None
    """Of the descriptions in `model`; None before any were read."""


@dataclass
class _Outcome:
    """What a pass wants to write."""

    step: int
    episodes: dict[str, Episode]
    dirty_step: int | None = None
    changed: dict[str, Episode] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    transitions: list[Transition] = field(default_factory=list)

    def has_news(self, work: Work) -> bool:
        """Whether anything differs from what is stored."""
        has_moved = self.dirty_step != work.dirty_step or self.step > (
            -1 if work.evaluated_step is None else work.evaluated_step
        )
        return has_moved or bool(self.changed or self.dropped)


@dataclass(frozen=True)
class _Seen:
    """What a pass read: how many rows there were of the steps later than `after`, up to `until`."""

    after: int
    until: int
    rows: tuple[int, int]


@dataclass(frozen=True)
class _Read:
    """What a pass found: the attempt, the steps to judge (`is_done`: no others wait), their records, the scalars."""

    state: _Attempt | None
    ready: list[int]
    is_done: bool
    records: Mapping[int, StepStats]
    scalars: Mapping[str, list[tuple[int, float]]]
    seen: _Seen
    replicas: Mapping[int, Mapping[str, str]]
    """What each rank started with, where the start is judged: digests by full name of a parameter, by rank."""


class Evaluator:
    """Runs the rules over attempts with new rows. Not thread-safe: one worker owns it.

    `selection` holds for every run (default: the catalogue); a run's own limits, which its description carries, go on
    top.
    """

    def __init__(
        self,
        database: Database,
        selection: Selection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._selection = selection or select()
        self._rules = {rule.id: rule for rule in self._selection.rules}
        self._failures = Failures(clock)
        self._clock = clock
        self._cache: OrderedDict[tuple[int, int], _Attempt] = OrderedDict()
        self._waiting_since: dict[tuple[int, int, int], float] = {}

    def evaluate(self, work: Work) -> int:
        """Judges what is ready of an attempt, at most 50 steps of it; the number of steps judged."""
        found = self._read(work)
        state, ready, is_done = found.state, found.ready, found.is_done
        outcome = self._judge(work, found)
        if is_done and work.has_ended and state is not None:
            self._close(state, outcome)
        outcome.step = max(outcome.step, found.seen.until)
        outcome.dirty_step = None if is_done else self._still_dirty(work, ready)
        if outcome.has_news(work):
            self._save(work, state, outcome, found.seen)
        elif state is not None:
            self._keep(work, state)
        return len(ready)

    def _read(self, work: Work) -> _Read:
        """All that a pass needs, as of one moment."""
        with self._database.read() as connection:
            after = self._resume_after(work)
            new = evaluation.steps_between(connection, work, after)
            reached = evaluation.reached_step(connection, work)
            ready = self._ready(work, new, reached)[:_STEPS_PER_PASS]
            until = self._until(work, new, ready, reached)
            state = self._state(connection, work, ready)
            records = evaluation.load_steps(connection, work, ready) if ready else {}
            seen = _Seen(after, until, evaluation.count_rows(connection, work, after, until))
            scalars = self._scalars(connection, work, state)
            is_start = state is not None and state.baseline_step in ready and work.world_size > 1
            replicas = evaluation.load_digests(connection, work) if is_start else {}
        return _Read(state, ready, len(ready) == len(new), records, scalars, seen, replicas)

    @staticmethod
    def _until(work: Work, new: Sequence[int], ready: Sequence[int], reached: int | None) -> int:
        """The last step that this pass is done with. Steps that were not sampled are done with, too."""
        last = ready[-1] if ready else -1
        if len(ready) < len(new):
            return last
        end = work.last_step if work.is_silent else reached
        return last if end is None else max(last, end)

    @staticmethod
    def _still_dirty(work: Work, ready: Sequence[int]) -> int | None:
        """Where late rows remain to be judged by the next pass."""
        if work.dirty_step is None or not ready:
            return work.dirty_step
        return ready[-1] + 1 if ready[-1] < (work.evaluated_step or 0) else None

    @staticmethod
    def _resume_after(work: Work) -> int:
        evaluated = -1 if work.evaluated_step is None else work.evaluated_step
        return evaluated if work.dirty_step is None else min(evaluated, work.dirty_step - 1)

    def _ready(self, work: Work, new: Sequence[int], reached: int | None) -> list[int]:
        """The leading steps that every rank has reached, or that waited long enough for the ranks that did not."""
        now = self._clock()
        # Every step waits from when its own first row was seen, not from when the step before it was judged.
        seen = {step: self._waiting_since.setdefault((work.run_no, work.attempt, step), now) for step in new}
        ready: list[int] = []
        for step in new:
            complete = work.is_silent or (reached is not None and step <= reached)
            if not complete and now - seen[step] < _GRACE:
                break
            del self._waiting_since[work.run_no, work.attempt, step]
            ready.append(step)
        return ready

    def _state(self, connection: Connection, work: Work, ready: Sequence[int]) -> _Attempt | None:
        # Taken out: what a pass has changed and could not save must not be where the next one begins.
        state = self._cache.pop((work.run_no, work.attempt), None)
        if state is None or work.dirty_step is not None or state.evaluated_step != work.evaluated_step:
            state = self._load(connection, work, ready)
        if state is not None and ready:
            self._refresh(connection, work, state)
        return state

    @staticmethod
    def _refresh(connection: Connection, work: Work, state: _Attempt) -> None:
        """Brings the model up to date. One that has not changed stays, with what was worked out of it."""
        revision = evaluation.tensor_revision(connection, work)
        is_new = revision != state.tensor_revision
        tensors = load_tensors(connection, work.run_no) if is_new else state.model.tensors
        description = evaluation.load_description(connection, work)
        if description != state.model.description or (is_new and tensors != state.model.tensors):
            state.model = Model(tensors, description)
        state.tensor_revision = revision

    def _keep(self, work: Work, state: _Attempt) -> None:
        self._cache[work.run_no, work.attempt] = state
        while len(self._cache) > _CACHED_ATTEMPTS:
            self._cache.popitem(last=False)

    def _load(self, connection: Connection, work: Work, ready: Sequence[int]) -> _Attempt | None:
        first = evaluation.first_step(connection, work)
        if first is None:
            return None
        before = evaluation.steps_before(connection, work, ready[0], WINDOW_STEPS) if ready else []
        loaded = evaluation.load_steps(connection, work, sorted({first, *before}))
        return _Attempt(
            model=Model({}),
            baseline_step=first,
            baseline=loaded[first],
            steps=OrderedDict((step, loaded[step]) for step in before),
            episodes=rows.from_rows(evaluation.load_episodes(connection, work), work.evaluated_step),
            evaluated_step=work.evaluated_step,
        )

    @staticmethod
    def _scalars(connection: Connection, work: Work, state: _Attempt | None) -> Mapping[str, list[tuple[int, float]]]:
        if state is None:
            return {}
        oldest = next(iter(state.steps), state.baseline_step)
        return evaluation.load_scalars(connection, work, state.baseline_step + START_STEPS, oldest)

    def _judge(self, work: Work, found: _Read) -> _Outcome:
        state, ready = found.state, found.ready
        last = -1 if work.evaluated_step is None else work.evaluated_step
        outcome = _Outcome(last, dict(state.episodes) if state is not None else {})
        selection = self._selection_of(state)
        rules = selection.active
        if ready:
            self._reopen(work, outcome, ready[0])
        for step in ready:
            assert state is not None  # noqa: S101 - a ready step has rows, so the attempt was loaded
            state.steps[step] = found.records[step]
            while len(state.steps) > WINDOW_STEPS:
                state.steps.popitem(last=False)
            window = Window(
                model=state.model,
                steps=dict(state.steps),
                baseline=state.baseline,
                baseline_step=state.baseline_step,
                scalars=found.scalars,
                expected_ranks=work.world_size,
                replicas=found.replicas,
            )
            findings = diagnose(window, rules, selection.limits, self._failures.note)
            could = judged(window, rules) - self._failures.taken()
            before = outcome.episodes
            outcome.episodes, transitions = advance(before, findings, step, self._rules, could)
            self._note(outcome, before, transitions)
            outcome.step = max(outcome.step, step)
        return outcome

    def _selection_of(self, state: _Attempt | None) -> Selection:
        if state is None:
            return self._selection
        description = state.model.description
        return self._selection.for_run(description.limits, description.disabled_rules)

    @staticmethod
    def _note(outcome: _Outcome, before: Mapping[str, Episode], transitions: Sequence[Transition]) -> None:
        outcome.transitions.extend(transitions)
        for fingerprint, episode in outcome.episodes.items():
            if before.get(fingerprint) != episode:
                outcome.changed[fingerprint] = episode
                outcome.dropped.discard(fingerprint)
        for fingerprint in before.keys() - outcome.episodes.keys():
            outcome.changed.pop(fingerprint, None)
            outcome.dropped.add(fingerprint)

    def _reopen(self, work: Work, outcome: _Outcome, step: int) -> None:
        before = outcome.episodes
        outcome.episodes, transitions = reopen(before, step)
        if not work.has_ended:  # rows that come after the end do not make the run go on
            self._note(outcome, before, transitions)

    def _close(self, state: _Attempt, outcome: _Outcome) -> None:
        before = outcome.episodes
        step = max(outcome.step, state.baseline_step)
        outcome.episodes, transitions = close(before, step)
        told = {f: e.episode for f, e in state.episodes.items() if e.state is EpisodeState.CLOSED}
        self._note(outcome, before, [t for t in transitions if told.get(t.fingerprint) != t.episode])

    def _save(self, work: Work, state: _Attempt | None, outcome: _Outcome, seen: _Seen) -> None:
        now = datetime.now(UTC)
        with self._database.write() as connection:
            evaluation.lock_run(connection, work)
            is_whole = evaluation.count_rows(connection, work, seen.after, seen.until) == seen.rows
            if not is_whole or not evaluation.save_step(connection, work, outcome.step, outcome.dirty_step):
                # Rows came while these steps were judged, or another collector judged them: the next pass looks again.
                return
            evaluation.drop_pending(connection, work, outcome.dropped)
            numbers = evaluation.save_episodes(connection, work, rows.to_rows(outcome.changed.values(), now))
            evaluation.save_transitions(connection, rows.transition_rows(outcome.transitions, numbers, now))
        if state is not None:
            state.episodes = outcome.episodes
            state.evaluated_step = outcome.step
            self._keep(work, state)
