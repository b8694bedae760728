"""The verbs, in a folder that has nothing but the Makefile: what they would do, and what they say when they cannot."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # `make test ARGS=…` would hand its own arguments down to these.
    environment = {
        name: x for name, x in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
    }
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_make_alone_is_help(fresh: Path) -> None:
    result = make(fresh)
    assert result.returncode == 0
    assert "make demo" in result.stdout


def test_arguments_reach_the_demo(fresh: Path) -> None:
    result = make(fresh, "-n", "demo", "ARGS=--exit --json out.json")
    assert ".venv/bin/initscope demo --exit --json out.json" in result.stdout


@pytest.mark.parametrize(
    "verb", ["demo", "test", "lint", "typecheck", "imports", "bench", "serve", "wheel", "check", "starts"]
)
def test_every_verb_sets_up_what_it_needs(verb: str, fresh: Path) -> None:
    steps = make(fresh, "-n", verb).stdout
    assert steps.index("-m venv .venv") < steps.index("pip install") < len(steps)
    assert "-c constraints.txt" in steps


@pytest.mark.parametrize(
    ("given", "sentence"), [((), "STARTBENCH=DIR"), (("STARTBENCH=/nowhere",), "/nowhere is not startbench's folder")]
)
def test_startbench_without_its_folder_is_one_sentence_and_2(
    given: tuple[str, ...], sentence: str, fresh: Path
) -> None:
    result = make(fresh, "startbench", *given)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert not (fresh / ".venv").exists()  # said before anything is installed


def test_startbench_is_run_with_our_adapter_and_scored_by_family(fresh: Path) -> None:
    folder = fresh / "startbench"
    folder.mkdir()
    for name in ("run_monitor.py", "score.py"):
        (folder / name).touch()
    steps = make(fresh, "-n", "startbench", f"STARTBENCH={folder}").stdout
    assert f'"{folder}/run_monitor.py" dev tests.benchmarks.startbench_adapter:make_monitor' in steps
    assert steps.index('run_monitor.py" dev') < steps.index(f'"{folder}/score.py" dev "$out" --families')


def test_the_link_for_types_is_made_by_the_verb_that_needs_it(fresh: Path) -> None:
    assert make(fresh, ".typing/initscope").returncode == 0
    assert (fresh / ".typing" / "initscope" / "Makefile").exists()


def test_an_old_python_is_named_with_the_way_out(fresh: Path) -> None:
    old = fresh / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = make(fresh, "setup", f"PYTHON={old}")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert str(old) in result.stderr


def test_no_python_at_all_is_said_in_words(fresh: Path) -> None:
    result = make(fresh, "setup", "PYTHON=")
    assert result.returncode != 0
    assert "no such python was found" in result.stderr
    assert "make PYTHON=" in result.stderr


def test_torch_comes_as_the_processor_build() -> None:
    """Any other request resolves to several gigabytes of CUDA packages."""
    assert re.search(r"^torch==\d+\.\d+\.\d+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
