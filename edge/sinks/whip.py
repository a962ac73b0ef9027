"""Sink that pushes the annotated picture, with the camera's sound, to a WHIP endpoint (RFC 9725): WebRTC towards a
media server or an ingest.

A thread with an event loop of its own keeps the connection, another encodes. A receiver that is dead or slow costs only
this sink: it is tried again after a pause, and until it is connected nothing is drawn or encoded.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from edge.addresses.secrets import read_secret, register_pushed
from edge.addresses.uris import without_keys
from edge.errors import MissingError, SinkError, UsageError
from edge.metrics.counters import Counters
from edge.metrics.delay import Delay
from edge.packages.installed import add_extra
from edge.sinks.whip_http import Answer, ask
from edge.threads.backoff import Backoff
from edge.threads.worker import Worker
from edge.video.encoder import Packet, find_encoder

if TYPE_CHECKING:
    from edge.types import Result, UInt8
    from edge.video.feed import VideoFeed
    from edge.video.packets import PacketTap
    from edge.video.webrtc.sound import SoundChannel
    from edge.video.webrtc.track import PacketTrack, SoundTrack

log = logging.getLogger(__name__)
SDP = "application/sdp"
POLL_S = 0.2
CLOSE_TIMEOUT_S = 5.0
# asks for the file with the bearer token; a fragment is never sent to a server
BEARER_KEY = "bearer_file"


@dataclass(frozen=True, slots=True)
class WhipEndpoint:
    """Where to push. ``label`` is for people and has no secrets; ``authorization`` is the header's value or empty."""

    url: str
    label: str
    authorization: str = ""


@dataclass(frozen=True, slots=True)
class WhipPatience:
    """Seconds for the answer, for connecting then, and without a report of the receiver; pauses between attempts."""

    answer_s: float = 10.0
    connect_s: float = 10.0
    silence_s: float = 10.0
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0


PATIENCE = WhipPatience()


