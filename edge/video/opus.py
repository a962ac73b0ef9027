"""Any sound as mono Opus: pieces of 20 ms, placed by the times of what they were made of."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import av

TICKS_PER_S = 90_000
OPUS_RATE = 48_000
# 20 ms, the usual length of Opus packets
OPUS_SAMPLES = 960
OPUS_BITS_PER_S = 48_000
# where the times and the number of samples have come apart by more, the times count
MAX_DRIFT_TICKS = TICKS_PER_S // 50


class OpusMaker:
    """Encodes decoded sound."""

    def __init__(self) -> None:
        self._resampler = av.AudioResampler("s16", "mono", OPUS_RATE, OPUS_SAMPLES)
        self._encoder = opus_encoder()
        self._first_ticks: int | None = None
        self._in_s = 0.0
        self._num_out = 0

    def encode(self, frames: Sequence[Any], ticks: int) -> Iterator[tuple[bytes, int]]:
        """The pieces that are whole now, each with its time.

        Args:
            frames: PyAV's, of any form; those of one packet.
            ticks: the packet's time in 1/90000 s.
        """
        first_ticks = ticks if self._first_ticks is None else self._first_ticks
        apart = ticks - first_ticks - round(self._in_s * TICKS_PER_S)
        # what waits for a whole piece goes with what comes
        first_ticks += apart if abs(apart) > MAX_DRIFT_TICKS else 0
        self._first_ticks = first_ticks
        for frame in frames:
            self._in_s += frame.samples / (frame.sample_rate or OPUS_RATE)
            frame.pts = None
            for piece in self._resampler.resample(frame):
                piece.pts = None
                for coded in self._encoder.encode(piece):
                    yield bytes(coded), first_ticks + self._num_out * TICKS_PER_S // OPUS_RATE
                    self._num_out += OPUS_SAMPLES


def opus_encoder() -> Any:
    """An encoder of mono Opus."""
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = OPUS_RATE, "mono", "s16"
    encoder.bit_rate = OPUS_BITS_PER_S
    encoder.options = {"application": "voip", "frame_duration": "20"}
    encoder.open()
    return encoder


def opus_beginning() -> bytes:
    """An MP4 file without sound that describes what ``opus_encoder`` makes."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream: Any = container.add_stream("libopus", rate=OPUS_RATE)
        stream.codec_context.layout, stream.codec_context.format = "mono", "s16"
        container.start_encoding()
        return file.getvalue()
