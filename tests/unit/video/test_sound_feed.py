"""Sound for who listens: as Opus, at times that go on evenly."""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.video.opus import opus_beginning
from edge.video.packets import (
    EVERYTHING,
    NOTHING,
    PacketForm,
    PacketQueue,
    PacketTaker,
    PacketTap,
    SoundForm,
    SoundLevel,
    SourcePacket,
    Wanted,
)
from edge.video.sound_feed import MAX_APART_NS, OpusFeed, SteadyTimes

S = 10**9
RATE = 48_000


def aac(seconds: float) -> tuple[SoundForm, list[tuple[bytes, int]]]:
    """AAC of a tone as it comes from a camera: its form, and its packets with their times in ticks."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("aac", rate=RATE)
        stream.codec_context.layout, stream.codec_context.format = "mono", "fltp"  # type: ignore[attr-defined]
        container.start_encoding()
        header = file.getvalue()
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)
        packets = []
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            packets += [(bytes(one), round((one.pts or 0) * 90_000 / RATE)) for one in stream.encode(frame)]  # type: ignore[attr-defined]
    return SoundForm("aac", header), packets


def heard(form: SoundForm, packets: list[tuple[bytes, int]]) -> list[tuple[bytes, int, int]]:
    found: list[tuple[bytes, int, int]] = []
    feed = OpusFeed(lambda data, pts, time_ns: found.append((data, pts, time_ns)))
    feed.begin(PacketForm("h264", 0, 0, b"", form))
    for data, pts in packets:
        feed.take(SourcePacket(data, pts, pts, False, pts * S // 90_000 + 7 * S, 0, is_sound=True))
    return found


def test_aac_becomes_opus_of_the_same_length_and_times() -> None:
    form, packets = aac(2.0)
    pieces = heard(form, packets)
    assert abs(len(pieces) - 100) <= 3
    assert [after[1] - before[1] for before, after in itertools.pairwise(pieces)] == [1800] * (len(pieces) - 1)
    assert all(abs(time_ns - 7 * S - pts * S // 90_000) < 1_000_000 for _, pts, time_ns in pieces)
    decoder = av.CodecContext.create("libopus", "r")
    samples = np.concatenate([f.to_ndarray().ravel() for data, *_ in pieces for f in decoder.decode(av.Packet(data))])  # type: ignore[attr-defined]
    loud = samples[len(samples) // 2 :].astype(float) / 32768
    assert 0.25 < np.sqrt((loud**2).mean()) < 0.45


def test_opus_is_passed_on_as_it_comes() -> None:
    pieces = heard(SoundForm("opus", opus_beginning()), [(b"one", 0), (b"two", 1800)])
    assert pieces == [(b"one", 0, 7 * S), (b"two", 1800, 7 * S + S // 50)]


def test_damaged_aac_is_a_moment_of_silence() -> None:
    form, packets = aac(1.0)
    torn = [(b"\xff" * 40, at) if number == 10 else (data, at) for number, (data, at) in enumerate(packets)]
    assert len(heard(form, torn)) > 40


@given(st.lists(st.integers(-15_000_000, 15_000_000), min_size=2, max_size=60))
def test_times_go_on_evenly_while_both_clocks_keep_together(jitter_ns: list[int]) -> None:
    times = SteadyTimes(RATE, 120)
    placed = [times.place(n * 1800, 5 * S + n * S // 50 + late) for n, late in enumerate(jitter_ns)]
    assert {after - before for before, after in itertools.pairwise(placed)} == {960}


def test_times_begin_again_where_the_clocks_come_apart() -> None:
    times = SteadyTimes(RATE, 120)
    first = times.place(0, S)
    assert times.place(1800, S + S // 50 + 2 * MAX_APART_NS) - first == 960 + 2 * MAX_APART_NS * RATE // S


class Listener(PacketTaker):
    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.taken: list[SourcePacket] = []

    @property
    def wanted(self) -> Wanted:
        return self._wanted

    def begin(self, form: PacketForm) -> None:
        self.taken.clear()

    def take(self, packet: SourcePacket) -> None:
        self.taken.append(packet)


def test_a_tap_wants_what_its_listeners_want_and_gives_each_only_that() -> None:
    levels: list[SoundLevel] = []
    tap = PacketTap(None, levels.append)
    assert tap.wanted == NOTHING
    ears, eyes = Listener(Wanted.SOUND), Listener(Wanted.PICTURES)
    tap.listen(ears)
    assert tap.wanted == Wanted.SOUND
    tap.listen(eyes)
    assert tap.wanted == EVERYTHING == PacketTap(PacketQueue()).wanted
    picture = SourcePacket(b"p", 0, 0, True, 0, 0)
    sound = SourcePacket(b"s", 0, 0, False, 0, 0, is_sound=True)
    tap.take(picture)
    tap.take(sound)
    assert (ears.taken, eyes.taken) == ([sound], [picture])
    tap.leave(ears)
    assert tap.wanted == Wanted.PICTURES
    tap.hear(SoundLevel(-20.0, 5))
    assert levels == [SoundLevel(-20.0, 5)]


def test_opus_follows_times_that_are_set_right_later() -> None:
    """A camera says by its own clock when it took things only after its first sender report."""
    form, packets = aac(4.0)
    # 70 ms is what the first seconds are off
    late = [(data, pts + (0 if number < 60 else 6300)) for number, (data, pts) in enumerate(packets)]
    pieces = heard(form, late)
    assert abs(pieces[-1][1] - pieces[0][1] - (len(pieces) - 1) * 1800 - 6300) <= 1800
    steps = [after[1] - before[1] for before, after in itertools.pairwise(pieces)]
    assert sum(step != 1800 for step in steps) == 1


def test_sound_leaves_when_the_picture_that_was_taken_with_it_does() -> None:
    pytest.importorskip("aiortc")
    from edge.video.webrtc.sound import SoundChannel
    from edge.video.webrtc.track import SoundTrack

    tap, delay_s = PacketTap(), 0.15
    tap.begin(PacketForm("h264", 0, 0, b"", SoundForm("opus", b"")))

    async def played() -> list[tuple[int, float]]:
        channel = SoundChannel(tap, asyncio.get_running_loop(), lambda: round(delay_s * S))
        track, found = SoundTrack(), []
        channel.tracks.add(track)
        began_ns = time.monotonic_ns()
        for number in range(3):
            at = number * 1800
            tap.take(SourcePacket(b"piece", at, at, True, began_ns + number * 20_000_000, 0, is_sound=True))
        for _ in range(3):
            piece = await track.recv()
            found.append((piece.pts, (time.monotonic_ns() - began_ns) / S))
        channel.close()
        assert tap.wanted == NOTHING
        return found

    pieces = asyncio.run(played())
    assert [after[0] - before[0] for before, after in itertools.pairwise(pieces)] == [960, 960]
    for number, (_, passed_s) in enumerate(pieces):
        assert delay_s + number * 0.02 - 0.005 <= passed_s
