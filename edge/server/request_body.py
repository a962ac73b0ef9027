"""The body of a request that must be small and come in time, so that nobody fills the memory or holds a place."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request

TIMEOUT_S = 5.0


async def read_small(request: Request, max_bytes: int, what: str) -> bytes:
    """All of it.

    Args:
        request: whose body was not read yet.
        max_bytes: that it may have.
        what: it is, for the message.

    Raises:
        HTTPException: 408 where it did not come within ``TIMEOUT_S``, 413 where it is larger.
    """
    try:
        return await asyncio.wait_for(_read(request, max_bytes), TIMEOUT_S)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the {what} did not come within {TIMEOUT_S:g} s") from None


async def _read(request: Request, max_bytes: int) -> bytes:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise HTTPException(413, f"expected at most {max_bytes} bytes")
    return data
