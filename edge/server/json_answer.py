"""What the API gives: JSON with numbers only that JSON has, and refusals as text; both without secrets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edge.addresses.secrets import redacted, redacted_value

JSON = "application/json"


def json_bytes(value: Any) -> bytes:
    """The value as JSON; secrets are masked, and what is no number (NaN, infinite) is null.

    Other things, such as numpy's numbers and paths, are given as text: they must not break the page.
    """
    return json.dumps(_finite(redacted_value(value)), default=str, allow_nan=False).encode()


class JsonAnswer(Response):
    """An answer of this value."""

    def __init__(self, value: Any, status_code: int = 200) -> None:
        super().__init__(json_bytes(value), status_code, media_type=JSON)


async def refusal(request: Request, error: Exception) -> Response:
    """The answer to an ``HTTPException``: its sentence, which may be that of another error, without secrets."""
    assert isinstance(error, HTTPException)
    return PlainTextResponse(redacted(error.detail), error.status_code, error.headers)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
