"""What the client says to the person: through the logger `initscope`, the same sentence at most once a minute.

No handler is installed: without a configuration of logging, warnings reach stderr as the standard library does it.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

LOGGER: Final = logging.getLogger("initscope")
REPEAT_SECONDS: Final = 60.0

_last_said: dict[tuple[str, Any], float] = {}


def warn(message: str, *values: Any, about: Any = None, trace: BaseException | None = None) -> bool:
    """Logs a warning unless this sentence about this thing was logged less than a minute ago; True if it was.

    Never called on the training thread while things go well: a log handler may block.
    """
    now = time.monotonic()
    key = (message, about)
    if now - _last_said.get(key, -REPEAT_SECONDS) < REPEAT_SECONDS:
        return False
    _last_said[key] = now
    LOGGER.warning(message, *values, exc_info=trace)
    return True


def printable(text: str, limit: int = 200) -> str:
    """Foreign text, cut, with control characters (and so line breaks) replaced: safe in a log line."""
    return "".join(c if c.isprintable() else " " for c in text[:limit])
