"""Sound in a recording: next to its pictures, and never at their cost."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import record_kills as scene

from edge.config.recording import RecordSettings
from edge.sinks.record import RecordSink
from edge.sources.sound import OPUS_RATE, OPUS_SAMPLES, opus_beginning, opus_encoder
from edge.video.encoder import TICKS_PER_S, VideoEncoder, find_encoder
from edge.video.packets import PacketForm, PacketQueue, SoundForm, SourcePacket

FPS, SECONDS = scene.FPS, 4
OPUS = SoundForm("opus", opus_beginning())


def record(folder: Path, sound: SoundForm | None, *, sent: bool = True) -> Path:
    """Four seconds of pictures, and of a tone where it is sent."""
    packets = PacketQueue(is_lossless=True)
    settings = RecordSettings(folder=folder, content="source", reserve_mb=0)
    sink = RecordSink(settings, "door", packets=packets, late_s=float("inf"))
    video = VideoEncoder(find_encoder(), scene.WIDTH, scene.HEIGHT, fps=FPS, key_every_s=1)
    tone = opus_encoder()
    samples = (8000 * np.sin(np.arange(OPUS_SAMPLES) * 0.1)).astype(np.int16)[None]
    spoken = 0
    for number in range(SECONDS * FPS):
        for packet in video.encode(scene.numbered(number), number * TICKS_PER_S // FPS):
            if number == 0:
                sample = video.form_with(packet).sample
                packets.begin(PacketForm("h264", scene.WIDTH, scene.HEIGHT, sample, sound))
            time_ns = number * 10**9 // FPS
            packets.take(SourcePacket(packet.data, packet.pts, packet.pts, packet.is_key, time_ns, time_ns))
        while sent and spoken * FPS < (number + 1) * OPUS_RATE:
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.sample_rate = OPUS_RATE
            for coded in tone.encode(frame):
                at = spoken * TICKS_PER_S // OPUS_RATE
                packets.take(SourcePacket(bytes(coded), at, at, False, time_ns, time_ns, is_sound=True))
            spoken += OPUS_SAMPLES
    sink.close()
    (entry,) = sink.entries()
    assert entry.num_frames == SECONDS * FPS
    return folder / "door" / entry.file


def lengths(path: Path) -> dict[str, float]:
    """Seconds of what decodes, by kind."""
    found: dict[str, float] = {}
    with av.open(str(path)) as file:
        for stream in file.streams:
            file.seek(0)
            frames = list(file.decode(stream))
            found[stream.type] = float(frames[-1].time - frames[0].time) if frames else 0.0
    return found


def test_sound_is_as_long_as_its_pictures(tmp_path: Path) -> None:
    found = lengths(record(tmp_path, OPUS))
    assert abs(found["audio"] - found["video"]) < 0.1


def test_a_sound_that_never_comes_costs_no_picture(tmp_path: Path) -> None:
    assert lengths(record(tmp_path, OPUS, sent=False))["video"] > SECONDS - 0.1


def test_a_sound_that_cannot_be_described_is_left_out(tmp_path: Path) -> None:
    found = lengths(record(tmp_path, SoundForm("opus", b"no file at all")))
    assert list(found) == ["video"]
    assert found["video"] > SECONDS - 0.1


def test_nothing_is_heard_where_nothing_was_announced(tmp_path: Path) -> None:
    assert list(lengths(record(tmp_path, None))) == ["video"]
