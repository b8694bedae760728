"""`pip install initscope` into an empty environment brings no package along; what needs one says so in a sentence."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

HEAVY = ["torch", "numpy", "fastapi", "sqlalchemy", "pydantic", "requests", "uvicorn", "rich", "jinja2", "sklearn"]


class Bare:
    """A virtual environment that holds the wheel and nothing else; commands run in an empty folder."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.cwd = folder / "cwd"
        self.cwd.mkdir()
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python")]
        subprocess.run([*pip, "install", "-q", "--no-index", str(wheel)], check=True, timeout=120)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.cwd), "LANG": "C.UTF-8"}
        return subprocess.run(
            [str(self.bin / program), *arguments],
            cwd=self.cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", code)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return Bare(tmp_path_factory.mktemp("bare"), wheel)


def one_sentence(text: str) -> str:
    """The text, which must be one line for a person and no traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize("package", HEAVY)
def test_a_bare_install_brings_no_package_along(bare: Bare, package: str) -> None:
    result = bare.python(f"import {package}")
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr


def test_the_door_opens_in_a_bare_install(bare: Bare) -> None:
    result = bare.python("import initscope.hooks as h; print(sorted(h.__all__))")
    assert result.returncode == 0, result.stderr
    assert "watch" in result.stdout


def test_the_bare_rooms_can_be_imported_without_any_package(bare: Bare) -> None:
    rooms = "encoding, moments, theory, vocabulary, wire, report, rules, client"
    result = bare.python(
        f"from initscope.hooks import {rooms}; from initscope.hooks.rules import RULES; print(len(RULES))"
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 5


def test_opening_the_door_loads_nothing_heavy_even_where_it_is_installed() -> None:
    code = f"import sys, initscope.hooks; print(*set({HEAVY}) & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == []


def test_watching_without_torch_says_what_to_install(bare: Bare) -> None:
    result = bare.python("from initscope.hooks import watch\nwatch(object())")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(("ImportError:", "ModuleNotFoundError:"))
    assert "pip install 'initscope[torch]'" in last


def test_help_works_in_a_bare_install(bare: Bare) -> None:
    result = bare.run("initscope", "--help")
    assert result.returncode == 0, result.stderr
    for verb in ("demo", "serve"):
        assert verb in result.stdout


@pytest.mark.parametrize("rest", [[], ["--help"]])
@pytest.mark.parametrize(
    ("verb", "extra"),
    [("check", "torch"), ("serve", "service"), ("demo", "demo"), ("migrate", "service"), ("token", "service")],
)
def test_a_verb_without_its_packages_says_what_to_install(bare: Bare, verb: str, extra: str, rest: list[str]) -> None:
    result = bare.run("initscope", verb, *rest)
    assert result.returncode == (3 if verb == "check" else 2)
    assert f"pip install 'initscope[{extra}]'" in one_sentence(result.stdout + result.stderr)


def test_an_unknown_verb_is_refused_in_a_bare_install(bare: Bare) -> None:
    result = bare.run("initscope", "fly")
    assert result.returncode == 2
    assert "fly" in result.stderr
    assert "Traceback" not in result.stderr
