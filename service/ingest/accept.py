"""From a decoded batch to committed rows: one transaction, and its identity in the same one, so exactly once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from sqlalchemy import Connection

from initscope.hooks.vocabulary import RunStatus
from initscope.hooks.wire import Header, Heartbeat
from initscope.service.ingest import tensors
from initscope.service.ingest.decode import Decoded, plain_books
from initscope.service.ingest.records import Judged, Rejection, judge
from initscope.service.ingest.refusal import Refusal
from initscope.service.ingest.tally import Tally
from initscope.service.ingest.tensors import Catalog, Catalogs
from initscope.service.store import rows, writes
from initscope.service.store.engine import Database
from initscope.service.store.writes import RunState, SessionState

_ENDED = (RunStatus.FINISHED, RunStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a batch. `accepted` counts records and scalars; `rejected` is empty for a duplicate."""

    accepted: int
    duplicate: bool
    rejected: Sequence[Rejection]
    rejected_count: int


class Ingest:
    """Accepts batches and heartbeats. Thread-safe; several collectors may share one PostgreSQL."""

    def __init__(self, database: Database, tally: Tally) -> None:
        self._database = database
        self._tally = tally
        self._catalogs = Catalogs()

    def accept(self, batch: Decoded) -> Accepted:
        """Stores a batch. Returns after the commit; `Refusal` 409 if the batch contradicts what is stored."""
        now = datetime.now(UTC)
        tries = count()

        def write(connection: Connection) -> tuple[Accepted, RunState, Catalog | None]:
            return self._write(connection, batch, now, hopeful=next(tries) == 0)

        accepted, run, catalog = self._database.transact(write)
        if catalog is not None:
            self._catalogs.put(run, catalog)
        self._count(batch, accepted)
        return accepted

    def beat(self, heartbeat: Heartbeat) -> bool:
        """Notes a sign of life; False, and nothing is stored, for a session that has not sent a batch."""
        now = datetime.now(UTC)
        books = plain_books(heartbeat.books)
        self._tally.add("heartbeats")
        return self._database.transact(lambda connection: _beat(connection, heartbeat, books, now))

    def _write(
        self, connection: Connection, batch: Decoded, now: datetime, *, hopeful: bool
    ) -> tuple[Accepted, RunState, Catalog | None]:
        """Hopeful: relies on the cache and on rows being new. Where that was wrong, `transact` comes again."""
        header = batch.header
        run = writes.lock_run(connection, header.run, now)
        session = _session(connection, run, header, now)
        if session.stored is not None:
            accepted, rejected_count = session.stored
            return Accepted(accepted, True, (), rejected_count), run, None
        known = self._catalogs.get(run) if hopeful else None
        catalog = tensors.describe(
            connection, run.run_no, known or tensors.load(connection, run.run_no), header.tensors
        )
        judged = judge(batch.records, run.run_no, header.run.attempt, catalog.numbers)
        if known is not None and any(rejection.code == "unknown_tensor" for rejection in judged.rejected):
            # Another collector may have been told of them.
            catalog = tensors.load(connection, run.run_no)
            judged = judge(batch.records, run.run_no, header.run.attempt, catalog.numbers)
        _store(connection, run, header, judged, hopeful=hopeful)
        stored_count = len(judged.rows) + len(header.scalars)
        writes.add_batch(connection, session.session_no, header.sequence, stored_count, len(judged.rejected), now)
        steps = {row[rows.STEP] for row in judged.rows}
        if steps:
            writes.mark_dirty(connection, run.run_no, header.run.attempt, min(steps))
        steps |= {scalar.step for scalar in header.scalars}
        _save_session(connection, session, batch, steps, now)
        _save_run(connection, run, batch, steps, now)
        return Accepted(stored_count, False, judged.rejected, len(judged.rejected)), run, catalog

    def _count(self, batch: Decoded, accepted: Accepted) -> None:
        self._tally.add("batches", label="duplicate" if accepted.duplicate else "accepted")
        self._tally.add("unknown_fields", batch.unknown_fields)
        if accepted.duplicate:
            return
        self._tally.add("records", accepted.accepted - len(batch.header.scalars))
        self._tally.add("scalars", len(batch.header.scalars))
        for rejection in accepted.rejected:
            self._tally.add("rejected", label=rejection.code)


def _session(connection: Connection, run: RunState, header: Header, now: datetime) -> SessionState:
    """The batch's session, created or moved to a later attempt; 409 if it belongs to another run."""
    session = writes.find_session(connection, header.session.session_id, header.sequence)
    if session is not None and session.run_no != run.run_no:
        raise Refusal(409, "session_conflict", "this session belongs to another run", field="session.session_id")
    attempt = header.run.attempt
    if session is None or session.attempt != attempt:
        first_step = header.description.first_step if header.description else None
        writes.ensure_attempt(connection, run.run_no, attempt, header.session.world_size, first_step, now)
    return session or writes.add_session(connection, run.run_no, attempt, header.session, now)


