from __future__ import annotations

import gc
import logging

import pytest

from initscope.hooks.client import notices
from initscope.hooks.client.guard import Guard


def quiet(**options: object) -> Guard:
    return Guard(environ={}, **options)  # type: ignore[arg-type]


def fail(guard: Guard, error: BaseException, place: str = "forward hook") -> None:
    with guard.shield(place):
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), RecursionError(), RuntimeError("out of memory")])
def test_an_error_of_ours_stays_inside_and_is_counted(error: Exception) -> None:
    guard = quiet()
    fail(guard, error)
    assert (guard.errors, guard.off) == (1, False)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_passes(error: type[BaseException]) -> None:
    guard = quiet()
    with pytest.raises(error):
        fail(guard, error())
    assert guard.errors == 0


def test_it_switches_itself_off_after_three_errors(caplog: pytest.LogCaptureFixture) -> None:
    guard = quiet()
    for _ in range(2):
        fail(guard, ValueError())
        assert not guard.off
    fail(guard, ValueError())
    assert guard.off
    assert sum("switched off after 3" in r.getMessage() for r in caplog.records) == 1


def test_it_tells_the_first_error_of_a_place_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    guard = quiet()
    fail(guard, ValueError("first"))
    fail(guard, ValueError("second"))
    fail(quiet(), ValueError("other"), "backward hook")
    told = [r for r in caplog.records if r.exc_info]
    assert [r.args for r in told] == [("forward hook",), ("backward hook",)]
    assert "first" in caplog.text
    assert "second" not in caplog.text


def test_a_guard_without_limit_never_switches_off() -> None:
    guard = quiet(limit=None)
    for _ in range(20):
        fail(guard, ValueError())
    assert (guard.errors, guard.off) == (20, False)


def test_errors_that_are_not_ours_go_through_untouched() -> None:
    class DeviceError(RuntimeError):
        pass

    guard = quiet(passes=(DeviceError,))
    with pytest.raises(DeviceError):
        fail(guard, DeviceError())
    assert guard.errors == 0


def test_in_tests_everything_is_raised() -> None:
    guard = Guard(environ={"INITSCOPE_RAISE": "1"})
    with pytest.raises(ValueError, match="ours"):
        fail(guard, ValueError("ours"))


def test_a_broken_log_handler_does_not_reach_the_training() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(f"no room for {record.msg}")

    handler = Broken()
    notices.LOGGER.addHandler(handler)
    try:
        guard = quiet()
        fail(guard, ValueError())
        assert guard.errors == 1
    finally:
        notices.LOGGER.removeHandler(handler)


def test_shields_nest_and_survive_a_finalizer_that_uses_them() -> None:
    guard = quiet()

    class Finalized:
        def __del__(self) -> None:
            fail(guard, ValueError("in a finalizer"))

    with guard.shield("outer"):
        loop = [Finalized()]
        loop.append(loop)  # type: ignore[arg-type]
        del loop
        gc.collect()
        fail(guard, ValueError("inner"))
    assert guard.errors == 2


def test_the_same_sentence_is_said_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(notices.time, "monotonic", lambda: now[0])
    said = [notices.warn("the collector is away"), notices.warn("the collector is away")]
    now[0] += 61
    said.append(notices.warn("the collector is away"))
    said.append(notices.warn("the collector is away", about="another"))
    assert said == [True, False, True, True]
    assert len(caplog.records) == 3


def test_foreign_text_cannot_forge_log_lines() -> None:
    assert notices.printable("a\nWARNING b\x1b[31m" + "x" * 500) == "a WARNING b [31m" + "x" * 184
