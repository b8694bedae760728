"""What README and docs show works: Python runs, JSON is accepted, commands and extras exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from initscope.hooks import encoding
from initscope.hooks.wire import Header

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[object]:
    """Fenced blocks of a language as parameters, named by file and number."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(block, id=f"{file.relative_to(ROOT)}-{number}")
        for file in FILES
        for number, block in enumerate(fence.findall(file.read_text()))
    ]


def test_there_are_blocks_to_run() -> None:
    assert len(blocks("python")) >= 1
    assert len(blocks("json")) >= 3


@pytest.mark.parametrize("block", blocks("python"))
def test_python_of_the_documents_runs(block: str, tmp_path: Path) -> None:
    environment = {k: x for k, x in os.environ.items() if not k.startswith("INITSCOPE_")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1", "INITSCOPE_RAISE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("block", blocks("json"))
def test_json_of_the_documents_is_json(block: str) -> None:
    json.loads(block)


def test_the_body_by_hand_in_the_wires_document_is_a_batch() -> None:
    (block,) = re.findall(r"A body by hand:\n\n```json\n(.*?)```", (ROOT / "docs" / "wire.md").read_text(), re.DOTALL)
    body, records = encoding.parse_json(block.encode())
    assert TypeAdapter(Header).validate_python(body).run.run_id == "by-hand"
    assert len(records) == 2
    described = {tensor["key"] for tensor in body["tensors"]}
    assert set(records.columns["tensor"]) <= described


def test_commands_of_the_documents_name_extras_that_exist() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    named = {
        extra
        for file in FILES
        for group in re.findall(r"pip install '(?:initscope|\.)\[([a-z,]+)\]'", file.read_text())
        for extra in group.split(",")
    }
    assert named
    assert named <= extras


def test_commands_of_the_documents_name_verbs_that_exist() -> None:
    verbs = set(re.findall(r"^([a-z]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {verb for file in FILES for verb in re.findall(r"(?:`|^)make ([a-z]+)", file.read_text(), re.MULTILINE)}
    assert named
    assert named <= verbs
