"""initscope.hooks: the side of the training job.

    from initscope.hooks import check, watch

    print(check(model, batch, loss_fn))
    watch(model)

This door costs nothing: torch is imported when `check`, `watch` or `Monitor` is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from initscope.hooks.probe.check import CheckError, check
    from initscope.hooks.probe.monitor import Monitor, watch
    from initscope.hooks.report import Report
    from initscope.hooks.rules.badstart import BadStart
    from initscope.hooks.rules.finding import Finding
    from initscope.hooks.rules.registry import register

__all__ = ["BadStart", "CheckError", "Finding", "Monitor", "Report", "check", "register", "watch"]

_ROOMS = {
    "BadStart": "initscope.hooks.rules.badstart",
    "CheckError": "initscope.hooks.probe.check",
    "Finding": "initscope.hooks.rules.finding",
    "Monitor": "initscope.hooks.probe.monitor",
    "Report": "initscope.hooks.report",
    "check": "initscope.hooks.probe.check",
    "register": "initscope.hooks.rules.registry",
    "watch": "initscope.hooks.probe.monitor",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are {', '.join(__all__)}")
    try:
        return getattr(import_module(_ROOMS[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        # `from … import …` reports only ImportErrors as they are.
        raise ModuleNotFoundError(
            f"initscope.hooks.{name} needs PyTorch: pip install 'initscope[torch]'", name="torch"
        ) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
