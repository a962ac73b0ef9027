"""A camera's sound on its way into WebRTC: Opus, made while it is there, and sent when its picture is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from edge.video.packets import PacketTap
from edge.video.sound_feed import OpusFeed, SteadyTimes
from edge.video.webrtc.track import SoundTrack

# a picture is not shown later than this
MAX_WAIT_S = 2.0
OPUS_RATE = 48_000
# 2.5 ms, the shortest piece of Opus
OPUS_STEP = 120


class SoundChannel:
    """Gives tracks the sound of a stream, from its making to ``close``. Lives in an event loop.

    Args:
        tap: gives the sound.
        loop: the event loop.
        delay_ns: gives how long after it was captured a picture leaves.
        on_piece: told of each piece.

    Attributes:
        tracks: who gets it.
    """

    def __init__(
        self,
        tap: PacketTap,
        loop: asyncio.AbstractEventLoop,
        delay_ns: Callable[[], int],
        on_piece: Callable[[], None] = lambda: None,
    ) -> None:
        self.tracks: set[SoundTrack] = set()
        self._tap = tap
        self._loop = loop
        self._delay_ns = delay_ns
        self._on_piece = on_piece
        self._times = SteadyTimes(OPUS_RATE, OPUS_STEP)
        self._feed = OpusFeed(self._deliver)
        tap.listen(self._feed)

    def close(self) -> None:
        """Make no more of it."""
        self._tap.leave(self._feed)
        self.tracks.clear()

    def _deliver(self, data: bytes, pts: int, time_ns: int) -> None:
        # the loop may close between this piece and the end of who listens
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wait, data, pts, time_ns)

    def _wait(self, data: bytes, pts: int, time_ns: int) -> None:
        """Let sound leave when the picture that was taken with it does."""
        due_ns = time_ns + self._delay_ns()
        wait_s = min((due_ns - time.monotonic_ns()) / 1e9, MAX_WAIT_S)
        self._loop.call_later(max(0.0, wait_s), self._play, data, self._times.place(pts, due_ns))

    def _play(self, data: bytes, pts: int) -> None:
        if self.tracks:
            self._on_piece()
        for track in self.tracks:
            track.put(data, pts)
