"""The restream child: takes coded packets over a socket and pushes them to one receiver.

Run by ``edge.sinks.restream`` as ``python -m edge.sinks.restream_child FD PARENT``, the parent's process number.
PyAV holds Python's lock while it connects, so a receiver that accepts and says nothing would stop every thread; here
it stops this process, which is then killed.
The address comes over the socket, so that no password stands in the process list.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import av

from edge.video.encoder import TIME_BASE, Packet, VideoForm, copied_sound, copied_stream, media_packet
from edge.video.srt import SrtStream

PR_SET_PDEATHSIG = 1
LENGTH = struct.Struct("!I")
PACKET = struct.Struct("!qBI")
IS_KEY, IS_SOUND = 1, 2
# a sound that stays away holds up the pictures no longer than that, microseconds
INTERLEAVE = {"max_interleave_delta": "500000"}
AAC_RATE, AAC_SAMPLES = 48_000, 1024
UP = b'{"kind":"up"}'


def receive(channel: socket.socket, num_bytes: int) -> bytes:
    """So many bytes. Raises: EOFError: the other end has closed."""
    chunks = []
    while num_bytes:
        chunk = channel.recv(min(num_bytes, 1 << 20))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        num_bytes -= len(chunk)
    return b"".join(chunks)


@contextmanager
def opened(url: str, timeout_s: float) -> Iterator[str | SrtStream]:
    """What PyAV writes to: the address itself, or for SRT, which it cannot, a connection."""
    if not url.lower().startswith("srt://"):
        yield url
        return
    with closing(SrtStream(url, timeout_s=timeout_s, is_sender=True)) as stream:
        yield stream


class _Aac:
    """Makes AAC of another sound, for formats that take nothing else.

    Args:
        container: that it goes into.
        sound: the beginning of an MP4 file that describes the sound.
    """

    def __init__(self, container: Any, sound: bytes) -> None:
        with av.open(io.BytesIO(sound), format="mov") as sample:
            told = sample.streams.audio[0].codec_context
            self._decoder: Any = av.CodecContext.create(told.name, "r")
            self._decoder.extradata = told.extradata
            layout = told.layout.name
        self._stream = container.add_stream("aac", rate=AAC_RATE, layout=layout)
        self._resampler = av.AudioResampler("fltp", layout, AAC_RATE, frame_size=AAC_SAMPLES)

    def made_of(self, packet: Packet, pts: int) -> Iterator[Any]:
        """The packets that are whole now. Args: a piece of sound, its time in ticks."""
        coded = av.Packet(packet.data)
        coded.pts, coded.dts, coded.time_base = pts, pts, TIME_BASE
        try:
            frames = self._decoder.decode(coded)
        except (av.error.FFmpegError, OSError):
            # a damaged piece is a moment of silence
            return
        for frame in frames:
            for whole in self._resampler.resample(frame):
                yield from self._stream.encode(whole)


def push(channel: socket.socket) -> None:
    """Connect, say that it worked, and pass packets on until the parent closes."""
    order: dict[str, Any] = json.loads(receive(channel, LENGTH.unpack(receive(channel, LENGTH.size))[0]))
    sample, sound = receive(channel, order["sample_bytes"]), receive(channel, order["sound_bytes"])
    form = VideoForm(order["width"], order["height"], sample, sound=sound)
    options = order["options"] | (INTERLEAVE if sound else {})
    with (
        opened(order["url"], order["timeout_s"]) as target,
        av.open(target, "w", format=order["format"], options=options) as container,
    ):
        stream = copied_stream(container, form)
        is_recoded = bool(sound) and order["is_recoded"]
        aac = _Aac(container, sound) if is_recoded else None
        heard = copied_sound(container, sound) if sound and not is_recoded else None
        container.start_encoding()
        channel.sendall(UP + b"\n")
        first_pts = -1
        while True:
            try:
                pts, what, size = PACKET.unpack(receive(channel, PACKET.size))
                packet = Packet(receive(channel, size), pts, bool(what & IS_KEY))
            except EOFError:
                return
            first_pts = pts if first_pts < 0 else first_pts
            if what & IS_SOUND and pts < first_pts:
                # sound of before the first picture is nobody's
                continue
            if what & IS_SOUND and aac is not None:
                container.mux(aac.made_of(packet, pts - first_pts))
            elif (into := heard if what & IS_SOUND else stream) is not None:
                container.mux(media_packet(packet, into, pts - first_pts))


def main() -> None:
    """Serve the parent on the inherited socket."""
    # if the parent is killed, nobody is left to end a connection that hangs
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # it may have been killed before that; its own number may be 1, in a container
    if os.getppid() != int(sys.argv[2]):
        sys.exit(0)
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        push(channel)
    except EOFError:
        sys.exit(0)
    except (av.error.FFmpegError, OSError) as error:
        # the reason alone: the whole text names the address with its password
        reason = error.strerror or type(error).__name__
        try:
            channel.sendall(json.dumps({"kind": "error", "text": reason}).encode() + b"\n")
        except OSError:
            sys.exit(1)


if __name__ == "__main__":
    main()
