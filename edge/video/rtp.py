"""Coded pictures and sound as RTP packets (RFC 3550), and the lines that describe them.

Pictures are cut by FFmpeg (RFC 6184 and 7798). Sound is put into packets here: FFmpeg joins several moments of it into
one, which are then late.
"""

from __future__ import annotations

import base64
import io
import secrets
import struct
from typing import Any

import av

from edge.video.encoder import TICKS_PER_S, Packet, VideoForm, copied_stream, media_packet
from edge.video.parameter_sets import parameter_sets

# a packet with its headers fits into an Ethernet frame, also within a VPN
MAX_PACKET_BYTES = 1300
PAYLOAD_TYPE, SOUND_PAYLOAD_TYPE = 96, 97
NS_PER_S = 1_000_000_000
# seconds from 1900, where NTP begins, to 1970
NTP_TO_UNIX_S = 2_208_988_800
NAMES = {"h264": "H264", "hevc": "H265"}
_HEAD = struct.Struct("!BBHII")
_REPORT = struct.Struct("!BBHIIIIII")
# RFC 3640, 3.3.6: one piece of AAC in a packet, its size in 13 bits
_AAC_HEAD = struct.Struct("!HH")
MARKER = 0x80


class _Packets:
    """Numbers and times of one stream of RTP packets, which go on when its source is opened again. Used by one thread.

    Attributes:
        sequence: number of the next packet.
        timestamp: of the last picture or sound.
    """

    def __init__(self) -> None:
        self.ssrc = secrets.randbits(32)
        self.sequence = secrets.randbits(15)
        self.timestamp = secrets.randbits(31)
        self._num_packets = 0
        self._num_bytes = 0
        self._wall_ns = 0

    def report(self) -> bytes:
        """An RTCP sender report: when the last picture or sound was taken."""
        seconds, rest_ns = divmod(self._wall_ns, NS_PER_S)
        fraction = (rest_ns << 32) // NS_PER_S
        counts = self._num_packets & 0xFFFFFFFF, self._num_bytes & 0xFFFFFFFF
        ntp_s = (seconds + NTP_TO_UNIX_S) & 0xFFFFFFFF
        return _REPORT.pack(0x80, 200, 6, self.ssrc, ntp_s, fraction, self.timestamp, *counts)

    def _numbered(self, kind: int, payload: bytes) -> bytes:
        """The next packet. Args: its marker bit and payload type, what it carries."""
        number, self.sequence = self.sequence, (self.sequence + 1) & 0xFFFF
        self._num_packets += 1
        self._num_bytes += len(payload)
        return _HEAD.pack(0x80, kind, number, self.timestamp, self.ssrc) + payload

    def _passed(self, wall_ns: int, rate: int) -> int:
        """Ticks since the last packet of the run before, which ended at ``timestamp``."""
        return (max(wall_ns - self._wall_ns, 0) if self._wall_ns else 0) * rate // NS_PER_S


class RtpPacker(_Packets):
    """The pictures of a stream.

    Attributes:
        sets: the parameter sets that were seen last, with start codes; empty before the first key picture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sets = b""
        self._codec = ""
        self._header = b""
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
        # FFmpeg starts again at random numbers with each run
        return [self._numbered(one[1], one[_HEAD.size :]) for one in self._written]

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
        self._shift = self.timestamp + self._passed(wall_ns, TICKS_PER_S)
        self._container, self._first_pts = container, first_pts
        return True


class SoundPacker(_Packets):
    """The sound of a stream, AAC (RFC 3640) or Opus (RFC 7587)."""

    def __init__(self) -> None:
        super().__init__()
        self._is_aac = False
        self._rate = 0
        self._channels = 1
        self._config = b""
        self._first: tuple[int, int] | None = None

    def begin(self, codec: str, header: bytes) -> None:
        """Sound of another run follows.

        Args:
            codec: ``aac`` or ``opus``.
            header: the beginning of an MP4 file that describes it.

        Raises:
            av.error.FFmpegError: it describes nothing.
        """
        with av.open(io.BytesIO(header), format="mov") as described:
            context = described.streams.audio[0].codec_context
            self._is_aac = codec == "aac"
            # the clock of Opus is 48 kHz and its channels are two, whatever it carries
            self._rate = context.sample_rate if self._is_aac else 48_000
            self._channels = context.channels if self._is_aac else 2
            self._config = bytes(context.extradata or b"")
        self._first = None

    def pack(self, data: bytes, pts: int, wall_ns: int) -> list[bytes]:
        """The RTP packets of a piece of sound. Args: its data, time in ticks of 1/90000 s, when it was taken."""
        if self._first is None:
            self._first = pts, self.timestamp + self._passed(wall_ns, self._rate)
        first_pts, shift = self._first
        self.timestamp = (shift + (pts - first_pts) * self._rate // TICKS_PER_S) & 0xFFFFFFFF
        self._wall_ns = wall_ns
        if not self._is_aac:
            return [self._numbered(SOUND_PAYLOAD_TYPE, data)]
        room = MAX_PACKET_BYTES - _HEAD.size - _AAC_HEAD.size
        head = _AAC_HEAD.pack(16, (len(data) & 0x1FFF) << 3)
        starts = range(0, max(len(data), 1), room)
        ends = [MARKER if start + room >= len(data) else 0 for start in starts]
        pieces = zip(starts, ends, strict=True)
        return [self._numbered(SOUND_PAYLOAD_TYPE | end, head + data[at : at + room]) for at, end in pieces]

    def sdp(self, control: str) -> list[str]:
        """The lines of SDP that describe it."""
        kind = SOUND_PAYLOAD_TYPE
        name = "MPEG4-GENERIC" if self._is_aac else "opus"
        aac = (
            "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;"
            f"config={self._config.hex()}"
        )
        facts = aac if self._is_aac else "sprop-stereo=0"
        rtpmap = f"a=rtpmap:{kind} {name}/{self._rate}/{self._channels}"
        return [f"m=audio 0 RTP/AVP {kind}", rtpmap, f"a=fmtp:{kind} {facts}", f"a=control:{control}"]


class _Output:
    """What FFmpeg writes each packet to."""

    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)
