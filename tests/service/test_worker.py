"""The worker's loop over the runs."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select, update

from initscope.service.store.models import Attempt, Run
from tests.support.collector import Collector, batch, stats


def test_a_run_that_cannot_be_evaluated_does_not_silence_those_after_it(
    embedded: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    embedded.send(batch(0, {}, run_id="bad"))
    with embedded.database.write() as connection:  # as a collector of another version might have left it
        connection.execute(update(Run).values(description={"optimizers": [{"lr": 0.1}]}))
    embedded.send(batch(1, {("fc", 0): stats()}, run_id="bad", last_step=0))
    embedded.send(batch(0, {("fc", 0): stats()}, run_id="good", session=2, last_step=0))
    query = select(Attempt.evaluated_step).order_by(Attempt.run_no)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with embedded.database.read() as connection:
            evaluated = list(connection.execute(query).scalars())
        if evaluated[1] is not None:
            break
        time.sleep(0.05)
    assert evaluated == [None, 0]
    assert sum("cannot be evaluated" in record.message for record in caplog.records) == 1
