from __future__ import annotations

import math
import threading

import httpx
import pytest
from sqlalchemy import event

from initscope.hooks import wire
from initscope.hooks.moments import TensorStats, merge_all
from initscope.hooks.vocabulary import Kind, RunStatus
from initscope.service.ingest.accept import Ingest
from initscope.service.ingest.decode import decode_batch
from initscope.service.ingest.tally import Tally
from initscope.service.store import writes
from initscope.service.store.engine import Database
from initscope.service.store.rows import COLUMNS, to_stats
from tests.support.collector import ENCODERS, Collector, absent, batch, info, stats


def stored(collector: Collector) -> dict[tuple[str, int], TensorStats]:
    columns = ", ".join(f"s.{name}" for name in COLUMNS)
    query = f"SELECT t.module_path, {columns} FROM tensor_stats s JOIN tensors t USING (tensor_no)"  # noqa: S608
    rows = collector.rows(query)
    return {(path, row[COLUMNS.index("step")]): to_stats(tuple(row)) for path, *row in rows}


@pytest.mark.parametrize("media", ENCODERS)
def test_a_batch_is_stored_as_it_was_sent_in_both_encodings(collector: Collector, media: str) -> None:
    sent = {("a", 0): stats(mean=0.1, std=0.3, skewness=-0.5, signal_fraction=0.25), ("b", 7): stats(zero_count=3)}
    answer = collector.send(batch(records=sent), media)
    assert answer == {"accepted": 2, "duplicate": False, "rejected": [], "rejected_count": 0}
    found = stored(collector)
    assert found.keys() == sent.keys()
    for key, record in sent.items():
        # float32 on the wire: 24 bits of mantissa.
        assert found[key].moments.std == pytest.approx(record.moments.std, rel=1e-6)
        assert found[key].moments.mean == pytest.approx(record.moments.mean, rel=1e-6)
        assert found[key].moments.skewness == pytest.approx(record.moments.skewness, rel=1e-5)
        assert found[key].moments.zero_count == record.moments.zero_count
    assert found["a", 0].channels.signal_fraction == 0.25
    assert math.isnan(found["a", 0].channels.dead_fraction)


def test_a_repeated_batch_is_stored_once_and_answered_with_the_same_counts(collector: Collector) -> None:
    bad = {("fc", 0): stats(), ("fc", 1): stats(count=-1)}
    first = collector.send(batch(records=bad, scalars=[wire.Scalar(step=0, name="loss", value=2.0)]))
    before = collector.counts()
    again = collector.send(batch(records=bad, scalars=[wire.Scalar(step=0, name="loss", value=2.0)]))
    assert (first["accepted"], first["rejected_count"], first["duplicate"]) == (2, 1, False)
    assert (again["accepted"], again["rejected_count"], again["duplicate"]) == (2, 1, True)
    assert collector.counts() == before == (1, 1, 1, 1)


def test_the_same_batch_sent_at_the_same_time_is_stored_once(collector: Collector) -> None:
    body = ENCODERS[wire.MEDIA_BINARY](batch(records={("fc", step): stats() for step in range(50)}))
    answers: list[dict[str, object]] = []

    def send() -> None:
        with httpx.Client(base_url=collector.url, headers=collector.http.headers, timeout=30) as http:
            headers = {"Content-Type": wire.MEDIA_BINARY}
            answers.append(http.post("/api/v1/batches", content=body, headers=headers).json())

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["accepted"] for answer in answers] == [50] * 8
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 7
    assert collector.counts() == (1, 1, 50, 0)


def test_non_finite_elements_and_absent_moments_are_kept(collector: Collector) -> None:
    half = stats(count=1000, nan_count=2, posinf_count=3, neginf_count=4)
    collector.send(batch(records={("fc", 0): half, ("fc", 1): absent(10)}))
    rows = collector.rows("SELECT nan_count, posinf_count, neginf_count, mean, m4, max FROM tensor_stats ORDER BY step")
    assert rows[0][:3] == (2, 3, 4)
    assert rows[0][3:] == (0.0, pytest.approx(991 * 3.0), 3.5)
    assert rows[1] == (10, 0, 0, None, None, None)


def test_sums_that_overflowed_are_kept_as_infinite_or_absent(collector: Collector) -> None:
    huge = stats(mean=math.nan, std=math.inf, skewness=math.nan, kurtosis=math.nan, min=-3.0e38, max=3.0e38)
    answer = collector.send(batch(records={("fc", 0): huge}))
    assert answer["rejected_count"] == 0
    ((mean, m2, m4, low),) = collector.rows("SELECT mean, m2, m4, min FROM tensor_stats")
    assert (mean, m2, m4) == (None, math.inf, None)
    assert low == pytest.approx(-3.0e38)


