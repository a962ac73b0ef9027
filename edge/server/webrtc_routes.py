"""The routes of WebRTC viewing, as in WHEP (draft-ietf-wish-whep): an SDP offer is posted, the answer comes back.

There is no trickle ICE: the offer holds all candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import MissingError, SinkError, UsageError
from edge.server.request_body import read_small
from edge.server.who import who_of
from edge.users.rights import Who

if TYPE_CHECKING:
    from edge.server.webrtc import Peers

SDP = "application/sdp"
MAX_OFFER_BYTES = 32 * 1024
RETRY_S = 5
# a place that is narrower shows nothing: 1 asks for plain pictures as large as they are
LEAST_WIDTH = 16
MAX_WIDTH_DIGITS = 5


class WebRtcRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it.

    Args:
        peers: the viewers.
        known: gives the name of a stream back, or answers 404.
        still_sees: whether somebody may look at a stream on.
    """

    def __init__(
        self, peers: Peers, known: Callable[[str], str], still_sees: Callable[[Who, str], bool] = lambda who, name: True
    ) -> None:
        self._still_sees = still_sees
        self._peers = peers
        self._known = known

    async def whep(self, request: Request) -> Response:
        """POST an SDP offer (WHEP) to see a stream over WebRTC as H.264; ?plain=WIDTH draws nothing into it."""
        name = self._known(request.path_params["name"])
        # a browser asks first before it sends this type to another site, and is refused
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != SDP:
            raise HTTPException(415, f"expected content-type: {SDP}")
        asked_from = request.client.host if request.client else ""
        is_plain, width = _place(request)
        who = who_of(request)

        def is_allowed() -> bool:
            return self._still_sees(who, name)

        offer = await _offer(request)
        try:
            peer_id, answer = await self._peers.answer(
                name, offer, asked_from, is_plain=is_plain, width=width, is_allowed=is_allowed
            )
        except UsageError as error:
            raise HTTPException(400, str(error)) from None
        except MissingError as error:
            raise HTTPException(501, str(error)) from None
        except SinkError as error:
            raise HTTPException(503, str(error), {"retry-after": str(RETRY_S)}) from None
        location = f"/stream/{quote(name, safe='')}/whep/{peer_id}"
        return Response(answer, 201, {"location": location}, media_type=SDP)

    async def leave(self, request: Request) -> Response:
        """DELETE ends a WebRTC viewer, if it has not ended already."""
        await self._peers.end(self._known(request.path_params["name"]), request.path_params["viewer"])
        return Response(status_code=200)


def _place(request: Request) -> tuple[bool, int]:
    """Whether the viewer draws for itself, and how wide its place is: 0 is unknown, and so is what is no width."""
    asked = request.query_params.get("plain", "0")
    width = int(asked) if asked.isascii() and asked.isdigit() and len(asked) <= MAX_WIDTH_DIGITS else 0
    return asked != "0", width if width >= LEAST_WIDTH else 0


async def _offer(request: Request) -> str:
    """The text of a small request that comes in time."""
    data = await read_small(request, MAX_OFFER_BYTES, "offer")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise HTTPException(400, "expected an SDP offer, found no text") from None
