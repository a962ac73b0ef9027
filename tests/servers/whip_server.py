"""A WHIP endpoint for tests: a small HTTP server before a WebRTC receiver, which is aiortc or a browser.

Run as ``python tests/servers/whip_server.py PORT [TOKEN]`` it decodes what it gets with aiortc and writes a JSON line
per picture: its number (as painted by ``tests/e2e/live_show.py``) and the monotonic time when it was there, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NUMBER_BITS, SQUARE_PX = 16, 24


class WhipServer:
    """Listens on a port of localhost; ``answer`` makes the SDP answer of an offer.

    Attributes:
        offers: how many offers were taken.
        ended: the paths that were deleted.
        refused: requests without the token.
    """

    def __init__(self, answer: Callable[[str], str], port: int = 0, token: str = "") -> None:
        self.answer = answer
        self.token = token
        self.offers = 0
        self.refused = 0
        self.ended: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if outer.token and self.headers.get("authorization") != f"Bearer {outer.token}":
                    outer.refused += 1
                    self._reply(401, "")
                    return
                offer = self.rfile.read(int(self.headers["content-length"])).decode()
                outer.offers += 1
                self._reply(201, outer.answer(offer), {"location": "/session/1", "content-type": "application/sdp"})

            def do_DELETE(self) -> None:
                outer.ended.append(self.path)
                self._reply(200, "")

            def _reply(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {**(headers or {}), "content-length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def number_in(grey: Any) -> int:
    """The number along the lower edge of a (H, W) uint8 picture."""
    row = grey.shape[0] - SQUARE_PX // 2
    bits = [grey[row, bit * SQUARE_PX + SQUARE_PX // 2] > 127 for bit in range(NUMBER_BITS)]
    return sum(1 << (NUMBER_BITS - 1 - bit) for bit, is_set in enumerate(bits) if is_set)


async def receive(port: int, token: str) -> None:
    """Serve until killed."""
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

    loop = asyncio.get_running_loop()
    connections = []

    async def answer(offer: str) -> str:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(connection)
        connection.on("track", lambda track: loop.create_task(watch(track)))
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        return str(connection.localDescription.sdp)

    server = WhipServer(lambda offer: asyncio.run_coroutine_threadsafe(answer(offer), loop).result(), port, token)
    print(json.dumps({"port": server.port}), flush=True)
    await asyncio.Event().wait()


async def watch(track: Any) -> None:
    from aiortc.mediastreams import MediaStreamError

    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        now_s = time.monotonic()
        print(json.dumps({"number": number_in(frame.to_ndarray(format="gray")), "s": now_s}), flush=True)


if __name__ == "__main__":
    asyncio.run(receive(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
