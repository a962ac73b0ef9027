"""The pictures of the streams as H.264, annotated and plain: each is encoded once, while somebody looks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from edge.pictures.planes import Planes
from edge.server.board import LiveBoard, Viewer
from edge.server.published import DRAWN, WIDTHS, divisor_for, smaller, width_step
from edge.types import UInt8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.video.encoder import Packet
    from edge.video.feed import VideoFeed


@dataclass(slots=True, eq=False)
class Subscription:
    """Somebody who gets the packets of one stream; given back with ``Feeds.leave``.

    Attributes:
        width: of the place that plain pictures are shown in, one of ``WIDTHS``; 0: as large as they are.
    """

    stream: str
    is_plain: bool
    deliver: Callable[[Packet], None]
    on_end: Callable[[], None]
    viewer: Viewer | None
    width: int = 0
    feed: VideoFeed | None = None


@dataclass(slots=True, eq=False)
class _Channel:
    feed: VideoFeed
    takers: tuple[Subscription, ...] = field(default=())


def watch_video(board: LiveBoard, stream: str, is_plain: bool) -> Viewer:
    """A viewer whose pictures are encoded as video: as they are, or annotated."""
    return board.watch(stream, has_pictures=True, is_video=True, width=WIDTHS[-1] if is_plain else DRAWN)


class Feeds:
    """Thread-safe. Plain pictures are encoded once for all, as large as the largest place that they are shown in.

    Args:
        board: whose pictures are encoded.
    """

    def __init__(self, board: LiveBoard) -> None:
        self._board = board
        self._lock = threading.Lock()
        self._channels: dict[tuple[str, bool], _Channel] = {}
        board.listen_pictures(self._take)

    def join(
        self,
        stream: str,
        encoder: str,
        deliver: Callable[[Packet], None],
        on_end: Callable[[], None] = lambda: None,
        *,
        is_viewer: bool = True,
        is_plain: bool = False,
        width: int = 0,
    ) -> Subscription:
        """Get the packets of a stream, the first soon a key picture; the first who joins starts its encoder.

        Args:
            stream: of the board.
            encoder: name of an FFmpeg encoder.
            deliver: takes each packet, in the encoder's thread; must not wait.
            on_end: told, in the encoder's thread, when the encoder has failed.
            is_viewer: whether this makes one viewer of the board; else the caller's viewers are there themselves.
            is_plain: for who draws for themselves.
            width: of the place that a plain picture is shown in; 0: as large as it is.
        """
        viewer = watch_video(self._board, stream, is_plain) if is_viewer else None
        subscription = Subscription(stream, is_plain, deliver, on_end, viewer, width_step(width))
        key = stream, is_plain
        with self._lock:
            channel = self._channels.get(key)
            if channel is None:
                channel = self._channels[key] = _Channel(self._new_feed(key, encoder))
            channel.takers = (*channel.takers, subscription)
            subscription.feed = channel.feed
        channel.feed.ask_key()
        return subscription

    def widen(self, subscription: Subscription, width: int) -> None:
        """The place that its plain pictures are shown in is this wide now; 0: show them as large as they are."""
        subscription.width = width_step(width)

    def leave(self, subscription: Subscription) -> None:
        """Get no more; the last one ends the encoder. May be called twice."""
        if subscription.viewer is not None:
            self._board.leave(subscription.viewer)
        with self._lock:
            channel = self._channels.get((subscription.stream, subscription.is_plain))
            if channel is None or channel.feed is not subscription.feed:
                return
            channel.takers = tuple(one for one in channel.takers if one is not subscription)
            if channel.takers:
                return
            del self._channels[subscription.stream, subscription.is_plain]
        channel.feed.stop()

    def ask_key(self, stream: str, *, is_plain: bool = False) -> None:
        """Make a picture of this stream soon that can be decoded without those before it."""
        channel = self._channels.get((stream, is_plain))
        if channel is not None:
            channel.feed.ask_key()

    def close(self) -> None:
        """End all encoders."""
        self._board.listen_pictures(None)
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.feed.stop()
        for channel in channels:
            channel.feed.join(1.0)

    def _new_feed(self, key: tuple[str, bool], encoder: str) -> VideoFeed:
        # PyAV takes a tenth of a second: the page starts without it
        from edge.video.feed import VideoFeed

        fps = self._board.info(key[0]).get("fps") or 0.0
        deliver = partial(self._deliver, key)
        feed = VideoFeed(
            f"video {key[0]}",
            encoder,
            fps=fps,
            deliver=deliver,
            on_end=lambda: self._ended(key, feed),
            fit=partial(self._fitted, key),
        )
        return feed

    def _fitted(self, key: tuple[str, bool], planes: Planes) -> Planes:
        """A picture as large as the largest place that shows it."""
        widths = [taker.width for taker in self._takers(key)]
        if not key[1] or not widths or 0 in widths:
            return planes
        return smaller(planes, divisor_for(max(widths), planes.width))

    def _take(self, stream: str, picture: UInt8 | Planes, time_ns: int) -> None:
        """A picture of the board, a plain one as planes; called in the publishing thread."""
        channel = self._channels.get((stream, isinstance(picture, Planes)))
        if channel is not None:
            channel.feed.put(picture, time_ns)

    def _takers(self, key: tuple[str, bool]) -> Sequence[Subscription]:
        channel = self._channels.get(key)
        return () if channel is None else channel.takers

    def _deliver(self, key: tuple[str, bool], packet: Packet) -> None:
        for taker in self._takers(key):
            taker.deliver(packet)

    def _ended(self, key: tuple[str, bool], feed: VideoFeed) -> None:
        """An encoder has ended: by itself where somebody still had it, and the next who joins gets another."""
        with self._lock:
            channel = self._channels.get(key)
            if channel is None or channel.feed is not feed:
                return
            del self._channels[key]
        for taker in channel.takers:
            taker.on_end()
