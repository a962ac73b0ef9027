"""What the chaos cameras show: small street pictures, coded once, as JPEG or as MPEG transport stream.

Shape letters: H W picture pixels.
"""

from __future__ import annotations

import io
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2

from edge.scene.street import Street

if TYPE_CHECKING:
    from edge.types import UInt8

NUM_PICTURES = 40
# of a transport stream, before it starts again; and the time of its first picture
NUM_PIECES = 300
FIRST_S = 60.0
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


@lru_cache(maxsize=2)
def transport_stream(fps: float, jump_every: int, jump_s: float) -> tuple[bytes, ...]:
    """MPEG-2 video in a transport stream, in pieces of one picture each; its clock jumps to and fro.

    Args:
        fps: pictures per second by its clock.
        jump_every: pictures between two jumps.
        jump_s: seconds by which it jumps.
    """
    pieces: list[bytes] = []
    for begin in range(0, NUM_PIECES, jump_every):
        offset_s = FIRST_S + jump_s * (begin // jump_every % 2)
        pieces += _run_of_pieces(fps, range(begin, begin + jump_every), offset_s)
    return tuple(pieces)


def _run_of_pieces(fps: float, indices: range, offset_s: float) -> list[bytes]:
    """Pictures without a jump; a muxer of their own, as none writes times that fall."""
    import av

    out, pieces = io.BytesIO(), []
    with av.open(out, "w", "mpegts", options={"mpegts_flags": "resend_headers"}) as container:
        video = container.add_stream("mpeg2video", rate=round(fps))
        video.width, video.height, video.pix_fmt = *SIZE_PX, "yuv420p"
        video.codec_context.gop_size = 5
        for index in indices:
            frame = av.VideoFrame.from_ndarray(pictures()[index % NUM_PICTURES], format="bgr24")
            for packet in video.encode(frame):
                packet.pts = packet.dts = round((offset_s + index / fps) * TS_CLOCK_HZ)
                packet.time_base = Fraction(1, TS_CLOCK_HZ)
                container.mux(packet)
            pieces.append(out.getvalue())
            out.seek(0)
            out.truncate()
    # the encoder is one picture behind: the last one of a run is never sent, as when a camera starts again
    return pieces
