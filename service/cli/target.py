"""MODULE:CALLABLE: a model, and what goes into it, from the user's own code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from initscope.hooks import vocabulary
from initscope.service.complaint import Complaint

_HOOKS: Final = Path(vocabulary.__file__).parent
_NAMES: Final = ("model", "batch", "loss_fn", "optimizer")


@dataclass(frozen=True, slots=True)
class Given:
    """What the user's callable returned."""

    model: Any
    batch: Any = None
    loss_fn: Callable[..., Any] | None = None
    optimizer: Any = None


def load(target: str) -> Given:
    """What TARGET makes when it is called; a `Complaint` for what cannot be found, raises, or is no model."""
    return _given(_called(_found(target), target), target)


def _found(target: str) -> Any:
    """What the target names."""
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        raise Complaint(f"{target!r} is no MODULE:CALLABLE, as in train:build or train.py:build")
    found: Any = _imported(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise Complaint(f"{place} has no {name!r}{_callables(found)}")
        found = getattr(found, part)
    return found


def _callables(module: Any) -> str:
    """What a person may have meant."""
    if not isinstance(module, ModuleType):
        return ""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__ and callable(v)]
    names = [name for name in own if not name.startswith("_")][:8]
    return f"; it has {', '.join(names)}" if names else ""


def _imported(place: str) -> ModuleType:
    """The module, from the current folder as Python would import it there; a file with its own folder as well."""
    file = Path(place)
    is_file = place.endswith(".py") or os.sep in place
    if is_file and not file.is_file():
        raise Complaint(f"there is no file {place}")
    for folder in (str(Path.cwd()), *([str(file.resolve().parent)] if is_file else [])):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    if not is_file and _is_absent(place):
        raise Complaint(f"there is no module {place} here ({Path.cwd()}) or in what is installed")
    with _OwnErrors(f"importing {place}"):
        return _of_file(file) if is_file else importlib.import_module(place)


def _is_absent(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is None
    except (ImportError, ValueError):
        return True


def _of_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise Complaint(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Under its own name, so that classes in it can be pickled and dataclasses find their module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _called(found: Any, target: str) -> Any:
    # A model is callable, too, but not for this; its class is.
    if not callable(found) or (hasattr(found, "named_parameters") and not isinstance(found, type)):
        return found
    with _OwnErrors(target):
        return found()


def _given(returned: Any, target: str) -> Given:
    if isinstance(returned, Mapping):
        unknown = [str(name) for name in returned if name not in _NAMES]
        if unknown or "model" not in returned:
            what = f"unknown {', '.join(unknown)}" if unknown else 'no "model"'
            raise Complaint(f"{target} returned a dict with {what}; the names are {', '.join(_NAMES)}")
        return Given(**returned)
    parts = returned if isinstance(returned, tuple) else (returned,)
    if not 1 <= len(parts) <= 3:
        raise Complaint(f"{target} returned {len(parts)} things; they are model, batch and loss_fn")
    return Given(*parts)


class _OwnErrors:
    """Errors of the user's code become a line that says where they come from."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception | SystemExit) and not isinstance(error, Complaint):
            words = f"{self._what} raised {type(error).__name__}: {line_of(error)}"
            raise Complaint(f"{words}{origin_of(error)}") from error


def line_of(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:500]


def origin_of(error: BaseException | None) -> str:
    """The last line of the user's own code that an error went through."""
    foreign = (*sysconfig.get_paths().values(), str(_HOOKS), str(Path(__file__).parent), "<frozen")
    place = ""
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        is_foreign = file.startswith(foreign) or {"site-packages", "dist-packages"} & set(Path(file).parts)
        place = place if is_foreign else f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