def _store(connection: Connection, run: RunState, header: Header, judged: Judged, *, hopeful: bool) -> None:
    """Writes rows and scalars; rows that cannot be stored beside those that exist move to `rejected`."""
    if header.session.world_size > 1:
        # Rows meet those of other ranks. A session that sends a row again would merge it twice: clients never do.
        beyond = rows.merge(connection, run.run_no, header.run.attempt, judged.rows)
        _reject(judged, beyond, "bad_count")
    else:
        if not hopeful:
            stored = rows.find(connection, run.run_no, header.run.attempt, map(rows.key_of, judged.rows))
            _reject(judged, stored.keys(), "duplicate_row")
        rows.insert(connection, judged.rows)
    if header.scalars:
        is_first = header.session.rank == 0
        writes.save_scalars(connection, run.run_no, header.run.attempt, header.scalars, wins=is_first)


def _reject(judged: Judged, keys: Collection[rows.Key], code: str) -> None:
    if not keys:
        return
    pairs = list(zip(judged.rows, judged.indices, strict=True))
    kept = [(row, index) for row, index in pairs if rows.key_of(row) not in keys]
    judged.rejected += [Rejection(index, code) for row, index in pairs if rows.key_of(row) in keys]
    judged.rejected.sort(key=lambda rejection: rejection.index)
    judged.rows, judged.indices = [row for row, _ in kept], [index for _, index in kept]


def _save_session(
    connection: Connection, session: SessionState, batch: Decoded, steps: Collection[int], now: datetime
) -> None:
    header = batch.header
    values: dict[str, Any] = {"last_seen_at": now}
    if header.run.attempt >= session.attempt:
        # Steps of an earlier attempt say nothing about this one.
        same = header.run.attempt == session.attempt
        last, current = (session.last_step, session.current_step) if same else (None, None)
        values["attempt"] = header.run.attempt
        values["status"] = (header.status if header.status in _ENDED else RunStatus.RUNNING).value
        values["last_step"] = _latest(last, header.last_step)
        values["current_step"] = _latest(current, header.last_step, *steps)
    if batch.books is not None:
        values["books"] = batch.books
    if header.digests:
        values["digests"] = header.digests
    writes.save_session(connection, session.session_no, values)


def _save_run(connection: Connection, run: RunState, batch: Decoded, steps: Collection[int], now: datetime) -> None:
    header = batch.header
    values: dict[str, Any] = {"last_seen_at": now}
    attempt = max(run.attempt, header.run.attempt)
    if header.run.attempt == attempt:
        before = run.last_step if run.attempt == attempt else None
        last = _latest(before, header.last_step, *steps)
        if last != before:
            values |= {"attempt": attempt, "last_step": last, "last_step_at": now}
        elif attempt != run.attempt:
            values |= {"attempt": attempt, "last_step": None}
        values |= _status(connection, run, header, attempt, now)
    if batch.description is not None and (header.session.rank == 0 or not run.is_described):
        values["description"] = batch.description
        if not run.is_described:
            values["tags"] = batch.description["tags"]
    writes.save_run(connection, run.run_no, values)


def _status(connection: Connection, run: RunState, header: Header, attempt: int, now: datetime) -> dict[str, Any]:
    """Failed as soon as one rank failed; running while one runs; finished when all finished."""
    if run.status is RunStatus.RUNNING and header.status not in _ENDED:
        return {}
    ranks = writes.session_statuses(connection, run.run_no, attempt)
    if RunStatus.FAILED in ranks:
        status = RunStatus.FAILED
    else:
        status = RunStatus.RUNNING if RunStatus.RUNNING in ranks else RunStatus.FINISHED
    if status is run.status:
        return {}
    return {"status": status.value, "ended_at": now if status in _ENDED else None}


def _beat(connection: Connection, heartbeat: Heartbeat, books: dict[str, Any] | None, now: datetime) -> bool:
    if writes.find_session(connection, heartbeat.session.session_id) is None:
        return False
    run = writes.lock_run(connection, heartbeat.run, now)
    session = writes.find_session(connection, heartbeat.session.session_id)
    if session is None or session.run_no != run.run_no:
        raise Refusal(409, "session_conflict", "this session belongs to another run", field="session.session_id")
    current = _latest(session.current_step, heartbeat.last_step)
    writes.save_session(
        connection, session.session_no, {"last_seen_at": now, "current_step": current, "books": books or {}}
    )
    values: dict[str, Any] = {"last_seen_at": now}
    if current != session.current_step:
        values["last_step_at"] = now
    if run.status is RunStatus.LOST:
        values["status"] = RunStatus.RUNNING.value
    writes.save_run(connection, run.run_no, values)
    return True


def _latest(*steps: int | None) -> int | None:
    return max((step for step in steps if step is not None), default=None)
