"""Coded pictures as RTP packets (RFC 3550), cut by FFmpeg (RFC 6184 and 7798), and the lines that describe them."""

from __future__ import annotations

import base64
import secrets
import struct
from typing import Any

import av

from edge.video.encoder import TICKS_PER_S, Packet, VideoForm, copied_stream, media_packet
from edge.video.parameter_sets import parameter_sets

# a packet with its headers fits into an Ethernet frame, also within a VPN
MAX_PACKET_BYTES = 1300
PAYLOAD_TYPE = 96
NS_PER_S = 1_000_000_000
# seconds from 1900, where NTP begins, to 1970
NTP_TO_UNIX_S = 2_208_988_800
NAMES = {"h264": "H264", "hevc": "H265"}
_HEAD = struct.Struct("!BBHII")
_REPORT = struct.Struct("!BBHIIIIII")


class RtpPacker:
    """One stream of RTP packets, whose numbers and times go on when its source is opened anew. Used by one thread.

    Attributes:
        sequence: number of the next packet.
        timestamp: of the last picture.
        sets: the parameter sets that were seen last, with start codes; empty before the first key picture.
    """

    def __init__(self) -> None:
        self.ssrc = secrets.randbits(32)
        self.sequence = secrets.randbits(15)
        self.timestamp = secrets.randbits(31)
        self.sets = b""
        self._codec = ""
        self._header = b""
        self._num_packets = 0
        self._num_bytes = 0
        self._wall_ns = 0
        self._written: list[bytes] = []
        self._container: Any = None
        self._stream: Any = None
        self._first_pts = 0
        self._shift = 0

    @property
    def codec(self) -> str:
        """``h264`` or ``hevc``; empty before ``begin``."""
        return self._codec

    def begin(self, codec: str, header: bytes) -> None:
        """Packets of another run follow.

        Args:
            codec: FFmpeg's name.
            header: parameter sets with start codes, for key pictures that have none.
        """
        self._codec, self._header, self._container = codec, header, None

    def pack(self, packet: Packet, wall_ns: int) -> list[bytes]:
        """The RTP packets of the next picture; none before the first key picture that says how to decode it.

        Args:
            packet: with start codes.
            wall_ns: when it was taken.

        Raises:
            av.error.FFmpegError: FFmpeg makes nothing of it.
        """
        data = packet.data
        if packet.is_key:
            found = parameter_sets(data, self._codec)
            data = data if found else self._header + data
            self.sets = found or parameter_sets(data, self._codec)
        if self._container is None and not (packet.is_key and self.sets and self._open(data, packet.pts, wall_ns)):
            return []
        self._written.clear()
        coded = Packet(data, packet.pts - self._first_pts, packet.is_key, packet.delay)
        self._container.mux(media_packet(coded, self._stream, coded.pts))
        self.timestamp = (self._shift + coded.pts) & 0xFFFFFFFF
        self._wall_ns = wall_ns
        found_packets = [self._numbered(one) for one in self._written]
        self._num_packets += len(found_packets)
        self._num_bytes += sum(len(one) - _HEAD.size for one in found_packets)
        return found_packets

    def report(self) -> bytes:
        """An RTCP sender report: when the last picture was taken."""
        seconds, rest_ns = divmod(self._wall_ns, NS_PER_S)
        fraction = (rest_ns << 32) // NS_PER_S
        counts = self._num_packets & 0xFFFFFFFF, self._num_bytes & 0xFFFFFFFF
        ntp_s = (seconds + NTP_TO_UNIX_S) & 0xFFFFFFFF
        return _REPORT.pack(0x80, 200, 6, self.ssrc, ntp_s, fraction, self.timestamp, *counts)

    def sdp(self, control: str) -> list[str]:
        """The lines of SDP (RFC 8866) that describe it."""
        lines = [f"m=video 0 RTP/AVP {PAYLOAD_TYPE}", f"a=rtpmap:{PAYLOAD_TYPE} {NAMES[self._codec]}/{TICKS_PER_S}"]
        units = [unit for unit in self.sets.split(b"\0\0\0\1") if unit]
        texts = [base64.b64encode(unit).decode() for unit in units]
        if self._codec == "h264":
            profile = units[0][1:4].hex() if units and len(units[0]) > 3 else "42e01f"
            facts = f"packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={','.join(texts)}"
        else:
            kinds = {32: "sprop-vps", 33: "sprop-sps", 34: "sprop-pps"}
            pairs = zip((kinds.get(unit[0] >> 1 & 63) for unit in units), texts, strict=True)
            facts = ";".join(f"{kind}={text}" for kind, text in pairs if kind)
        return [*lines, f"a=fmtp:{PAYLOAD_TYPE} {facts}", f"a=control:{control}"]

    def _open(self, key: bytes, first_pts: int, wall_ns: int) -> bool:
        """A muxer for a run that begins with this key picture; False where that cannot be read."""
        try:
            container = av.open(
                _Output(self._written),
                "w",
                format="rtp",
                options={"packetsize": str(MAX_PACKET_BYTES), "rtpflags": "skip_rtcp"},
            )
            self._stream = copied_stream(container, VideoForm(0, 0, key, self._codec))
            container.start_encoding()
        except (av.error.FFmpegError, OSError, IndexError):
            return False
        # the time of a run before went on meanwhile
        passed_ns = max(wall_ns - self._wall_ns, 0) if self._wall_ns else 0
        self._shift = self.timestamp + passed_ns * TICKS_PER_S // NS_PER_S
        self._container, self._first_pts = container, first_pts
        return True

    def _numbered(self, packet: bytes) -> bytes:
        """The packet with our numbers: FFmpeg begins anew at random ones with each run."""
        first, kind = packet[0], packet[1]
        number, self.sequence = self.sequence, (self.sequence + 1) & 0xFFFF
        return _HEAD.pack(first, kind, number, self.timestamp, self.ssrc) + packet[_HEAD.size :]


class _Output:
    """What FFmpeg writes each packet to."""

    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)
