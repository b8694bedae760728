"""An editable install finds a forgotten room, the wheel does not: they are compared file by file."""

from __future__ import annotations

from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("hooks", "service", "migrations")
JUNK = {".pyc", ".pyo", ".db"}


def shipped(wheel: Path) -> set[str]:
    return {n.removeprefix("initscope/") for n in ZipFile(wheel).namelist() if n.startswith("initscope/")}


def in_rooms() -> set[str]:
    files = (f for room in ROOMS for f in (ROOT / room).rglob("*") if f.is_file() and f.suffix not in JUNK)
    return {str(f.relative_to(ROOT)) for f in files}


def test_the_wheel_holds_every_file_of_the_rooms_and_no_other(wheel: Path) -> None:
    assert sorted(shipped(wheel)) == sorted(in_rooms())


def test_the_wheel_has_the_data_that_the_rooms_need(wheel: Path) -> None:
    files = shipped(wheel)
    for needed in ("hooks/py.typed", "service/py.typed", "migrations/script.py.mako", "migrations/env.py"):
        assert needed in files
    for folder, suffix in (("migrations/versions/", ".py"), ("service/web/templates/", ".html")):
        assert [f for f in files if f.startswith(folder) and f.endswith(suffix)], folder


def test_the_wheel_brings_its_licence_and_needs_nothing(wheel: Path) -> None:
    archive = ZipFile(wheel)
    (metadata_name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(metadata_name).decode())
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert required == []
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert any(n.endswith("/LICENSE") for n in archive.namelist())


def test_the_wheel_puts_nothing_beside_its_own_name(wheel: Path) -> None:
    tops = {n.partition("/")[0] for n in ZipFile(wheel).namelist()}
    assert tops == {"initscope", next(t for t in tops if t.endswith(".dist-info"))}
    assert "initscope/__init__.py" not in ZipFile(wheel).namelist()
