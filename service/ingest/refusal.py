"""Why a request is not accepted, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """A request that cannot be accepted; becomes the one error shape.

    `field` is the path of the offending field in the body, `hint` what to do. Neither may carry the caller's values.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.hint = hint
        self.headers = dict(headers or {})
