"""Reading a request's body without trusting its length or its pace."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import Request

from initscope.service.api.errors import ApiError
from initscope.service.ingest.limits import too_large

_SECONDS: Final = 30.0


async def read_body(request: Request, limit: int) -> bytes:
    """At most `limit` bytes within 30 s; 413 beyond, 408 for a body that does not come."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise too_large("", limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large("", limit)
                parts.append(part)
    except TimeoutError:
        raise ApiError(408, "timeout", f"the body did not arrive within {_SECONDS:.0f} s") from None
    return b"".join(parts)