@pytest.mark.parametrize("media", ENCODERS)
def test_logged_numbers_keep_their_class(collector: Collector, media: str) -> None:
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf, "zero": -0.0, "tiny": 5e-324, "large": 1.7e308}
    scalars = [wire.Scalar(step=3, name=name, value=value) for name, value in values.items()]
    collector.send(batch(records={}, tensors=[], scalars=scalars), media)
    rows = {name: (value, kind) for name, value, kind in collector.rows("SELECT name, value, value_class FROM scalars")}
    assert rows["nan"] == (None, "nan")
    assert rows["up"] == (None, "posinf")
    assert rows["down"] == (None, "neginf")
    for name in ("zero", "tiny", "large"):
        assert rows[name] == (values[name], "finite")


def test_ranks_merge_exactly_as_moments_do(collector: Collector) -> None:
    parts = [
        stats(count=100 + rank, mean=0.1 * rank, std=1.0 + rank, skewness=0.2, min=-9.0, max=9.0 + rank, nan_count=rank)
        for rank in range(4)
    ]
    for rank, part in enumerate(parts):
        one = batch(records={("a", 0): part, ("b", rank): part}, session=rank + 1, rank=rank, world_size=4)
        assert collector.send(one)["accepted"] == 2
    found = stored(collector)
    assert len(found) == 5
    travelled = [_through_the_wire(part) for part in parts]
    assert found["a", 0].moments == merge_all(part.moments for part in travelled)
    assert found["b", 3].moments == travelled[3].moments
    assert collector.rows("SELECT session_count FROM tensor_stats ORDER BY session_count DESC") == [(4,)] + [(1,)] * 4


def _through_the_wire(part: TensorStats) -> TensorStats:
    rows = wire.Records.empty()
    rows.append(0, 0, part)
    return rows.row(0)[2]


