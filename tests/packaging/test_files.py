"""House rules that a machine can hold: file sizes, names, and that everything a person can use is written down."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("hooks", "service", "migrations", "tests")
MOST_LINES = 400
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}
README = (ROOT / "README.md").read_text()
DOCS = "\n".join(f.read_text() for f in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])


def python_files(*rooms: str) -> list[Path]:
    return [f for room in rooms for f in sorted((ROOT / room).rglob("*.py"))]


def test_no_file_is_longer_than_a_person_can_hold() -> None:
    long = {
        str(f.relative_to(ROOT)): n for f in python_files(*CODE) if (n := len(f.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def test_no_module_is_a_drawer_for_everything() -> None:
    assert [f for f in python_files(*CODE) if DRAWERS & {f.stem, *f.relative_to(ROOT).parts}] == []


def test_functions_are_short() -> None:
    lengths: dict[str, int] = {}
    for file in python_files("hooks", "service"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{file.relative_to(ROOT)}:{node.name}"] = (node.end_lineno or 0) - node.lineno + 1
    assert {name: n for name, n in lengths.items() if n > 60} == {}
    assert median(lengths.values()) <= 10


def broad_handlers(file: Path) -> list[int]:
    """Lines of handlers that swallow every exception; those that raise again at their end do not."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or "Exception" in ast.unparse(node.type).split(".")
        ):
            ends_in_raise = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            found += [] if ends_in_raise else [node.lineno]
    return found


def test_a_broad_except_stands_only_where_the_house_allows_it_and_says_why() -> None:
    for file in python_files("hooks", "service"):
        lines = file.read_text().splitlines()
        for number in broad_handlers(file):
            reason = re.search(r"# noqa: BLE001 - \w+", lines[number - 1])
            assert reason or file == ROOT / "hooks/client/guard.py", f"{file.relative_to(ROOT)}:{number}"


def test_nothing_is_left_to_do_in_the_code() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX)\b")
    marked = [
        f"{f.relative_to(ROOT)}"
        for f in python_files("hooks", "service", "migrations")
        if unfinished.search(f.read_text())
    ]
    assert marked == []


def test_no_file_of_the_project_names_a_folder_of_somebodys_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    home = re.compile(r"(?<![\w./-])/(work|root|home|Users)/\w")
    texts = (f for f in tracked if f.endswith((".py", ".md", ".toml", ".html", ".js", ".css")) and "vendor" not in f)
    assert [f for f in texts if (ROOT / f).exists() and home.search((ROOT / f).read_text())] == []


def verbs_of_make() -> list[str]:
    return re.findall(r"^([a-z]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_help_lists_every_verb() -> None:
    result = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(verbs_of_make())
    for verb in verbs_of_make():
        assert re.search(rf"^  make {verb}\s+\w", result.stdout, re.MULTILINE), verb


@pytest.mark.parametrize("verb", verbs_of_make())
def test_every_verb_of_make_is_documented(verb: str) -> None:
    assert f"make {verb}" in DOCS + (ROOT / "CONTRIBUTING.md").read_text()


def test_every_setting_of_the_collector_is_documented() -> None:
    from initscope.service.settings import Settings

    missing = [name for name in Settings.model_fields if f"`INITSCOPE_{name.upper()}`" not in README]
    assert missing == []


def environment_names(*rooms: str) -> set[str]:
    return {name for f in python_files(*rooms) for name in re.findall(r"\bINITSCOPE_[A-Z_]*[A-Z]\b", f.read_text())}


def test_every_environment_variable_that_the_code_reads_is_documented() -> None:
    read = environment_names("hooks", "service", "migrations")
    assert "INITSCOPE_URL" in read
    assert sorted(name for name in read if f"`{name}`" not in README) == []


def test_every_environment_variable_that_the_readme_names_is_read_somewhere() -> None:
    from initscope.service.settings import Settings

    known = environment_names("hooks", "service", "migrations", "tests")
    known |= {f"INITSCOPE_{name.upper()}" for name in Settings.model_fields}
    assert sorted(set(re.findall(r"`(INITSCOPE_[A-Z_]+)`", README)) - known) == []


def help_of(*words: str) -> str:
    code = "from initscope.service.cli import main; raise SystemExit(main())"
    result = subprocess.run([sys.executable, "-c", code, *words, "--help"], capture_output=True, text=True, check=True)
    return result.stdout


def test_every_verb_of_the_command_line_is_documented() -> None:
    from initscope.service.cli import VERBS

    assert {"demo", "serve"} <= {verb.name for verb in VERBS}
    assert [verb.name for verb in VERBS if f"`initscope {verb.name}" not in README] == []
    assert [verb.name for verb in VERBS if verb.name not in help_of()] == []


@pytest.mark.parametrize("verb", ["serve", "demo"])
def test_every_option_of_the_collector_is_documented(verb: str) -> None:
    options = set(re.findall(r"^\s+(--[a-z-]+)", help_of(verb), re.MULTILINE))
    assert "--database-url" in options
    assert sorted(option for option in options if f"`{option}" not in README) == []


def test_every_rule_has_its_section() -> None:
    from initscope.hooks.rules import RULES

    assert [rule.id for rule in RULES if not re.search(rf"^#+ .*`?{rule.id}`?", DOCS, re.MULTILINE)] == []


def test_every_metric_is_documented() -> None:
    named = re.compile(r"\"(initscope_[a-z_]+)\"")
    names = {name for f in python_files("service/exporter") for name in named.findall(f.read_text())}
    assert names
    assert sorted(name for name in names if not re.search(rf"`{name}(_total|_info)?`", DOCS)) == []


def test_links_of_the_documents_lead_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.relative_to(ROOT)} links to {target}"
