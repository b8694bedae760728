from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from initscope.hooks.client.config import Config
from initscope.hooks.client.session import identify

CONFIG = Config(url=None, project="vision", run_name="wide stem")


def run_id(environ: dict[str, str], config: Config = CONFIG) -> str:
    return identify(config, environ)[0].run_id


def test_a_given_run_id_is_the_identity() -> None:
    config = Config(url=None, project="vision", run_id="mine")
    assert run_id({"TORCHELASTIC_RUN_ID": "x", "SLURM_JOB_ID": "7"}, config) == "mine"


@pytest.mark.parametrize("launch", [{"TORCHELASTIC_RUN_ID": "job-7"}, {"SLURM_JOB_ID": "4711"}])
def test_all_ranks_of_a_launch_derive_the_same_run(launch: dict[str, str]) -> None:
    ranks = [{**launch, "RANK": str(rank), "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"} for rank in range(4)]
    assert len({run_id(environ) for environ in ranks}) == 1
    sessions = [identify(CONFIG, environ)[1] for environ in ranks]
    assert [s.rank for s in sessions] == [0, 1, 2, 3]
    assert {s.world_size for s in sessions} == {4}
    assert len({s.session_id for s in sessions}) == 4


def test_another_project_is_another_run() -> None:
    launch = {"TORCHELASTIC_RUN_ID": "job-7"}
    assert run_id(launch) != run_id(launch, Config(url=None, project="text"))


def test_a_launch_named_none_is_no_name() -> None:
    alone = {"TORCHELASTIC_RUN_ID": "none"}
    assert run_id(alone) != run_id(alone)
    assert run_id({**alone, "SLURM_JOB_ID": "7"}) == run_id({"SLURM_JOB_ID": "7"})


def test_one_process_alone_is_a_run_of_its_own() -> None:
    assert run_id({}) != run_id({})


def test_ranks_of_one_node_share_the_run_of_their_parent() -> None:
    program = (
        "import json, os; from initscope.hooks.client.config import Config;"
        "from initscope.hooks.client.session import identify;"
        "run, session = identify(Config(url=None));"
        "print(json.dumps([run.run_id, session.session_id, session.rank, session.pid]))"
    )
    found = []
    for rank in range(2):
        environ = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        output = subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
        )
        found.append(json.loads(output.stdout))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]
    assert [rank for _, _, rank, _ in found] == [0, 1]
    grandchild = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    environ = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    other = subprocess.run(
        [sys.executable, "-c", grandchild, program], env=environ, capture_output=True, text=True, check=True
    )
    assert json.loads(other.stdout)[0] != found[0][0]


def test_several_nodes_without_an_id_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    run_id({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"})
    assert not caplog.records
    run_id({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    assert "every node becomes a run of its own" in caplog.text
    assert "INITSCOPE_RUN_ID" in caplog.text


@pytest.mark.parametrize(
    ("environ", "attempt"),
    [({}, 0), ({"TORCHELASTIC_RESTART_COUNT": "3"}, 3), ({"SLURM_RESTART_COUNT": "2"}, 2),
     ({"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3", "SLURM_RESTART_COUNT": "2"}, 9)],
)  # fmt: skip
def test_the_attempt_is_the_launchers_count_of_restarts(environ: dict[str, str], attempt: int) -> None:
    assert identify(CONFIG, environ)[0].attempt == attempt


def test_nonsense_of_a_launcher_is_said_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    _, session = identify(CONFIG, {"RANK": "first", "WORLD_SIZE": "-2", "TORCHELASTIC_RESTART_COUNT": "9" * 5000})
    assert (session.rank, session.world_size) == (0, 1)
    assert "RANK is 'first'" in caplog.text


def test_the_training_s_random_numbers_are_not_touched() -> None:
    import random

    random.seed(1)
    before = random.getstate()
    identify(CONFIG, {})
    assert random.getstate() == before
