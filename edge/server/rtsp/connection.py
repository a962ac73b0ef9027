"""One client's connection: requests one after the other, each answered, and at most one session."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any, cast

from edge.server.access import GuessLimit
from edge.server.rtsp.protocol import (
    END,
    MAX_HEAD_BYTES,
    METHODS,
    REALM,
    BadRequestError,
    Doors,
    Request,
    Transport,
    answer,
    parse_head,
    parse_transport,
    path_of,
    track_of,
)
from edge.server.rtsp.viewers import Served, UdpPorts, UdpViewer, Viewer, viewer_of

# without a request, for who plays nothing; without a sign of life, for who is sent UDP
IDLE_S = 15.0
UDP_SILENCE_S = 65.0
SESSION_S = 60
# a client that takes nothing for so long is gone
STUCK_S = 20.0
# until the first key picture of a stream that nobody saw before
DESCRIBE_S = 10.0
# requests that wait while one is answered
MAX_WAITING_BYTES = 64 << 10


class Hub:
    """What the connections share. Lives in the event loop.

    Attributes:
        streams: path → what is served there.
        refusals: path → why that is not served.
        counters: ``refused`` (wrong tokens), ``missed`` (pictures that late clients lost), ``bad`` (no requests).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.doors = Doors()
        self.guesses = GuessLimit()
        self.max_clients = 0
        self.is_set_up = False
        self.streams: dict[str, Served] = {}
        self.refusals: dict[str, str] = {}
        self.ports: UdpPorts | None = None
        self.connections: dict[Connection, None] = {}
        self.counters: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_playing(self) -> int:
        return sum(one.is_playing for one in self.connections)

    def start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tell_watched(self) -> None:
        """Say what is watched now."""


