"""The sound of the streams for WebRTC viewers: made while somebody listens, once per stream, sent with its picture."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.metrics.counters import Counters
    from edge.server.feeds import Feeds
    from edge.video.packets import PacketTap
    from edge.video.sound_feed import OpusFeed, SteadyTimes
    from edge.video.webrtc.track import SoundTrack

# a picture is not shown later than this
MAX_WAIT_S = 2.0
OPUS_RATE = 48_000
# 2.5 ms, the shortest piece of Opus
OPUS_STEP = 120


@dataclass(slots=True, eq=False)
class _Channel:
    """Who hears one stream: annotated, or plain."""

    tap: PacketTap
    feed: OpusFeed
    times: SteadyTimes
    tracks: set[SoundTrack] = field(default_factory=set)


class Sounds:
    """Lives in the server's event loop.

    Args:
        feeds: encodes the pictures next to it.
        loop: the event loop.
        counters: ``heard``: pieces of sound, once per stream.
    """

    def __init__(self, feeds: Feeds, loop: asyncio.AbstractEventLoop, counters: Counters[str]) -> None:
        self._feeds = feeds
        self._loop = loop
        self._counters = counters
        self._channels: dict[tuple[str, bool], _Channel] = {}

    def has(self, stream: str) -> bool:
        """Whether a stream has sound now that may be heard."""
        tap = self._feeds.board.sound(stream)
        return tap is not None and tap.form is not None and tap.form.sound is not None

    def join(self, stream: str, track: SoundTrack, *, is_plain: bool) -> None:
        """Give a track the sound of a stream; the first one begins to have it made. ``is_plain``: of its pictures."""
        from edge.video.sound_feed import OpusFeed, SteadyTimes

        key, tap = (stream, is_plain), self._feeds.board.sound(stream)
        if key not in self._channels:
            if tap is None:
                return

            def deliver(data: bytes, pts: int, time_ns: int) -> None:
                # the loop may close between this piece and the end of the server
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._wait, key, data, pts, time_ns)

            feed = OpusFeed(deliver)
            self._channels[key] = _Channel(tap, feed, SteadyTimes(OPUS_RATE, OPUS_STEP))
            tap.listen(feed)
        self._channels[key].tracks.add(track)

    def leave(self, stream: str, track: SoundTrack, *, is_plain: bool) -> None:
        """The track needs it no more; the last one ends its making."""
        channel = self._channels.get((stream, is_plain))
        if channel is None:
            return
        channel.tracks.discard(track)
        if not channel.tracks:
            del self._channels[stream, is_plain]
            channel.tap.leave(channel.feed)

    def _wait(self, key: tuple[str, bool], data: bytes, pts: int, time_ns: int) -> None:
        """Let sound leave when the picture that was taken with it does."""
        channel = self._channels.get(key)
        if channel is None:
            return
        due_ns = time_ns + self._feeds.delay_ns(key[0], is_plain=key[1])
        wait_s = min((due_ns - time.monotonic_ns()) / 1e9, MAX_WAIT_S)
        self._loop.call_later(max(0.0, wait_s), self._play, channel, data, channel.times.place(pts, due_ns))

    def _play(self, channel: _Channel, data: bytes, pts: int) -> None:
        self._counters.add("heard")
        for track in channel.tracks:
            track.put(data, pts)
