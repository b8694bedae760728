"""One of two processes under torchrun has a bad start: it raises, and the launcher ends the other."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.collector_stub import CollectorStub

ROOT = Path(__file__).resolve().parents[2]

JOB = """
    import os, sys, time
    import torch, torch.distributed as dist
    from torch import nn
    from initscope.hooks import BadStart, watch

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, bad, folder = dist.get_rank(), int(sys.argv[1]), sys.argv[2]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    if rank == bad:
        nn.init.constant_(model[2].weight, float("nan"))  # outputs show it on every rank, weights on the first
    monitor = watch(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    try:
        for step in range(100_000):
            optimizer.zero_grad()
            model(torch.randn(16, 8)).square().mean().backward()
            for p in model.parameters():
                mine = p.grad.nan_to_num()
                dist.all_reduce(mine)  # the healthy rank waits here for the other one
                p.grad.copy_(mine)
            optimizer.step()
    except BadStart as error:
        open(f"{folder}/raised.{rank}", "w").write(str(error))
        raise
    open(f"{folder}/trained.{rank}", "w").write("to its end")
"""


@pytest.mark.parametrize("bad", [0, 1])
def test_the_rank_that_sees_it_raises_and_the_launcher_ends_the_others(bad: int, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(JOB))
    environment = {k: x for k, x in os.environ.items() if not k.startswith(("INITSCOPE_", "TORCHELASTIC_"))}
    with CollectorStub() as stub:
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
             str(script), str(bad), str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, timeout=180,
            env={**environment, "OMP_NUM_THREADS": "1", "INITSCOPE_ON_FINDING": "raise", "INITSCOPE_URL": stub.url,
                 "INITSCOPE_TOKEN": "t", "INITSCOPE_HOME": str(tmp_path)},
        )  # fmt: skip
        failed = {b.header["session"].get("rank", 0) for b in stub.log.batches if b.header.get("status") == "failed"}
    assert done.returncode != 0
    assert [p.name for p in sorted(tmp_path.glob("raised.*"))] == [f"raised.{bad}"], done.stderr
    assert not list(tmp_path.glob("trained.*"))
    assert "nonfinite" in (tmp_path / f"raised.{bad}").read_text()
    assert f"by what rank {bad} of 2 shows alone" in done.stderr
    assert bad in failed, "the run has ended as failed before the process did"
