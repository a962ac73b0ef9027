"""The track of one WebRTC receiver, fed with packets that are encoded already, and its connection.

aiortc encodes per connection; given packets it only packs them, so a stream is encoded once however many receive it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.exceptions import InternalError, InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError

from edge.errors import SinkError, UsageError
from edge.video.encoder import TIME_BASE, Packet
from edge.video.webrtc.offer import lines_of, media_of, wants_sound

# at 25 pictures a second a third of a second; what is later than that is not live
CAPACITY = 8
# half a second
SOUND_CAPACITY = 25
SOUND_TIME_BASE = Fraction(1, 48_000)
NO_ADDRESSES = "the addresses of this machine cannot be listed ({}); a service of systemd needs AF_NETLINK for it"
# aiortc's parser has no error of its own: a broken text ends in whatever it stumbles over
BROKEN_SDP = (
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    InternalError,
    InvalidAccessError,
    InvalidStateError,
)


class PacketTrack(MediaStreamTrack):  # type: ignore[misc]
    """One receiver's slot. Lives in the event loop.

    It begins with a key picture. A receiver that falls behind loses what waits and goes on with the next key picture.

    Args:
        ask_key: called when a key picture is needed.

    Attributes:
        num_taken, num_missed: packets sent, and packets lost because the receiver was late or waited for a key picture.
    """

    kind = "video"

    def __init__(self, ask_key: Callable[[], None]) -> None:
        super().__init__()
        self._ask_key = ask_key
        self._packets: deque[Packet] = deque()
        self._changed = asyncio.Event()
        self._needs_key = True
        self.num_taken = 0
        self.num_missed = 0

    def put(self, packet: Packet) -> None:
        """Hand over the newest packet."""
        if len(self._packets) >= CAPACITY:
            self.num_missed += len(self._packets)
            self._packets.clear()
            self._needs_key = True
        if self._needs_key and not packet.is_key:
            self.num_missed += 1
            self._ask_key()
            return
        self._needs_key = False
        self._packets.append(packet)
        self._changed.set()

    async def recv(self) -> Any:
        """The next packet, for aiortc. Raises: MediaStreamError: the track has ended."""
        while not self._packets and self.readyState == "live":
            self._changed.clear()
            await self._changed.wait()
        if self.readyState != "live":
            raise MediaStreamError
        packet = self._packets.popleft()
        self.num_taken += 1
        coded = av.Packet(packet.data)
        coded.pts = coded.dts = packet.pts
        coded.time_base = TIME_BASE
        coded.is_keyframe = packet.is_key
        return coded

    def stop(self) -> None:
        super().stop()
        self._changed.set()


class SoundTrack(MediaStreamTrack):  # type: ignore[misc]
    """The sound of one receiver: pieces of Opus. Lives in the event loop.

    Attributes:
        num_taken: pieces sent.
    """

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        # a receiver that falls behind loses what is oldest
        self._pieces: deque[tuple[bytes, int]] = deque(maxlen=SOUND_CAPACITY)
        self._changed = asyncio.Event()
        self.num_taken = 0

    def put(self, data: bytes, pts: int) -> None:
        """Hand over the newest piece. Args: Opus, its time in ticks of 1/48000 s."""
        self._pieces.append((data, pts))
        self._changed.set()

    async def recv(self) -> Any:
        """The next piece, for aiortc. Raises: MediaStreamError: the track has ended."""
        while not self._pieces and self.readyState == "live":
            self._changed.clear()
            await self._changed.wait()
        if self.readyState != "live":
            raise MediaStreamError
        data, pts = self._pieces.popleft()
        self.num_taken += 1
        coded = av.Packet(data)
        coded.pts = coded.dts = pts
        coded.time_base = SOUND_TIME_BASE
        return coded

    def stop(self) -> None:
        super().stop()
        self._changed.set()


def connection_with(track: PacketTrack, ask_key: Callable[[], None], sound: SoundTrack | None = None) -> Any:
    """An aiortc connection that will send this track as H.264, and asks for a key picture when the receiver does.

    ``sound`` is sent next to it as Opus; the receiver must have asked for it.
    """
    # no server of third parties is asked which address this device has
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = connection.addTransceiver(track, direction="sendonly")
    offered = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([codec for codec in offered if codec.mimeType in ("video/H264", "video/rtx")])
    # aiortc tells only its own encoder that a receiver asks for a key picture, and that one has no work here
    transceiver.sender._send_keyframe = ask_key
    if sound is not None:
        heard = connection.addTransceiver(sound, direction="sendonly")
        opus = [codec for codec in RTCRtpSender.getCapabilities("audio").codecs if codec.mimeType == "audio/opus"]
        heard.setCodecPreferences(opus)
        # receivers play together what is of one stream; aiortc makes one per track
        heard.sender._stream_id = transceiver.sender._stream_id
    return connection


async def answer_to(connection: Any, offer: str, host: str | None = None) -> str:
    """The SDP answer of a connection, with all its candidates.

    Args:
        connection: from ``connection_with``.
        offer: of the viewer, checked.
        host: the only address of this machine that it may be reached at; None: all but loopback.

    Raises:
        UsageError: the offer cannot be answered.
        SinkError: this machine does not tell its addresses.
    """
    try:
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        if host is not None:
            _listen_only_at(connection, host)
        await connection.setLocalDescription(await connection.createAnswer())
    except OperationError:
        raise UsageError("the offer has no H.264 video; nothing else is sent") from None
    except OSError as error:
        raise SinkError(NO_ADDRESSES.format(error.strerror)) from None
    except BROKEN_SDP as error:
        raise UsageError(f"the SDP offer cannot be read ({type(error).__name__})") from None
    return str(connection.localDescription.sdp)


def _listen_only_at(connection: Any, host: str) -> None:
    """aiortc opens a port at every address of the machine; it has no setting for it."""
    for transceiver in connection.getTransceivers():
        ice = transceiver.sender.transport.transport.iceGatherer._connection
        ice.get_component_candidates = partial(_candidates_at, type(ice).get_component_candidates, ice, host)


async def _candidates_at(gather: Any, ice: Any, host: str, component: int, addresses: list[str]) -> Any:
    return await gather(ice, component=component, addresses=[host])


async def offer_of(connection: Any) -> str:
    """The SDP offer of a connection, with all its candidates. Raises: SinkError: this machine tells no addresses."""
    try:
        await connection.setLocalDescription(await connection.createOffer())
    except OSError as error:
        raise SinkError(NO_ADDRESSES.format(error.strerror)) from None
    return str(connection.localDescription.sdp)


async def accept_answer(connection: Any, answer: str, *, has_sound: bool = False) -> bool:
    """Take the receiver's SDP answer to one video, and to sound where that was offered (``has_sound``).

    Returns:
        Whether it was taken; false: the receiver wants no sound, and the connection is of no use.

    Raises:
        SinkError: it is no answer, or one without H.264.
    """
    try:
        kinds = media_of(lines_of(answer))
    except UsageError as error:
        raise SinkError(f"the receiver's answer: {error}") from None
    if kinds != ["video"] and not (has_sound and kinds == ["video", "audio"]):
        raise SinkError(f"expected one video in the receiver's SDP answer, found {', '.join(kinds[:8])[:80] or 'none'}")
    if has_sound and not wants_sound(answer):
        return False
    try:
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    except OperationError:
        raise SinkError("the receiver takes no H.264") from None
    except BROKEN_SDP as error:
        raise SinkError(f"the receiver's SDP answer cannot be read ({type(error).__name__})") from None
    return True


class ReportWatch:
    """Whether a receiver still reports what it gets (RTCP), as it does about once a second.

    ICE finds out by itself that a receiver is gone, but only after half a minute (RFC 7675).
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._newest: Any = None
        self._changed_s = time.monotonic()

    async def silent_s(self) -> float:
        """Seconds since the last report was seen, to be asked every few seconds; 0 while it never reported."""
        statistics = (await self._connection.getStats()).values()
        newest = max((one.timestamp for one in statistics if one.type == "remote-inbound-rtp"), default=None)
        # the reports have wall-clock times, which may jump: only that they change counts
        if newest != self._newest:
            self._newest, self._changed_s = newest, time.monotonic()
        return 0.0 if newest is None else time.monotonic() - self._changed_s
