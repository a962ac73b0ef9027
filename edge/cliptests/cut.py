"""A part of a film as a film of its own, from the key picture before it on: packets are copied, nothing is encoded."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import av

from edge.errors import DataError


def cut(source: Path, target: Path, start_s: float, end_s: float) -> float:
    """Copy the pictures of an MP4 file from one time to another, without sound.

    Args:
        source: the film. target: the new file.
        start_s, end_s: seconds since the film's first picture.

    Returns:
        When the new film begins, in seconds of the old one: up to a key picture's distance before ``start_s``.

    Raises:
        DataError: the film cannot be read, or shows nothing then.
    """
    first: float | None = None
    try:
        with closing(av.open(str(source), format="mp4")) as film, closing(av.open(str(target), "w")) as new:
            stream = film.streams.video[0]
            assert stream.time_base is not None
            copied = new.add_stream_from_template(stream)
            begin, base = stream.start_time or 0, stream.time_base
            with suppress(av.error.FFmpegError):
                film.seek(begin + int(start_s / base), stream=stream)
            offset = 0
            for packet in film.demux(stream):
                if packet.pts is None or packet.dts is None:
                    continue
                if first is None:
                    first, offset = float((packet.pts - begin) * base), packet.pts
                if (packet.pts - begin) * base > end_s:
                    break
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copied
                new.mux(packet)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise DataError(f"{source}: cannot be read ({error})") from None
    if first is None or first > end_s:
        raise DataError(f"{source}: shows nothing of that time")
    return first
