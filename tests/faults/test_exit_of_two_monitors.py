"""Two watched models and a collector that never answers: the exit is delayed once, not twice."""

from __future__ import annotations

import subprocess
import sys

from tests.support.collector_stub import CollectorStub, Mode

FLUSH = 4.0
SCRIPT = """
import atexit, time
ended = []
atexit.register(lambda: print("EXIT", time.monotonic() - ended[0]))  # registered first: runs last
import torch
from initscope.hooks import watch
models = [torch.nn.Linear(4, 4) for _ in range(2)]
for model in models:
    watch(model)
optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
for _ in range(3):
    for model, optimizer in zip(models, optimizers):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
print("TRAINED", flush=True)
ended.append(time.monotonic())
"""


def test_the_exit_is_delayed_once():
    with CollectorStub(Mode.BLACK_HOLE) as stub:
        environment = {"INITSCOPE_URL": stub.url, "INITSCOPE_TOKEN": "token", "INITSCOPE_FLUSH_TIMEOUT": str(FLUSH)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert stub.log.seen(Mode.BLACK_HOLE) >= 2  # both were waiting for an answer
    assert "TRAINED" in done.stdout
    delay = float(done.stdout.split("EXIT")[1])
    assert 0.9 * FLUSH < delay < 1.75 * FLUSH
