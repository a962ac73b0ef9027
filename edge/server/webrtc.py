"""The WebRTC viewers of the live page: each has a connection, and those of a stream share one encoder.

A viewer that is connected watches the board like any other; a stream without one is neither drawn nor encoded.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.errors import MissingError, SinkError, UsageError
from edge.metrics.counters import Counters
from edge.packages.installed import add_extra
from edge.server.board import LiveBoard, Viewer
from edge.server.feeds import Feeds, Subscription, watch_video
from edge.server.sounds import Sounds

if TYPE_CHECKING:
    from edge.video.encoder import Packet
    from edge.video.webrtc.track import PacketTrack, SoundTrack

log = logging.getLogger(__name__)


# for making an answer, for connecting after it, and without a report of the viewer
ANSWER_S = 5.0
CONNECT_S = 10.0
SILENCE_S = 8.0
# how often it is asked for the report, and whether it may still look
CHECK_S = 2.0
ALLOWED_S = 0.5


@dataclass(slots=True, eq=False)
class _Peer:
    id: str
    stream: str
    is_plain: bool = False
    width: int = 0
    is_allowed: Callable[[], bool] = lambda: True
    track: PacketTrack | None = None
    sound: SoundTrack | None = None
    connection: Any = None
    viewer: Viewer | None = None
    timer: asyncio.TimerHandle | None = None
    watch: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Channel:
    """The viewers of one stream that are connected, and what they share."""

    subscription: Subscription | None = None
    peers: set[_Peer] = field(default_factory=set)


class Peers:
    """All WebRTC viewers. Lives in the server's event loop.

    Args:
        board: what they watch.
        max_peers: the most of them at once.
        host: the only address of this machine at which they are served; None: all but loopback.
        feeds: encodes the board's pictures for others too; None: an own one.

    Attributes:
        counters: ``answered``, ``refused``, ``connected``, ``timed_out`` (never connected), ``vanished`` (went without
            a word), ``encoded`` (pictures, once per stream), ``missed`` (packets that a late viewer lost), ``heard``
            (pieces of sound, once per stream).
    """

    def __init__(self, board: LiveBoard, max_peers: int, host: str | None = None, feeds: Feeds | None = None) -> None:
        self._board = board
        self._feeds = feeds or Feeds(board)
        self._owns_feeds = feeds is None
        self._max_peers = max_peers
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._peers: dict[str, _Peer] = {}
        self._channels: dict[tuple[str, bool], _Channel] = {}
        self._encoder_name = ""
        self._is_closing = False
        self._ending: set[asyncio.Task[None]] = set()
        self.counters: Counters[str] = Counters()
        self._sounds = Sounds(self._feeds, self._loop, self.counters)

    def counts(self) -> dict[str, int]:
        """``peers`` now, and the counters."""
        return {"peers": len(self._peers), **self.counters.snapshot()}

    async def answer(
        self,
        stream: str,
        sdp: str,
        asked_from: str,
        *,
        is_plain: bool = False,
        width: int = 0,
        is_allowed: Callable[[], bool] = lambda: True,
    ) -> tuple[str, str]:
        """Take a viewer's offer.

        Args:
            stream: a stream of the board.
            sdp: its offer, with all its candidates.
            asked_from: the address that it came from.
            is_plain: whether it draws for itself.
            width: of the place that it shows a plain picture in; 0: as large as it is.
            is_allowed: whether it may look on; asked in the event loop as long as it does.

        Returns:
            The viewer's id and the SDP answer.

        Raises:
            SinkError: there are too many viewers, or this device is too busy.
            UsageError: the offer makes no sense, or the viewer cannot show H.264.
            MissingError: there is no H.264 encoder.
        """
        if len(self._peers) >= self._max_peers or self._is_closing:
            self.counters.add("refused")
            raise SinkError(f"there are {self._max_peers} WebRTC viewers already (server.max_peers)")
        # taken before the first pause, so that many offers at once cannot pass the limit together
        peer = _Peer(secrets.token_urlsafe(16), stream, is_plain, width, is_allowed)
        self._peers[peer.id] = peer
        try:
            # the first time this loads aiortc and tries encoders, which may take seconds
            self._encoder_name = self._encoder_name or await asyncio.to_thread(_encoder)
            answer = await asyncio.wait_for(self._negotiate(peer, sdp, asked_from), ANSWER_S)
        except asyncio.TimeoutError:
            raise SinkError(f"no answer could be made within {ANSWER_S:g} s; try again") from None
        except UsageError:
            # a connection that close() ends in the middle says the same as one that cannot read its offer
            if peer.id in self._peers:
                raise
            raise SinkError("the server is closing") from None
        finally:
            if peer.timer is None:
                self.counters.add("refused")
                await self._end(peer)
        self.counters.add("answered")
        return peer.id, answer

    async def end(self, stream: str, peer_id: str) -> None:
        """Close a viewer's connection, if it is still there."""
        peer = self._peers.get(peer_id)
        if peer is not None and peer.stream == stream:
            await self._end(peer)

    async def close(self) -> None:
        """End all connections and encoders."""
        self._is_closing = True
        await asyncio.gather(*(self._end(peer) for peer in list(self._peers.values())))
        if self._ending:
            await asyncio.wait(self._ending)
        if self._owns_feeds:
            await asyncio.to_thread(self._feeds.close)

    async def _negotiate(self, peer: _Peer, sdp: str, asked_from: str) -> str:
        from edge.video.webrtc.offer import checked_offer, wants_sound
        from edge.video.webrtc.track import PacketTrack, SoundTrack, answer_to, connection_with

        offer = checked_offer(sdp, asked_from)

        def ask_key() -> None:
            self._feeds.ask_key(peer.stream, is_plain=peer.is_plain)

        peer.track = PacketTrack(ask_key)
        peer.sound = SoundTrack() if wants_sound(offer) and self._sounds.has(peer.stream) else None
        peer.connection = connection_with(peer.track, ask_key, peer.sound)
        peer.connection.on("connectionstatechange", lambda: self._changed(peer))
        answer = await answer_to(peer.connection, offer, self._host)
        if peer.id not in self._peers:
            await peer.connection.close()
            raise SinkError("the server is closing")
        peer.timer = self._loop.call_later(CONNECT_S, self._time_out, peer)
        return answer

    def _changed(self, peer: _Peer) -> None:
        """The connection has a new state; called by aiortc in the event loop."""
        state = peer.connection.connectionState
        if peer.id not in self._peers:
            return
        if state == "connected" and peer.viewer is None:
            self._join(peer)
        elif state in ("failed", "closed"):
            self._end_soon(peer)

    def _join(self, peer: _Peer) -> None:
        """Watch the stream; the first viewer starts its encoder."""
        self.counters.add("connected")
        key = peer.stream, peer.is_plain
        if key not in self._channels:
            self._channels[key] = channel = _Channel()
            channel.subscription = self._subscribe(peer.stream, peer.is_plain, channel)
        self._channels[key].peers.add(peer)
        self._fit(self._channels[key])
        self._feeds.ask_key(peer.stream, is_plain=peer.is_plain)
        peer.viewer = watch_video(self._board, peer.stream, peer.is_plain)
        peer.watch = self._loop.create_task(self._watch(peer))
        if peer.sound is not None:
            self._sounds.join(peer.stream, peer.sound, is_plain=peer.is_plain)

    async def _watch(self, peer: _Peer) -> None:
        """End a viewer that went without a word, or may not look any more."""
        from edge.video.webrtc.track import ReportWatch

        reports = ReportWatch(peer.connection)
        while await reports.silent_s() < SILENCE_S:
            for _ in range(round(CHECK_S / ALLOWED_S)):
                await asyncio.sleep(ALLOWED_S)
                if not peer.is_allowed():
                    self._end_soon(peer)
                    return
        self.counters.add("vanished")
        self._end_soon(peer)

    def _subscribe(self, stream: str, is_plain: bool, channel: _Channel) -> Subscription:
        def call(act: Any, *arguments: Any) -> None:
            # the loop may close between this packet and the end of the server
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(act, *arguments)

        return self._feeds.join(
            stream,
            self._encoder_name,
            deliver=lambda packet: call(self._deliver, channel, packet),
            on_end=lambda: call(self._encoder_ended, channel),
            is_viewer=False,
            is_plain=is_plain,
        )

    def _fit(self, channel: _Channel) -> None:
        """Let pictures be as large as the largest place that shows them."""
        widths = {peer.width for peer in channel.peers}
        if channel.subscription is not None and widths:
            self._feeds.widen(channel.subscription, 0 if 0 in widths else max(widths))

    def _deliver(self, channel: _Channel, packet: Packet) -> None:
        if channel.peers:
            self.counters.add("encoded")
        for peer in channel.peers:
            if peer.track is not None:
                peer.track.put(packet)

    def _encoder_ended(self, channel: _Channel) -> None:
        for peer in list(channel.peers):
            self._end_soon(peer)

    def _time_out(self, peer: _Peer) -> None:
        if peer.viewer is None:
            self.counters.add("timed_out")
            self._end_soon(peer)

    def _end_soon(self, peer: _Peer) -> None:
        task = self._loop.create_task(self._end(peer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, peer: _Peer) -> None:
        """Free everything of a viewer; the last one of a stream ends its encoder. May be called twice."""
        if self._peers.pop(peer.id, None) is None:
            return
        if peer.timer is not None:
            peer.timer.cancel()
        if peer.watch is not None:
            peer.watch.cancel()
        if peer.viewer is not None:
            self._board.leave(peer.viewer)
        self._leave_channel(peer)
        if peer.track is not None:
            self.counters.add("missed", peer.track.num_missed)
            peer.track.stop()
        if peer.sound is not None:
            self._sounds.leave(peer.stream, peer.sound, is_plain=peer.is_plain)
            peer.sound.stop()
        if peer.connection is not None:
            await peer.connection.close()

    def _leave_channel(self, peer: _Peer) -> None:
        channel = self._channels.get((peer.stream, peer.is_plain))
        if channel is None:
            return
        channel.peers.discard(peer)
        self._fit(channel)
        if not channel.peers:
            del self._channels[peer.stream, peer.is_plain]
            if channel.subscription is not None:
                self._feeds.leave(channel.subscription)


def _encoder() -> str:
    from edge.video.encoder import find_encoder

    try:
        import edge.video.webrtc.track  # noqa: F401 - loads aiortc
    except ImportError:
        raise MissingError(f"WebRTC: aiortc is not installed; run: {add_extra('webrtc')}") from None
    return find_encoder(is_hardware_wanted=True)