class Connection(asyncio.Protocol):
    """Answers one client."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._nonce = secrets.token_hex(16)
        self._waiting = bytearray()
        self._skip = 0
        self._is_busy = False
        self._heard_s = hub.loop.time()
        self._session = ""
        self._served: Served | None = None
        self._wanted: dict[int, Transport] = {}
        self._viewers: dict[int, Viewer] = {}
        self.host = ""

    @property
    def is_playing(self) -> bool:
        return bool(self._viewers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.host = str((transport.get_extra_info("peername") or ("",))[0])
        self._hub.connections[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._hub.connections.pop(self, None)
        self._hub.tell_watched()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        self._heard_s = self._hub.loop.time()
        if self._is_busy and len(self._waiting) > MAX_WAITING_BYTES:
            self.end()
        self._go_on()

    def end(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def look_after(self, now_s: float) -> None:
        """End it where nobody is there any more."""
        silent_s = now_s - self._heard_s
        viewers = self._viewers.values()
        if not viewers:
            is_over = silent_s > IDLE_S and not self._is_busy
        elif all(isinstance(viewer, UdpViewer) for viewer in viewers):
            is_over = silent_s > UDP_SILENCE_S
        else:
            is_over = any(viewer.since_s is not None and now_s - viewer.since_s > STUCK_S for viewer in viewers)
        if is_over:
            self.end()

    def _go_on(self) -> None:
        """Answer what has come whole."""
        while self._waiting and not self._is_busy and not self._transport.is_closing():
            if self._skip:
                passed = min(self._skip, len(self._waiting))
                self._skip -= passed
                del self._waiting[:passed]
            elif self._waiting[0] == 0x24:
                # a report of the client, in a frame of the connection
                if len(self._waiting) < 4:
                    return
                self._skip = 4 + int.from_bytes(self._waiting[2:4], "big")
            elif not self._take_request():
                return

    def _take_request(self) -> bool:
        """Answer the next request; False where it has not come whole."""
        end = self._waiting.find(END, 0, MAX_HEAD_BYTES + len(END))
        if end < 0:
            if len(self._waiting) > MAX_HEAD_BYTES:
                self._refuse(413)
            return False
        head = bytes(self._waiting[:end])
        del self._waiting[: end + len(END)]
        try:
            request, self._skip = parse_head(head)
        except BadRequestError as error:
            self._refuse(error.status)
            return False
        self._answer(request)
        return True

    def _refuse(self, status: int) -> None:
        """What came is no request, and what follows cannot be understood either."""
        self._hub.counters["bad"] += 1
        self._transport.write(answer(status, "0"))
        self._transport.close()

    def _say(self, request: Request, status: int, headers: dict[str, str] | None = None, body: str = "") -> None:
        self._transport.write(answer(status, request.cseq, headers, body))

    def _answer(self, request: Request) -> None:
        if request.method == "OPTIONS":
            self._say(request, 200, {"Public": ", ".join(METHODS)})
        elif request.method not in METHODS:
            self._say(request, 405, {"Allow": ", ".join(METHODS)})
        elif self._lets_in(request):
            self._admitted(request)

    def _lets_in(self, request: Request) -> bool:
        shows = self._hub.doors.lets_in(request, self._nonce)
        if shows:
            return True
        if shows is False:
            self._hub.counters["refused"] += 1
            wait_s = self._hub.guesses.note(self.host)
            if wait_s:
                self._say(request, 429, {"Retry-After": str(int(wait_s) + 1)})
                self._transport.close()
                return False
        self._say(request, 401, {"WWW-Authenticate": f'Digest realm="{REALM}", nonce="{self._nonce}"'})
        return False

    def _admitted(self, request: Request) -> None:
        if request.method == "DESCRIBE":
            self._is_busy = True
            self._hub.start_task(self._describe(request))
        elif request.method == "SETUP":
            self._set_up(request)
        elif request.headers.get("session", self._session).partition(";")[0] != self._session or (
            not self._session and request.method not in ("GET_PARAMETER", "SET_PARAMETER")
        ):
            self._say(request, 454)
        elif request.method == "PLAY":
            self._play(request)
        else:
            if request.method in ("PAUSE", "TEARDOWN"):
                self._leave(is_kept=request.method == "PAUSE")
            self._say(request, 200, self._session_header())

    async def _describe(self, request: Request) -> None:
        path = path_of(request.uri) or ""
        served = self._hub.streams.get(path)
        if served is None:
            status, said = 404, self._hub.refusals.get(path, "")
            self._say(request, status, {"X-Reason": said} if said else None)
        else:
            served.want()
            self._hub.tell_watched()
            served.ask_key()
            if await served.described(DESCRIBE_S):
                headers = {"Content-Base": f"{request.uri.rstrip('/')}/", "Content-Type": "application/sdp"}
                self._say(request, 200, headers, _sdp(served))
            else:
                self._say(request, 503, {"Retry-After": "5"})
        self._is_busy = False
        self._go_on()

    def _set_up(self, request: Request) -> None:
        served = self._hub.streams.get(path_of(request.uri) or "")
        track = track_of(request.uri)
        wanted = parse_transport(request.headers.get("transport", ""))
        if served is None or track not in served.tracks:
            self._say(request, 404)
        elif self._viewers or (self._served is not None and self._served is not served):
            self._say(request, 459 if self._served is not served else 455)
        elif wanted is None or (not wanted.is_tcp and self._hub.ports is None):
            self._say(request, 461)
        else:
            self._session = self._session or secrets.token_hex(8)
            self._served, self._wanted[track] = served, wanted
            served.want()
            numbers = f"{wanted.first}-{wanted.second}"
            ports = self._hub.ports
            if wanted.is_tcp or ports is None:
                text = f"RTP/AVP/TCP;unicast;interleaved={numbers}"
            else:
                text = f"RTP/AVP;unicast;client_port={numbers};server_port={ports.numbers[0]}-{ports.numbers[1]}"
            text += f";ssrc={served.ssrc(track):08X}"
            self._say(request, 200, {"Transport": text, **self._session_header()})

    def _play(self, request: Request) -> None:
        served = self._served
        if served is None or not self._wanted:
            self._say(request, 455)
            return
        if not self._viewers:
            if self._hub.num_playing >= self._hub.max_clients:
                self._say(request, 503, {"Retry-After": "5"})
                return
            self._join(served)
        self._say(request, 200, {"Range": "npt=now-", **self._session_header()})

    def _join(self, served: Served) -> None:
        ports = self._hub.ports
        for track, wanted in self._wanted.items():
            viewer = viewer_of(self._hub.loop, served.ask_key, self._transport, ports, wanted)
            if ports is not None and not wanted.is_tcp:
                ports.heard[self.host, wanted.second] = self._note_heard
            self._viewers[track] = viewer
            served.viewers[track].add(viewer)
        served.on_end(self.end)
        served.ask_key()
        self._hub.tell_watched()

    def _leave(self, *, is_kept: bool = False) -> None:
        viewers, self._viewers = self._viewers, {}
        for track, viewer in viewers.items():
            assert self._served is not None
            self._hub.counters["missed"] += viewer.num_missed
            self._served.viewers[track].discard(viewer)
            self._served.off_end(self.end)
            if self._hub.ports is not None:
                self._hub.ports.heard.pop((self.host, self._wanted[track].second), None)
        if not is_kept:
            self._served, self._wanted, self._session = None, {}, ""

    def _note_heard(self) -> None:
        self._heard_s = self._hub.loop.time()

    def _session_header(self) -> dict[str, str]:
        return {"Session": f"{self._session};timeout={SESSION_S}"} if self._session else {}


def _sdp(served: Served) -> str:
    now = int(time.time())
    sound = served.sound.sdp("trackID=1") if served.has_sound else []
    lines = ["v=0", f"o=- {now} 1 IN IP4 0.0.0.0", f"s={served.path}", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
    return "\r\n".join([*lines, *served.packer.sdp("trackID=0"), *sound, ""])
