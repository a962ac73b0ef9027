"""The streams of the RTSP process and who sees them: packed once, sent to each as fast as it takes them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from edge.server.rtsp.protocol import Transport
from edge.video.encoder import TICKS_PER_S, Packet
from edge.video.rtp import RtpPacker, SoundPacker

# what waits for a client in its connection; a second of 4 Mbit/s
MAX_WAITING_BYTES = 512 << 10
# by UDP so many packets go out at once, and the next ones so much later: a key picture would flood the receiver
BURST, BURST_S = 24, 0.002
MAX_WAITING_PACKETS = 2048
# a stream goes on for so long after its last viewer
LINGER_S = 5.0
# two attempts to find a pair of ports are often enough
PORT_TRIES = 64
NS_PER_S = 1_000_000_000
# the two tracks of an address
PICTURES, SOUND = 0, 1


@dataclass(slots=True)
class UdpPorts:
    """The pair of UDP sockets that all clients share; ``numbers`` are theirs."""

    packets: socket.socket
    reports: socket.socket
    numbers: tuple[int, int]
    heard: dict[tuple[str, int], Callable[[], None]]

    @classmethod
    def open(cls, loop: asyncio.AbstractEventLoop, family: int, host: str) -> UdpPorts | None:
        """An even port and the one above it; None where there is no such pair."""
        for _ in range(PORT_TRIES):
            packets, reports = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
            try:
                packets.bind((host, 0))
                port = packets.getsockname()[1]
                if port % 2 == 0:
                    reports.bind((host, port + 1))
                    break
            except OSError:
                pass
            packets.close()
            reports.close()
        else:
            return None
        for one in (packets, reports):
            one.setblocking(False)
        ports = cls(packets, reports, (port, port + 1), {})
        loop.add_reader(reports, ports._hear)
        loop.add_reader(packets, ports._forget)
        return ports

    def _hear(self) -> None:
        """A client that reports is there; what it says is not looked at."""
        with suppress(OSError):
            _, address = self.reports.recvfrom(2048)
            heard = self.heard.get((address[0], address[1]))
            if heard is not None:
                heard()

    def _forget(self) -> None:
        # some clients send there, to open their router
        with suppress(OSError):
            self.packets.recvfrom(2048)


class Viewer:
    """One client that plays one track of a stream.

    Attributes:
        num_missed: pictures that it lost because it was late.
        since_s: since when it takes nothing; None while it does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ask_key: Callable[[], None]) -> None:
        self._loop = loop
        self._ask_key = ask_key
        self._needs_key = True
        self.num_missed = 0
        self.since_s: float | None = None

    def send(self, packets: list[bytes], is_key: bool, report: Callable[[], bytes], joined: dict[int, bytes]) -> None:
        """A picture; one that is late goes on with the next key picture.

        Args:
            packets: its RTP packets.
            is_key: whether decoding can begin with it.
            report: gives a sender report.
            joined: of this picture, for all viewers: channel → its packets with the frames of the connection.
        """
        if not self._has_room():
            self.since_s = self.since_s or self._loop.time()
            self._needs_key = True
            self.num_missed += 1
            return
        self.since_s = None
        if self._needs_key and not is_key:
            self.num_missed += 1
            self._ask_key()
            return
        if self._needs_key:
            self._needs_key = False
            self.send_report(report())
        self._send(packets, joined)

    def send_report(self, report: bytes) -> None:
        """A sender report."""
        raise NotImplementedError

    def _has_room(self) -> bool:
        raise NotImplementedError

    def _send(self, packets: list[bytes], joined: dict[int, bytes]) -> None:
        raise NotImplementedError


class TcpViewer(Viewer):
    """Gets its packets in the connection that it asked over."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask_key: Callable[[], None],
        transport: asyncio.Transport,
        channels: tuple[int, int],
    ) -> None:
        super().__init__(loop, ask_key)
        self._transport = transport
        self._channels = channels

    def send_report(self, report: bytes) -> None:
        self._transport.write(_framed(self._channels[1], report))

    def _has_room(self) -> bool:
        return self._transport.get_write_buffer_size() <= MAX_WAITING_BYTES

    def _send(self, packets: list[bytes], joined: dict[int, bytes]) -> None:
        channel = self._channels[0]
        if channel not in joined:
            joined[channel] = b"".join(_framed(channel, packet) for packet in packets)
        self._transport.write(joined[channel])


class UdpViewer(Viewer):
    """Gets its packets by UDP, a few at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask_key: Callable[[], None],
        ports: UdpPorts,
        places: tuple[tuple[str, int], tuple[str, int]],
    ) -> None:
        """Args: …, where packets and where reports go."""
        super().__init__(loop, ask_key)
        self._ports = ports
        self._places = places
        self._waiting: deque[bytes] = deque()

    def send_report(self, report: bytes) -> None:
        with suppress(OSError):
            self._ports.reports.sendto(report, self._places[1])

    def _has_room(self) -> bool:
        return len(self._waiting) <= MAX_WAITING_PACKETS

    def _send(self, packets: list[bytes], joined: dict[int, bytes]) -> None:
        is_idle = not self._waiting
        self._waiting.extend(packets)
        if is_idle:
            self._go_on()

    def _go_on(self) -> None:
        for _ in range(min(BURST, len(self._waiting))):
            # what the network does not take is lost, as on the network
            with suppress(OSError):
                self._ports.packets.sendto(self._waiting[0], self._places[0])
            self._waiting.popleft()
        if self._waiting:
            self._loop.call_later(BURST_S, self._go_on)


