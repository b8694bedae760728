"""The floors hold, and each contract would notice an import that goes up."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("hooks", "service", "migrations")

# contract id → (file that gets the import, the import)
PLANTS = {
    "hooks-floors": ("hooks/rules/engine.py", "import initscope.hooks.client"),
    "service-floors": ("service/store/models.py", "import initscope.service.ingest"),
    "hooks-alone": ("hooks/wire.py", "import initscope.service.store.models"),
    "service-pure": ("service/store/models.py", "import initscope.hooks.client"),
    "migrations-data": ("service/store/models.py", "import initscope.migrations"),
    "job-bare": ("hooks/wire.py", "import numpy"),
    "rules-pure": ("hooks/rules/window.py", "import time"),
    "demo-door": ("hooks/demo/__init__.py", "import initscope.hooks.rules"),
}


def contracts() -> list[dict[str, str]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["importlinter"]["contracts"]


def lint(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the rooms below `folder`, which shadow the installed ones."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for room in ROOMS:
        copytree(ROOT / room, tmp_path / "initscope" / room, ignore=ignore_patterns("__pycache__", "static"))
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return tmp_path


def test_every_contract_is_kept(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert f"Contracts: {len(contracts())} kept, 0 broken." in result.stdout


def test_every_contract_has_a_plant_that_should_break_it() -> None:
    assert {c["id"] for c in contracts()} == set(PLANTS)


@pytest.mark.parametrize("contract", PLANTS)
def test_a_planted_import_breaks_its_contract(contract: str, copy: Path) -> None:
    name, line = PLANTS[contract]
    file = copy / "initscope" / name
    file.write_text(file.read_text() + f"\n{line}\n")

    result = lint(copy, "--contract", contract)

    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout


def imported_tops(file: Path) -> set[str]:
    """Top-level names that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_hooks_outside_probe_and_demo_import_the_standard_library_only() -> None:
    allowed = sys.stdlib_module_names | {"initscope"}
    files = [
        f for f in (ROOT / "hooks").rglob("*.py") if f.relative_to(ROOT / "hooks").parts[0] not in ("probe", "demo")
    ]
    assert len(files) > 5
    assert {str(f.relative_to(ROOT)): extra for f in files if (extra := imported_tops(f) - allowed)} == {}


def test_a_forbidden_import_inside_a_function_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from torch.nn import Linear\n")
    assert imported_tops(file) == {"torch"}
