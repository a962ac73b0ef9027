"""Finds the parameter sets in front of a coded picture; NAL unit types as in ITU-T H.264 table 7-1, H.265 table 7-1."""

from __future__ import annotations

START = b"\0\0\1"
H264_SETS = (7, 8)
H264_PICTURES = range(1, 6)
HEVC_SETS = (32, 33, 34)
HEVC_PICTURES = range(32)


def parameter_sets(data: bytes, codec: str) -> bytes:
    """The parameter sets before the first picture of an access unit with start codes, each with a start code.

    Args:
        data: the access unit.
        codec: ``h264`` or ``hevc``.
    """
    found = []
    at = data.find(START)
    while 0 <= at < len(data) - len(START):
        begin = at + len(START)
        kind = data[begin] & 31 if codec == "h264" else data[begin] >> 1 & 63
        if kind in (H264_PICTURES if codec == "h264" else HEVC_PICTURES):
            break
        at = data.find(START, begin)
        if kind in (H264_SETS if codec == "h264" else HEVC_SETS):
            # zero bytes in front of the next start code belong to it
            found.append(data[begin : at if at >= 0 else len(data)].rstrip(b"\0"))
    return b"".join(b"\0" + START + unit for unit in found)
