"""The one JSON answer: carries NaN and infinities as text."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse

from initscope.hooks.encoding import number_to_json


class Answer(JSONResponse):
    """JSON in which non-finite numbers are "NaN", "Infinity" and "-Infinity", and absent ones null."""

    def render(self, content: Any) -> bytes:
        """ASCII bytes: lone surrogates and control characters stay escaped."""
        try:
            text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        except ValueError:
            text = json.dumps(portable(content), allow_nan=False, separators=(",", ":"))
        return text.encode("ascii")


def portable(value: Any) -> Any:
    """Plain data in which non-finite numbers are words."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    return number_to_json(value) if isinstance(value, float) else value