def viewer_of(
    loop: asyncio.AbstractEventLoop,
    ask_key: Callable[[], None],
    connection: asyncio.Transport,
    ports: UdpPorts | None,
    wanted: Transport,
) -> Viewer:
    """What sends to a client the way that it asked for."""
    if wanted.is_tcp or ports is None:
        return TcpViewer(loop, ask_key, connection, (wanted.first, wanted.second))
    # to the host that asked, and to no other
    host = connection.get_extra_info("peername")[0]
    return UdpViewer(loop, ask_key, ports, ((host, wanted.first), (host, wanted.second)))


class Served:
    """One address: its packets, and who sees it."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, ask_key: Callable[[str], None]) -> None:
        self.path = path
        self.packer = RtpPacker()
        self.sound = SoundPacker()
        self.viewers: dict[int, set[Viewer]] = {PICTURES: set(), SOUND: set()}
        self._loop = loop
        self._tell_key = ask_key
        self._asked_s = float("-inf")
        self._wanted_until_s = float("-inf")
        self._described: asyncio.Event = asyncio.Event()
        self._ended: set[Callable[[], None]] = set()
        self.has_sound = False
        # time in ticks, and of day, of the newest picture: sound is placed next to it
        self._newest = 0, 0

    @property
    def tracks(self) -> tuple[int, ...]:
        """What it has."""
        return (PICTURES, SOUND) if self.has_sound else (PICTURES,)

    def ssrc(self, track: int) -> int:
        return self.sound.ssrc if track == SOUND else self.packer.ssrc

    def begin(self, codec: str, header: bytes) -> None:
        """Packets of another run follow, without sound unless ``begin_sound`` is called."""
        self.packer.begin(codec, header)
        self.has_sound = False

    def begin_sound(self, codec: str, header: bytes) -> None:
        """Sound of another run follows; see ``SoundPacker.begin``."""
        self.sound.begin(codec, header)
        self.has_sound = True

    def deliver(self, packet: Packet, wall_ns: int) -> None:
        """Send a picture to everybody.

        Raises:
            av.error.FFmpegError: FFmpeg makes nothing of it.
        """
        packets = self.packer.pack(packet, wall_ns)
        if not packets:
            return
        self._newest = packet.pts, wall_ns
        self._described.set()
        joined: dict[int, bytes] = {}
        for viewer in self.viewers[PICTURES]:
            viewer.send(packets, packet.is_key, self.packer.report, joined)

    def deliver_sound(self, data: bytes, pts: int) -> None:
        """Send sound to everybody who listens, once there is a picture. Args: …, its time in ticks of the pictures'."""
        picture_pts, picture_ns = self._newest
        if not (picture_ns and self.has_sound):
            return
        packets = self.sound.pack(data, pts, picture_ns + (pts - picture_pts) * NS_PER_S // TICKS_PER_S)
        joined: dict[int, bytes] = {}
        for viewer in self.viewers[SOUND]:
            viewer.send(packets, True, self.sound.report, joined)

    def report(self) -> None:
        """Tell everybody when the last picture and sound were taken."""
        if self._described.is_set():
            for track, viewers in self.viewers.items():
                for viewer in viewers:
                    viewer.send_report((self.sound if track == SOUND else self.packer).report())

    async def described(self, timeout_s: float) -> bool:
        """Wait until it can be described; whether it can."""
        self.want()
        try:
            await asyncio.wait_for(self._described.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True

    def want(self) -> None:
        """Somebody asks for it."""
        self._wanted_until_s = self._loop.time() + LINGER_S

    def is_wanted(self, now_s: float) -> bool:
        """Whether its packets are needed."""
        if any(self.viewers.values()):
            self._wanted_until_s = now_s + LINGER_S
        if now_s >= self._wanted_until_s:
            # the next one waits for what is true then
            self._described.clear()
        return now_s < self._wanted_until_s

    def ask_key(self) -> None:
        """A viewer needs a key picture; several that need one at once share it."""
        if self._loop.time() - self._asked_s >= 1.0:
            self._asked_s = self._loop.time()
            self._tell_key(self.path)

    def on_end(self, act: Callable[[], None]) -> None:
        """Call this when the stream is gone."""
        self._ended.add(act)

    def off_end(self, act: Callable[[], None]) -> None:
        """Do not call this any more."""
        self._ended.discard(act)

    def end(self) -> None:
        """The stream is gone."""
        for act in list(self._ended):
            act()


def _framed(channel: int, packet: bytes) -> bytes:
    return struct.pack("!BBH", 0x24, channel, len(packet)) + packet
