"""The public door: a change of what it exports is meant, and written here."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import initscope.hooks as door

DOOR = {"BadStart", "CheckError", "Finding", "Monitor", "Report", "check", "register", "watch"}


def test_the_door_exports_what_is_meant_to_be_public() -> None:
    assert set(door.__all__) == DOOR


@pytest.mark.parametrize("name", sorted(DOOR))
def test_every_exported_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(door, name))
    assert name in dir(door)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="wach"):
        door.wach  # noqa: B018


def test_what_needs_no_torch_can_be_taken_from_the_door_without_it() -> None:
    code = "import sys; from initscope.hooks import BadStart, Finding, Report, register; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.strip() == "False"


def test_every_room_with_a_list_of_names_has_each_of_them() -> None:
    import pkgutil
    from importlib import import_module

    import initscope.hooks
    import initscope.service

    for package in (initscope.hooks, initscope.service):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if found.ispkg and found.name.count(".") == 2:
                room = import_module(found.name)
                for name in getattr(room, "__all__", ()):
                    assert hasattr(room, name), f"{found.name}.{name}"
