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


@pytest.mark.parametrize("verb", ["demo", "test", "lint", "typecheck", "imports", "bench", "serve", "wheel", "check"])
def test_every_verb_sets_up_what_it_needs(verb: str, fresh: Path) -> None:
    steps = make(fresh, "-n", verb).stdout
    assert steps.index("-m venv .venv") < steps.index("pip install") < len(steps)
    assert "-c constraints.txt" in steps


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
