"""The background loop: evaluates what is new, and notices runs that fell silent."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from initscope.hooks.rules.selection import Selection
from initscope.service.alerting.evaluate import Evaluator
from initscope.service.store import evaluation
from initscope.service.store.engine import Busy, Database
from initscope.service.store.evaluation import Work

_LOG: Final = logging.getLogger("initscope.worker")
_PERIOD: Final = 0.2
_LOST_CHECK_PERIOD: Final = 10.0
_AFTER_ERROR: Final = 2.0
_AFTER_BAD_RUN: Final = 60.0


class Timer(Protocol):
    """Where the duration of an evaluation is noted."""

    def observe(self, amount: float) -> None:
        """Seconds."""


class Worker:
    """One thread, stoppable between two runs."""

    def __init__(self, database: Database, duration: Timer | None = None, selection: Selection | None = None) -> None:
        self._database = database
        self._evaluator = Evaluator(database, selection)
        self._duration = duration
        self._retry_at: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="initscope-worker", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the thread after the run it is at."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _loop(self) -> None:
        next_lost_check = 0.0
        while not self._stop.is_set():
            wait = _PERIOD
            try:
                if time.monotonic() >= next_lost_check:
                    next_lost_check = time.monotonic() + _LOST_CHECK_PERIOD
                    self._mark_lost()
                self._evaluate()
            except (SQLAlchemyError, Busy) as error:
                # A database that is away must neither end the loop nor open or close an episode.
                _LOG.warning("evaluation waits for the database: %s", type(error).__name__)
                wait = _AFTER_ERROR
            except Exception:  # noqa: BLE001 - a named background loop: it ends with the process only
                _LOG.exception("evaluation failed; trying again")
                wait = _AFTER_ERROR
            self._stop.wait(wait)

    def _mark_lost(self) -> None:
        with self._database.write() as connection:
            evaluation.mark_lost(connection, datetime.now(UTC))

    def _evaluate(self) -> None:
        with self._database.read() as connection:
            work = evaluation.pending(connection)
        for item in work:
            if self._stop.is_set():
                return
            self._judge(item)

    def _judge(self, item: Work) -> None:
        if self._retry_at.get(item.run_no, 0.0) > time.monotonic():
            return
        started = time.perf_counter()
        try:
            count = self._evaluator.evaluate(item)
        except (SQLAlchemyError, Busy):
            raise
        except Exception:  # noqa: BLE001 - a named background loop: one bad run must not silence all others
            _LOG.exception("run %s cannot be evaluated; trying again", item.run_id)
            self._retry_at[item.run_no] = time.monotonic() + _AFTER_BAD_RUN
            return
        if count and self._duration is not None:
            self._duration.observe(time.perf_counter() - started)
