"""A camera's sound on its way to the recording: AAC and Opus as they come, everything else as Opus.

Decoding and encoding happen where the camera is read, in the capture child.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import av

from edge.video.packets import SoundForm

TICKS_PER_S = 90_000
OPUS_RATE = 48_000
# 20 ms, the usual length of Opus packets
OPUS_SAMPLES = 960
OPUS_BITS_PER_S = 48_000
# where the camera's times and the number of samples have come apart by more, they start again
MAX_DRIFT_TICKS = TICKS_PER_S // 10
# what MP4 and browsers take
PASSED = ("aac", "opus")


class SoundCopy:
    """Turns the packets of one sound into those that are kept.

    Attributes:
        form: what they are; None where this sound cannot be kept.
    """

    def __init__(self, stream: Any) -> None:
        """Args: the sound of a container."""
        context = stream.codec_context
        # without a header it stands in each packet (ADTS), where MP4 has no place for it
        is_passed = context.name in PASSED and bool(context.extradata)
        self._opus = None if is_passed else _Opus(stream)
        self.form: SoundForm | None = None
        try:
            template = stream if self._opus is None else None
            header = beginning_of_mp4(template) if template is not None else opus_beginning()
            self.form = SoundForm(context.name if is_passed else "opus", header)
        except (av.error.FFmpegError, OSError, ValueError):
            self.form = None

    def packets(self, packet: Any, ticks: int) -> Iterator[tuple[bytes, int]]:
        """The data and time of what is kept of a packet. Args: the packet, its time in ticks of 1/90000 s."""
        if self._opus is None:
            yield bytes(packet), ticks
        else:
            yield from self._opus.encode(packet, ticks)


class _Opus:
    """Decodes any sound and encodes it as mono Opus."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._resampler = av.AudioResampler("s16", "mono", OPUS_RATE, OPUS_SAMPLES)
        self._encoder = opus_encoder()
        self._first_ticks: int | None = None
        self._num_in = 0
        self._num_out = 0

    def encode(self, packet: Any, ticks: int) -> Iterator[tuple[bytes, int]]:
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, OSError):
            # a damaged packet is a moment of silence
            return
        rate = self._stream.codec_context.sample_rate or OPUS_RATE
        expected = None if self._first_ticks is None else self._first_ticks + self._num_in * TICKS_PER_S // rate
        if expected is None or abs(expected - ticks) > MAX_DRIFT_TICKS:
            self._first_ticks, self._num_in, self._num_out = ticks, 0, 0
        self._num_in += sum(frame.samples for frame in frames)
        for frame in frames:
            frame.pts = None
            for piece in self._resampler.resample(frame):
                piece.pts = None
                for coded in self._encoder.encode(piece):
                    assert self._first_ticks is not None
                    yield bytes(coded), self._first_ticks + self._num_out * TICKS_PER_S // OPUS_RATE
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


def beginning_of_mp4(stream: Any) -> bytes:
    """An MP4 file without pictures or sound that describes a stream."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        container.add_stream_from_template(stream)
        container.start_encoding()
        return file.getvalue()
