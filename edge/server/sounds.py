"""The sound of the streams for WebRTC viewers: made while somebody listens, once per stream, sent with its picture."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.metrics.counters import Counters
    from edge.server.feeds import Feeds
    from edge.video.webrtc.sound import SoundChannel
    from edge.video.webrtc.track import SoundTrack


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
        # by stream, and whether it goes with plain pictures
        self._channels: dict[tuple[str, bool], SoundChannel] = {}

    def has(self, stream: str) -> bool:
        """Whether a stream has sound now that may be heard."""
        tap = self._feeds.board.sound(stream)
        return tap is not None and tap.has_sound

    def join(self, stream: str, track: SoundTrack, *, is_plain: bool) -> None:
        """Give a track the sound of a stream; the first one begins to have it made. ``is_plain``: of its pictures."""
        from edge.video.webrtc.sound import SoundChannel

        key, tap = (stream, is_plain), self._feeds.board.sound(stream)
        if key not in self._channels:
            if tap is None:
                return
            delay_ns = partial(self._feeds.delay_ns, stream, is_plain=is_plain)
            self._channels[key] = SoundChannel(tap, self._loop, delay_ns, lambda: self._counters.add("heard"))
        self._channels[key].tracks.add(track)

    def leave(self, stream: str, track: SoundTrack, *, is_plain: bool) -> None:
        """The track needs it no more; the last one ends its making."""
        channel = self._channels.get((stream, is_plain))
        if channel is None:
            return
        channel.tracks.discard(track)
        if not channel.tracks:
            del self._channels[stream, is_plain]
            channel.close()
