"""What the API answers tells no secret."""

from __future__ import annotations

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.server.json_answer import JsonAnswer, refusal

ADDRESS = "rtsp://vera:se%20cret@10.0.0.7/main"


async def refused(request: Request) -> Response:
    raise HTTPException(503, f"{ADDRESS} does not answer", {"retry-after": "2"})


async def told(request: Request) -> Response:
    return JsonAnswer({"source": [ADDRESS], "rate": float("nan")})


def test_neither_a_refusal_nor_a_value_tells_a_password() -> None:
    app = Starlette(
        routes=[Route("/refused", refused), Route("/told", told)], exception_handlers={HTTPException: refusal}
    )

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://camera") as client:
            return await client.get(path)

    answer, value = asyncio.run(ask("/refused")), asyncio.run(ask("/told"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "10.0.0.7/main does not answer" in answer.text and "se%20cret" not in answer.text
    assert value.json()["rate"] is None and "10.0.0.7" in value.text and "se%20cret" not in value.text