def test_ranks_that_send_at_the_same_time_lose_nothing(collector: Collector) -> None:
    def send(rank: int) -> None:
        with httpx.Client(base_url=collector.url, headers=collector.http.headers, timeout=30) as http:
            for sequence in range(5):
                records = {("fc", sequence): stats(count=1000), ("fc", sequence + 1): stats(count=1)}
                one = batch(sequence, records, session=rank + 1, rank=rank, world_size=4)
                headers = {"Content-Type": wire.MEDIA_BINARY}
                response = http.post("/api/v1/batches", content=ENCODERS[wire.MEDIA_BINARY](one), headers=headers)
                assert response.status_code == 200, response.text

    threads = [threading.Thread(target=send, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Every rank sends a step twice here, once with 1000 elements and once with one.
    rows = collector.rows("SELECT step, count FROM tensor_stats ORDER BY step")
    assert rows == [(0, 4000), (1, 4004), (2, 4004), (3, 4004), (4, 4004), (5, 4)]


def test_a_row_that_is_stored_already_is_rejected_and_its_neighbours_stored(collector: Collector) -> None:
    collector.send(batch(0, {("fc", 0): stats(mean=0.5)}))
    answer = collector.send(batch(1, {("fc", 1): stats(), ("fc", 0): stats(mean=0.75), ("fc", 2): stats()}))
    assert answer["accepted"] == 2
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(1, "duplicate_row")]
    assert collector.rows("SELECT step, mean FROM tensor_stats ORDER BY step") == [(0, 0.5), (1, 0.0), (2, 0.0)]


def test_attempts_do_not_mix(collector: Collector) -> None:
    collector.send(batch(0, {("fc", 10): stats()}))
    assert collector.send(batch(1, {("fc", 10): stats()}, attempt=1))["accepted"] == 1
    assert collector.rows("SELECT attempt, step FROM tensor_stats ORDER BY attempt") == [(0, 10), (1, 10)]
    assert collector.rows("SELECT attempt, last_step FROM runs") == [(1, 10)]
    # A batch of the earlier attempt that comes late is stored with its own.
    assert collector.send(batch(2, {("fc", 11): stats()}, attempt=0))["accepted"] == 1
    assert collector.rows("SELECT attempt, last_step FROM runs") == [(1, 10)]


def test_a_session_cannot_move_to_another_run(collector: Collector) -> None:
    collector.send(batch(0))
    response = collector.post(ENCODERS[wire.MEDIA_JSON](batch(1, run_id="other")))
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "session_conflict"
    assert collector.counts() == (1, 1, 1, 0)


def test_a_key_stands_for_one_tensor(collector: Collector) -> None:
    collector.send(batch(0))
    stranger = wire.TensorInfo(key=info("fc").key, module_path="elsewhere", name="weight", kind=Kind.WEIGHT)
    second = wire.TensorInfo(key=17, module_path="fc", name="weight", kind=Kind.WEIGHT)
    for wrong in (stranger, second):
        response = collector.post(ENCODERS[wire.MEDIA_JSON](batch(1, {}, tensors=[info("new"), wrong])))
        assert response.status_code == 409
        assert response.json()["error"]["field"] == "tensors.1.key"
    assert collector.rows("SELECT COUNT(*) FROM tensors") == [(1,)]


def test_a_description_grows_and_never_shrinks(collector: Collector) -> None:
    collector.send(batch(0, {}, tensors=[info("fc", shape=[4, 3])]))
    collector.send(batch(1, {}, tensors=[info("fc", shape=[4, 3], depth=2, fan_in=3.0)]))
    collector.send(batch(2, {}, tensors=[info("fc", shape=[4, 3])], session=2))
    assert collector.rows("SELECT depth, fan_in FROM tensors") == [(2, 3.0)]


def test_tensors_described_to_another_collector_are_known(collector: Collector) -> None:
    """Two processes on one database: what one cached must not hide what the other stored."""

    other = Database(collector.database.url.render_as_string(hide_password=False))
    first, second = (Ingest(database, Tally()) for database in (collector.database, other))

    def accept(ingest: Ingest, one: wire.Batch) -> int:
        return ingest.accept(decode_batch(wire.MEDIA_JSON, "", ENCODERS[wire.MEDIA_JSON](one))).accepted

    assert accept(first, batch(0, {("a", 0): stats()})) == 1
    assert accept(second, batch(1, {("b", 0): stats()})) == 1
    assert accept(first, batch(2, {("b", 1): stats()}, tensors=[])) == 1
    other.close()


def test_a_run_follows_its_sessions(collector: Collector) -> None:
    def status() -> str:
        return collector.rows("SELECT status FROM runs")[0][0]

    def send(rank: int, sequence: int, step: int, status: RunStatus | None = None) -> None:
        one = batch(sequence, {("fc", step): stats()}, session=rank + 1, rank=rank, world_size=2, status=status)
        collector.send(one)

    send(0, 0, 0)
    send(1, 0, 0)
    assert status() == "running"
    send(0, 1, 1, RunStatus.FINISHED)
    assert status() == "running"
    send(1, 1, 1, RunStatus.FINISHED)
    assert status() == "finished"
    assert collector.rows("SELECT ended_at FROM runs")[0][0] is not None
    send(1, 2, 2)
    assert status() == "running"
    assert collector.rows("SELECT ended_at FROM runs")[0][0] is None
    send(1, 3, 3, RunStatus.FAILED)
    assert status() == "failed"


def test_a_lost_run_comes_back_with_a_batch_or_a_heartbeat(collector: Collector) -> None:
    sent = batch(0)
    collector.send(sent)
    for wake in (
        lambda: collector.send(batch(1, {("fc", 1): stats()})),
        lambda: collector.beat(wire.Heartbeat(run=sent.header.run, session=sent.header.session, last_step=5)),
    ):
        with collector.database.write() as connection:
            connection.exec_driver_sql("UPDATE runs SET status = 'lost'")
        wake()
        assert collector.rows("SELECT status FROM runs") == [("running",)]


def test_a_heartbeat_notes_where_the_job_is_but_not_that_rows_arrived(collector: Collector) -> None:
    sent = batch(0, last_step=0)
    books = wire.Books(recorded=5, acknowledged=1, pending=3, dropped={"queue_full": 1})
    heartbeat = wire.Heartbeat(run=sent.header.run, session=sent.header.session, last_step=40, books=books)
    assert collector.beat(heartbeat) == {"known": False}
    assert collector.counts() == (0, 0, 0, 0)
    collector.send(sent)
    assert collector.beat(heartbeat) == {"known": True}
    assert collector.rows("SELECT last_step, current_step FROM sessions") == [(0, 40)]
    assert collector.rows("SELECT last_step FROM runs") == [(0,)]


def test_a_late_row_sends_the_evaluation_back(collector: Collector) -> None:

    collector.send(batch(0, {("fc", 0): stats()}))
    with collector.database.write() as connection:
        # A step far ahead: the collector's own worker stays away from it.
        connection.exec_driver_sql("UPDATE attempts SET evaluated_step = 100")
        writes.mark_dirty(connection, 1, 0, 101)
        assert connection.exec_driver_sql("SELECT dirty_step FROM attempts").scalar() is None
        writes.mark_dirty(connection, 1, 0, 70)
        writes.mark_dirty(connection, 1, 0, 90)
        assert connection.exec_driver_sql("SELECT dirty_step FROM attempts").scalar() == 70
        connection.exec_driver_sql("UPDATE attempts SET dirty_step = NULL")


def test_a_batch_costs_the_same_number_of_statements_whatever_its_size(collector: Collector) -> None:

    ingest = Ingest(collector.database, Tally())
    counts = []

    def count(*_: object) -> None:
        counts[-1] += 1

    event.listen(collector.database._writer, "before_cursor_execute", count)
    for sequence, size in enumerate((1, 1, 500)):
        counts.append(0)
        records = {("fc", 1000 * sequence + step): stats() for step in range(size)}
        body = ENCODERS[wire.MEDIA_BINARY](batch(sequence, records, scalars=[]))
        assert ingest.accept(decode_batch(wire.MEDIA_BINARY, "", body)).accepted == size
    assert counts[1] == counts[2] <= 10


def test_a_rank_may_send_a_batch_without_records(collector: Collector) -> None:
    answer = collector.send(batch(0, {}, world_size=4, rank=1, scalars=[wire.Scalar(step=0, name="loss", value=1.0)]))
    assert (answer["accepted"], answer["rejected_count"]) == (1, 0)
    assert collector.send(batch(1, {}, world_size=4, rank=1, status="finished"))["accepted"] == 0
