"""A database, and a run in it."""

import pytest
from sqlalchemy import update

from initscope.service.store import schema
from initscope.service.store.engine import Database
from initscope.service.store.models import Attempt
from tests.support import seeds


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    schema.ensure(database)
    yield database
    database.close()


@pytest.fixture
def run(database):
    with database.write() as conn:
        run_no, _ = seeds.add_run(conn, last_step=-1)
        conn.execute(update(Attempt).where(Attempt.run_no == run_no).values(evaluated_step=None))
        seeds.add_session(conn, run_no, last_step=-1)
        tensor_no = seeds.add_tensor(conn, run_no, "layer", "weight", "weight", depth=0)
    return run_no, tensor_no
