from __future__ import annotations

from pathlib import Path

from sqlalchemy import event

from initscope.service.store import rows, schema
from initscope.service.store.engine import Database


def test_rows_of_a_batch_are_found_by_their_key_and_not_by_reading_the_run(tmp_path: Path) -> None:
    """Without it, merging a second rank's batch costs more with every step that the run has."""
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    schema.ensure(database)
    asked: list[tuple[str, object]] = []
    with database.write() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        rows.find(connection, 1, 0, [(1, 0), (2, 0)])
        statement, parameters = asked[0]
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    database.close()
    assert any("run_no=? AND tensor_no=? AND attempt=? AND step=?" in line for line in plan), plan
