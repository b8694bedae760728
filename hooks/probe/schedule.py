"""Which steps are sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

DEFAULT_STAGES: Final = ((20, 1), (200, 10), (10_000, 100))
"""(last step, every): each step to 20, every tenth to 200, every hundredth to 10,000."""
DEFAULT_AFTER: Final = 1_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps are dense at the start and sparse later. `stages` are (last step, every), ascending; then `after`."""

    stages: tuple[tuple[int, int], ...] = DEFAULT_STAGES
    after: int = DEFAULT_AFTER

    def __post_init__(self) -> None:
        last = -1
        for stage in self.stages:
            if len(stage) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in stage):
                raise ValueError(f"schedule: each stage is (last step, every) in whole numbers, got {stage!r}")
            if stage[0] <= last or stage[1] < 1:
                raise ValueError(
                    f"schedule: last steps must ascend and `every` must be at least 1, got {self.stages!r}"
                )
            last = stage[0]
        if not isinstance(self.after, int) or self.after < 1:
            raise ValueError(f"schedule: `after` must be a whole number of at least 1, got {self.after!r}")

    def __call__(self, step: int) -> bool:
        """Whether a step is sampled."""
        every = next((every for last, every in self.stages if step <= last), self.after)
        return step % every == 0


Given = Schedule | int | Iterable[int] | Callable[[int], bool] | None


def schedule_from(given: Given) -> Callable[[int], bool]:
    """A schedule from what a user gives: nothing, every n steps, a collection of steps, or a function of the step."""
    if given is None:
        return Schedule()
    if isinstance(given, bool):
        raise TypeError("schedule: give a number of steps, a collection of steps or a function, not a bool")
    if isinstance(given, int):
        if given < 1:
            raise ValueError(f"schedule: every how many steps? It must be at least 1, got {given}")
        return Schedule((), given)
    if callable(given):
        return given
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        steps = frozenset(given)
        if not steps or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in steps):
            raise ValueError("schedule: a collection of steps needs at least one whole number, none below 0")
        return steps.__contains__
    raise TypeError(
        "schedule: give every how many steps (10), a collection of steps (range(0, 100, 5)), a function step -> bool, "
        f"or a Schedule; got {type(given).__name__}"
    )
