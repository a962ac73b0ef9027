"""A camera's sound on its way to who wants it: AAC and Opus as they come, everything else as Opus; and how loud it is.

Decoding and encoding happen where the camera is read, in the capture child, and only what is wanted.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np

from edge.video.opus import OpusMaker, opus_beginning
from edge.video.packets import SoundForm

# what MP4 and browsers take
PASSED = ("aac", "opus")
# of silence: a sixteen-bit sample has nothing below -96
LEAST_DBFS = -120.0


class SoundCopy:
    """Turns the packets of one sound into those that are kept.

    Args:
        stream: the sound of a container.
        level_s: how loud it is is measured over so long; 0: it is not measured.

    Attributes:
        form: what they are; None where this sound cannot be kept.
    """

    def __init__(self, stream: Any, level_s: float = 0.0) -> None:
        context = stream.codec_context
        # without a header it stands in each packet (ADTS), where MP4 has no place for it
        is_passed = context.name in PASSED and bool(context.extradata)
        self._opus = None if is_passed else OpusMaker()
        self._meter = LevelMeter(level_s) if level_s else None
        self.form: SoundForm | None = None
        try:
            header = beginning_of_mp4(stream) if is_passed else opus_beginning()
            self.form = SoundForm(context.name if is_passed else "opus", header)
        except (av.error.FFmpegError, OSError, ValueError):
            self.form = None

    def take(self, packet: Any, ticks: int, *, is_wanted: bool) -> tuple[list[tuple[bytes, int]], list[float]]:
        """What a packet gives.

        Args:
            packet: of the container.
            ticks: its time in 1/90000 s.
            is_wanted: whether anybody takes the sound itself.

        Returns:
            The data and time of what is kept, and how loud the sound was that has come whole, in dBFS.
        """
        is_coded = is_wanted and self.form is not None and self._opus is not None
        frames = _decoded(packet) if is_coded or self._meter is not None else ()
        levels = [] if self._meter is None else list(self._meter.take(frames))
        if not is_wanted or self.form is None:
            return [], levels
        kept = [(bytes(packet), ticks)] if self._opus is None else list(self._opus.encode(frames, ticks))
        return kept, levels


class LevelMeter:
    """How loud decoded sound is, once in ``level_s`` seconds of it."""

    def __init__(self, level_s: float) -> None:
        self._level_s = level_s
        self._resampler = av.AudioResampler("flt", "mono")
        self._energy = 0.0
        self._num = 0

    def take(self, frames: Sequence[Any]) -> Iterator[float]:
        """The levels that are known now, dBFS."""
        for frame in frames:
            for piece in self._resampler.resample(frame):
                samples = piece.to_ndarray()[0].astype(np.float64)
                self._energy += float(np.dot(samples, samples))
                self._num += len(samples)
                if self._num >= self._level_s * piece.sample_rate:
                    yield dbfs_of(self._energy / self._num)
                    self._energy, self._num = 0.0, 0


def dbfs_of(mean_square: float) -> float:
    """Decibels against full scale of a mean square of samples in [-1, 1]."""
    return max(10 * math.log10(mean_square), LEAST_DBFS) if mean_square > 0 else LEAST_DBFS


def _decoded(packet: Any) -> Sequence[Any]:
    try:
        frames: Sequence[Any] = packet.decode()
    except (av.error.FFmpegError, OSError):
        # a damaged packet is a moment of silence
        return ()
    return frames


def beginning_of_mp4(stream: Any) -> bytes:
    """An MP4 file without pictures or sound that describes a stream."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        container.add_stream_from_template(stream)
        container.start_encoding()
        return file.getvalue()
