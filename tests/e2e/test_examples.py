"""Every script in examples/ runs to its end, as a person would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("INITSCOPE_")}
    return subprocess.run(
        command, cwd=folder, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda script: script.stem)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    done = run(sys.executable, "-W", "error", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_checked_network_learns_more_once_it_is_healed(tmp_path: Path) -> None:
    script = EXAMPLES / "check_before_training.py"
    said = run(sys.executable, script, folder=tmp_path).stdout
    assert said.startswith("initscope check: CRITICAL")
    assert "<Report: ok" in said
    before, after = (float(loss) for loss in re.findall(r"loss (\d\.\d+) after", said))
    assert after < before - 0.1
    checked = run(Path(sys.executable).with_name("initscope"), "check", f"{script}:build", folder=tmp_path)
    assert checked.returncode == 2, checked.stderr
