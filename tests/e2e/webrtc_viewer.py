"""A WebRTC viewer for tests: aiortc in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
from e2e.live_show import NUMBER_BITS, SQUARE_PX

SDP = {"content-type": "application/sdp"}


def number_in(grey: Any) -> int:
    """The number painted along the lower edge of a (H, W) uint8 picture."""
    row, half = grey.shape[0] - SQUARE_PX // 2, SQUARE_PX // 2
    bits = [int(grey[row, bit * SQUARE_PX + half] > 127) for bit in range(NUMBER_BITS)]
    return sum(bit << (NUMBER_BITS - 1 - index) for index, bit in enumerate(bits))


class Viewer:
    """Watches from ``start`` to ``close``.

    Attributes:
        status: of the answer.
        location: what ends the viewer.
        seen: (number, monotonic time in seconds) of every decoded picture.
    """

    def __init__(self, url: str, stream: str = "door", *, headers: dict[str, str] | None = None) -> None:
        self.status = 0
        self.text = ""
        self.location = ""
        self.seen: list[tuple[int, float]] = []
        self.is_connecting = True
        self._url = f"{url}/stream/{stream}/whep"
        self._headers = {**SDP, **(headers or {})}
        self._loop = asyncio.new_event_loop()
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def start(self, *, is_connecting: bool = True) -> Viewer:
        """Post the offer; without connecting the answer is not used."""
        self.is_connecting = is_connecting
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)
        return self

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def offer(self) -> str:
        from aiortc import RTCConfiguration, RTCPeerConnection

        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connection.addTransceiver("video", direction="recvonly")
        await self._connection.setLocalDescription(await self._connection.createOffer())
        return str(self._connection.localDescription.sdp)

    async def _start(self) -> None:
        from aiortc import RTCSessionDescription

        offer = await self.offer()
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(self._url, content=offer, headers=self._headers)
        self.status, self.text, self.location = answer.status_code, answer.text, answer.headers.get("location", "")
        if self.status == 201 and self.is_connecting:
            await self._connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
            self._task = self._loop.create_task(self._watch(self._connection.getReceivers()[0].track))

    async def _watch(self, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError

        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            # the picture is there; reading its number is the test's own time
            now_s = time.monotonic()
            self.seen.append((number_in(frame.to_ndarray(format="gray")), now_s))
