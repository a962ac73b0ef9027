"""What the chaos cameras show: small street pictures, coded once, as JPEG or as MPEG transport stream.

Shape letters: H W picture pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import cv2

from edge.scene.street import Street
from edge.types import UInt8

NUM_PICTURES = 40
SIZE_PX = (320, 180)
OTHER_SIZE_PX = (256, 144)
TS_CLOCK_HZ = 90_000


@lru_cache(maxsize=1)
def pictures() -> tuple[UInt8, ...]:
    """(H, W, 3) uint8 BGR pictures of a street with people."""
    street = Street(5, *SIZE_PX, 10.0, 6)
    return tuple(street.render(index)[0] for index in range(NUM_PICTURES))


@lru_cache(maxsize=4)
def jpegs(size: tuple[int, int] = SIZE_PX) -> tuple[bytes, ...]:
    """The pictures as JPEG files of this width and height."""
    return tuple(_jpeg(picture, size) for picture in pictures())


def _jpeg(picture: UInt8, size: tuple[int, int]) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.resize(picture, size), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return bytes(data)


def transport_stream(fps: float, jump_every: int, jump_s: float) -> Iterator[bytes]:
    """MPEG-2 video in a transport stream, piece by piece, one picture each.

    Args:
        fps: pictures per second by its clock.
        jump_every: pictures between two jumps of the clock, 0 for none.
        jump_s: seconds by which it jumps, forwards and backwards in turn.
    """
    import av

    out = io.BytesIO()
    with av.open(out, "w", "mpegts", options={"mpegts_flags": "resend_headers"}) as container:
        video = container.add_stream("mpeg2video", rate=round(fps))
        video.width, video.height, video.pix_fmt = *SIZE_PX, "yuv420p"
        video.codec_context.gop_size = 5
        offset_s, index = 60.0, 0
        while True:
            if jump_every and index and index % jump_every == 0:
                offset_s += jump_s if (index // jump_every) % 2 else -jump_s
            frame = av.VideoFrame.from_ndarray(pictures()[index % NUM_PICTURES], format="bgr24")
            for packet in video.encode(frame):
                # the container wants times that rise; the jump is written into the packet itself
                packet.pts = packet.dts = round((offset_s + index / fps) * TS_CLOCK_HZ)
                packet.time_base = Fraction(1, TS_CLOCK_HZ)
                container.mux(packet)
            yield out.getvalue()
            out.seek(0)
            out.truncate()
            index += 1
