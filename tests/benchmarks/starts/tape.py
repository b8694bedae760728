"""Records what the diagnosis of a watched training is told, and tells it again to any rules, without the training.

A tape holds the messages of `LocalDiagnosis` in their order: descriptions, rows, logged numbers, steps reached, and
when the adapter asked. Replaying feeds them to a new `LocalDiagnosis`, so that a replay is the same code as a run.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from initscope.hooks import Finding
from initscope.hooks.moments import ChannelStats, Moments, TensorStats
from initscope.hooks.probe.acting import Action
from initscope.hooks.probe.local import LocalDiagnosis, Rows
from initscope.hooks.rules import Rule
from initscope.hooks.rules.selection import Selection
from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import OptimizerInfo, RunDescription, TensorInfo, Traits
from tests.benchmarks.verdicts import Book

_MOMENTS: Final = len(astuple(Moments()))
_INTEGERS: Final = 5
"""The first fields of Moments are counts."""


@dataclass(frozen=True)
class Told:
    """Rows of one step, packed: keys [n] and statistics [n, fields] in float64 (counts stay exact under 2⁵³)."""

    step: int
    keys: list[int]
    values: NDArray[np.float64]

    @staticmethod
    def of(step: int, rows: Sequence[tuple[int, TensorStats]]) -> Told:
        """Rows as they are handed to a diagnosis."""
        values = [[*astuple(stats.moments), *astuple(stats.channels)] for _, stats in rows]
        return Told(step, [key for key, _ in rows], np.array(values, dtype=np.float64))

    def unpack(self) -> list[tuple[int, TensorStats]]:
        """The rows."""
        return [(key, _stats(line)) for key, line in zip(self.keys, self.values.tolist(), strict=True)]


def _stats(line: list[float]) -> TensorStats:
    counts = [int(x) for x in line[:_INTEGERS]]
    return TensorStats(Moments(*counts, *line[_INTEGERS:_MOMENTS]), ChannelStats(*line[_MOMENTS:]))


@dataclass(frozen=True)
class Message:
    """One call of the diagnosis: its name and what it was given."""

    verb: str
    given: Any = None


@dataclass
class Tape:
    """What the diagnosis of one watched module was told. `part` is the module's path in the model."""

    part: str = ""
    messages: list[Message] = field(default_factory=list)

    def unpack(self) -> None:
        """Makes messages ready to be told, once for many replays."""
        self.messages = [_ready(message) for message in self.messages]


def _ready(message: Message) -> Message:
    if message.verb == "told":
        return Message("rows", (message.given.step, message.given.unpack()))
    if message.verb == "described":
        description, tensors = message.given
        return Message("describe", (_description(description), [_tensor(t) for t in tensors]))
    return message


def _description(told: Mapping[str, Any]) -> RunDescription:
    optimizers = [OptimizerInfo(**_known(OptimizerInfo, o)) for o in told["optimizers"]]
    return RunDescription(**{**_known(RunDescription, told), "optimizers": optimizers})


def _tensor(told: Mapping[str, Any]) -> TensorInfo:
    traits = told.get("traits")
    read = None if traits is None else Traits(**_known(Traits, traits))
    return TensorInfo(**{**_known(TensorInfo, told), "traits": read})


def _known(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in told.items() if name in names}


class Recorder(LocalDiagnosis):
    """A diagnosis that writes a tape and judges nothing: recording costs no rules."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.tape = Tape()

    def describe(self, description: RunDescription, tensors: Sequence[TensorInfo]) -> None:
        """The model as it is known now."""
        # As plain fields: a tape stays readable when the wire gets new ones.
        self._note("described", (asdict(description), [asdict(t) for t in tensors]))

    def record(self, step: int, count: int, rows: Rows) -> bool:  # noqa: ARG002 - as the diagnosis
        """One sampled step."""
        self._note("told", Told.of(step, rows()))
        return True

    def scalar(self, step: int, name: str, value: float | Callable[[], float]) -> bool:
        """One logged number."""
        self._note("scalar", (step, name, float(value() if callable(value) else value)))
        return True

    def reached(self, step: int) -> None:
        """Everything up to `step` was handed over."""
        self._note("reached", step)

    def open_findings(self, timeout: float = 10.0) -> list[Finding]:  # noqa: ARG002 - as the diagnosis
        """Nothing is found; that somebody asked is written down."""
        self._note("asked", None)
        return []

    def _put(self, work: Callable[..., None], *arguments: Any) -> bool:  # noqa: ARG002 - nothing is done
        return True

    def _note(self, verb: str, given: Any) -> None:
        self.tape.messages.append(Message(verb, given))


class _AtOnce(LocalDiagnosis):
    """A diagnosis that works where it is called, without a thread and without pauses: nobody waits for it."""

    def reached(self, step: int) -> None:
        """As with a thread that has started."""
        self._put(self._judge, step)

    def _put(self, work: Callable[..., None], *arguments: Any) -> bool:
        work(*arguments)
        return True


@contextmanager
def recording() -> Iterator[None]:
    """Watches that begin inside write a tape."""
    with mock.patch("initscope.hooks.probe.monitor.LocalDiagnosis", Recorder):
        yield


def replay(tapes: Sequence[Tape], rules: Sequence[Rule]) -> dict[str, Any]:
    """The verdict of the adapter over what was recorded, by these rules."""
    book = Book()
    for tape in tapes:
        _replay(tape, rules, book)
    return book.verdict()


def _replay(tape: Tape, rules: Sequence[Rule], book: Book) -> None:
    diagnosis = _AtOnce(Selection(tuple(rules)), action=Action(tells=False), pause=lambda: None)
    step, is_new = 0, False
    for message in tape.messages:
        match message.verb:
            case "describe":
                diagnosis.describe(*message.given)
            case "rows":
                at, rows = message.given
                diagnosis.record(at, len(rows), lambda rows=rows: rows)  # type: ignore[misc]
                is_new = True
            case "scalar":
                diagnosis.scalar(*message.given)
            case "reached":
                diagnosis.reached(message.given)
            case "asked":
                if is_new:  # what is open changes only where a step was judged
                    book.note(step, [(tape.part, diagnosis.open_findings())])
                step, is_new = step + 1, False
    diagnosis.close(RunStatus.FINISHED)


@dataclass
class Run:
    """One recorded training: its tapes, all its losses, and what went wrong in the adapter."""

    tapes: list[Tape]
    losses: list[float]
    trouble: str = ""


def save(path: Path, run: Run) -> None:
    """Writes a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(run, protocol=5))


def load(path: Path) -> Run:
    """A run whose tapes are ready to be replayed."""
    run: Run = pickle.loads(path.read_bytes())  # noqa: S301 - our own files
    for tape in run.tapes:
        tape.unpack()
    return run
