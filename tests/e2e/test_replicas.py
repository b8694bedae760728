"""Two processes under torchrun, and a real collector: replicas that start different are told, equal ones are not."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.collector import Collector, running_collector

ROOT = Path(__file__).resolve().parents[2]

JOB = """
    import sys
    import torch, torch.distributed as dist
    from torch import nn
    from initscope.hooks import watch

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, wrapped = dist.get_rank(), sys.argv[1] == "ddp"
    torch.manual_seed(rank)  # every rank draws its own
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    model = nn.parallel.DistributedDataParallel(net) if wrapped else net
    monitor = watch(model, run_id="replicas")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(rank)
    for step in range(6):
        x = torch.randn(32, 8, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
        loss.backward()
        if not wrapped:
            for p in model.parameters():
                dist.all_reduce(p.grad)
                p.grad /= 2
        monitor.log(loss=loss)
        optimizer.step()
    monitor.close()
    dist.destroy_process_group()
"""


def run(collector: Collector, folder: Path, how: str) -> None:
    script = folder / "train.py"
    script.write_text(textwrap.dedent(JOB))
    environment = {k: x for k, x in os.environ.items() if not k.startswith(("INITSCOPE_", "TORCHELASTIC_"))}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), how],
        cwd=ROOT, capture_output=True, text=True, timeout=180,
        env={**environment, "OMP_NUM_THREADS": "1", "INITSCOPE_URL": collector.url,
             "INITSCOPE_TOKEN": collector.token, "INITSCOPE_HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def findings(collector: Collector) -> list[dict[str, object]]:
    """What stands once every step is judged."""
    deadline = time.monotonic() + 30
    while not collector.rows("SELECT 1 FROM attempts WHERE evaluated_step >= 5"):
        assert time.monotonic() < deadline, "the run was never judged to its end"
        time.sleep(0.1)
    (run_id,) = collector.rows("SELECT id FROM runs")
    answer = collector.http.get(f"/api/v1/runs/{run_id[0]}/findings?state=all")
    found: list[dict[str, object]] = answer.json()["findings"]
    return found


@pytest.mark.parametrize("how", ["alone", "ddp"])
def test_replicas_that_start_different_are_told(how: str, tmp_path: Path) -> None:
    with running_collector(tmp_path / "home") as collector:
        run(collector, tmp_path, how)
        found = {f["rule"]: f for f in findings(collector)}
        stored = collector.rows("SELECT rank, digests IS NOT NULL FROM sessions ORDER BY rank")
    assert [tuple(map(int, row)) for row in stored] == [(0, 1), (1, 1)], "both ranks told what they start with"
    if how == "ddp":
        assert "replicas-differ" not in found
        return
    assert found["replicas-differ"]["severity"] == "critical"
    assert "Rank 1 of 2" in str(found["replicas-differ"]["diagnosis"])
    assert "0.weight" in str(found["replicas-differ"]["diagnosis"])