def endpoint_of(address: str) -> WhipEndpoint:
    """The endpoint of ``https://host/path``, with its access as ``https://TOKEN@…``, ``https://user:password@…`` or
    ``…#bearer_file=FILE``.

    Raises:
        UsageError: it is no http or https address, or the fragment has another key.
        ConfigError: the token's file cannot be read.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--sink whip:{without_keys(address)}: expected whip:https://HOST/PATH")
    options = dict(parse_qsl(parts.fragment, keep_blank_values=True))
    if set(options) - {BEARER_KEY}:
        raise UsageError(f"--sink whip:{without_keys(address)}: after # only {BEARER_KEY}=FILE is expected")
    register_pushed(address)
    authorization = ""
    if options:
        authorization = f"Bearer {read_secret(Path(options[BEARER_KEY]), f'whip: {BEARER_KEY}')}"
    elif parts.password is not None:
        user = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
        authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
    elif parts.username:
        authorization = f"Bearer {unquote(parts.username)}"
    place = parts.netloc.rpartition("@")[2]
    url = urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))
    return WhipEndpoint(url, f"whip:{without_keys(url)}", authorization)


class WhipSink:
    """Pushes one stream.

    Args:
        endpoint: where to.
        fps: nominal frame rate, 0 where unknown.
        patience: how long an endpoint may take.
        sound: gives the camera's sound; None: nobody may hear it.

    Attributes:
        counters: ``sent`` (packets taken for sending), ``heard`` (pieces of sound), ``failures``.
        error: why the last attempt failed, empty while all is well.

    Raises:
        MissingError: aiortc is not installed, or there is no H.264 encoder.
    """

    takes_unseen = True

    def __init__(
        self, endpoint: WhipEndpoint, *, fps: float, patience: WhipPatience = PATIENCE, sound: PacketTap | None = None
    ) -> None:
        try:
            import edge.video.webrtc.track  # noqa: F401 - loads aiortc
        except ImportError:
            raise MissingError(f"whip: aiortc is not installed; run: {add_extra('webrtc')}") from None
        self.name = endpoint.label
        self._endpoint = endpoint
        self._fps = fps
        self._patience = patience
        self._encoder_name = find_encoder(is_hardware_wanted=True)
        self._backoff = Backoff(base_s=patience.backoff_base_s, cap_s=patience.backoff_cap_s)
        self._feed: VideoFeed | None = None
        self._tap = sound
        self._is_deaf = False
        self._delay = Delay()
        # what a camera sends is known with its first picture
        self._has_begun = threading.Event()
        self.counters: Counters[str] = Counters()
        self.error = ""
        self._worker = Worker(self.name, self._run)
        self._worker.start()

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if self._worker.failure is not None:
            raise SinkError(f"{self.name}: pushing has ended ({self._worker.failure})")
        self._has_begun.set()
        feed = self._feed
        if feed is not None:
            self._delay.note(time.monotonic_ns() - result.frame.captured_ns)
            feed.put(picture(), time.monotonic_ns())

    def close(self) -> None:
        self._worker.stop()
        self._worker.join(CLOSE_TIMEOUT_S)

    def _run(self, stopping: threading.Event) -> None:
        while self._tap is not None and not self._has_begun.wait(POLL_S) and not stopping.is_set():
            pass
        while not stopping.is_set():
            try:
                asyncio.run(self._push(stopping))
            except SinkError as error:
                self.counters.add("failures")
                if not self.error:
                    log.warning("%s: %s; it is tried again", self.name, error)
                self.error = str(error)
                stopping.wait(self._backoff.next_delay_s())

    async def _push(self, stopping: threading.Event) -> None:
        """One connection, until it fails or the stream ends."""
        from edge.video.webrtc.track import PacketTrack, SoundTrack, accept_answer, connection_with

        def ask_key() -> None:
            if self._feed is not None:
                self._feed.ask_key()

        track, sound = PacketTrack(ask_key), SoundTrack() if self._has_sound else None
        connection = connection_with(track, ask_key, sound)
        place = ""
        try:
            answer = await self._call(connection)
            place = answer.location
            if not await accept_answer(connection, answer.body, has_sound=sound is not None):
                log.info("%s: the receiver takes no sound", self.name)
                self._is_deaf = True
                return
            await self._wait_for_connection(connection, stopping)
            if not stopping.is_set():
                await self._send(connection, track, sound, stopping)
        finally:
            self._stop_feed()
            await connection.close()
            if place:
                await self._hang_up(place)

    async def _call(self, connection: Any) -> Answer:
        """Offer the video, and the sound."""
        from edge.video.webrtc.track import offer_of

        answer = await self._ask("POST", self._endpoint.url, await offer_of(connection))
        if answer.status != 201:
            raise SinkError(f"the endpoint answered with status {answer.status}; expected 201")
        return answer

    async def _wait_for_connection(self, connection: Any, stopping: threading.Event) -> None:
        deadline_s = time.monotonic() + self._patience.connect_s
        while connection.connectionState != "connected" and not stopping.is_set():
            if connection.connectionState in ("failed", "closed"):
                raise SinkError("the media connection failed; is UDP open between here and there?")
            if time.monotonic() > deadline_s:
                raise SinkError(f"not connected within {self._patience.connect_s:g} s; is UDP open?")
            await asyncio.sleep(POLL_S / 4)

    async def _send(
        self, connection: Any, track: PacketTrack, sound: SoundTrack | None, stopping: threading.Event
    ) -> None:
        """Send until it fails, the stream ends, or the camera has sound where it had none, or none any more."""
        if self.error:
            log.info("%s: connected again", self.name)
        self.error = ""
        self._backoff.reset()
        feed = self._start_feed(track)
        channel = self._start_sound(feed, sound)
        try:
            await self._watch(connection, feed, sound is not None, stopping)
        finally:
            if channel is not None:
                channel.close()

    async def _watch(self, connection: Any, feed: VideoFeed, has_sound: bool, stopping: threading.Event) -> None:
        from edge.video.webrtc.track import ReportWatch

        reports = ReportWatch(connection)
        while not stopping.is_set() and has_sound == self._has_sound:
            await asyncio.sleep(POLL_S)
            if feed.failure is not None:
                raise SinkError(f"encoding has ended ({feed.failure})")
            if connection.connectionState != "connected":
                raise SinkError("the receiver has closed the connection")
            if await reports.silent_s() > self._patience.silence_s:
                raise SinkError(f"the receiver has reported nothing for {self._patience.silence_s:g} s")

    @property
    def _has_sound(self) -> bool:
        return self._tap is not None and self._tap.has_sound and not self._is_deaf

    def _start_sound(self, feed: VideoFeed, track: SoundTrack | None) -> SoundChannel | None:
        from edge.video.webrtc.sound import SoundChannel

        if track is None or self._tap is None:
            return None
        loop = asyncio.get_running_loop()
        channel = SoundChannel(
            self._tap, loop, lambda: self._delay.ns + feed.delay_ns, lambda: self.counters.add("heard")
        )
        channel.tracks.add(track)
        return channel

    def _start_feed(self, track: PacketTrack) -> VideoFeed:
        from edge.video.feed import VideoFeed

        loop = asyncio.get_running_loop()

        def deliver(packet: Packet) -> None:
            self.counters.add("sent")
            # the loop may have ended with the connection
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(track.put, packet)

        self._feed = VideoFeed(f"encode {self.name}", self._encoder_name, fps=self._fps, deliver=deliver)
        return self._feed

    def _stop_feed(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()
            feed.join(1.0)

    async def _hang_up(self, place: str) -> None:
        # the connection is closed already; who does not hear this notices by itself
        with suppress(SinkError):
            await self._ask("DELETE", place)

    async def _ask(self, method: str, url: str, body: str = "") -> Answer:
        headers = {"content-type": SDP} if body else {}
        if self._endpoint.authorization:
            headers["authorization"] = self._endpoint.authorization
        # in a thread: looking up a name cannot be interrupted
        return await asyncio.to_thread(ask, method, url, body, headers, self._patience.answer_s)
