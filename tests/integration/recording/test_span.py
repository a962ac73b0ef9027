"""Any span of the recordings is one file of their packets; strips and time lapses are made of key pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from integration.recording.test_sound_recorder import OPUS, lengths, record

from edge.config.recording import RecordSettings
from edge.errors import SinkError
from edge.metrics.clock import WallClock
from edge.recording import strip as strips
from edge.recording.index import Recorded, described
from edge.recording.seek import layout_of
from edge.recording.span import joined, lapse, planned
from edge.recording.strip import Strips, strip_of
from edge.sinks.record import RecordSink
from edge.types import Detections, Frame, Result
from edge.video import encoder

FPS = 10
BITS = 10
START_NS = 1_790_000_000 * 10**9
S = 10**9


def painted(number: int, size: tuple[int, int]) -> np.ndarray:
    """The number as a row of black and white squares."""
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    for bit in range(BITS):
        image[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 255 if number >> bit & 1 else 0
    return image


def number_in(image: np.ndarray) -> int:
    height, width = image.shape[:2]
    row = image[height // 4, :, 0]
    return sum(1 << bit for bit in range(BITS) if row[(2 * bit + 1) * width // (2 * BITS)] > 127)


def recorded(
    folder: Path, numbers: range, size: tuple[int, int] = (320, 180), segment_s: float = 4.0
) -> tuple[Path, tuple[Recorded, ...]]:
    """Pictures of these numbers, ten a second, that of number n at ``START_NS`` + n / 10 s."""
    settings = RecordSettings(folder=folder, content="plain", segment_s=segment_s, reserve_mb=0)
    sink = RecordSink(settings, "door", fps=FPS, is_lossless=True, clock=WallClock(START_NS))
    for number in numbers:
        image = painted(number, size)
        frame = Frame("door", 0, number, number * S // FPS, None, image)
        sink.write(Result(frame, Detections.empty()), image.copy)
    sink.close()
    return sink.folder, sink.entries()


def pictures(data: bytes) -> Iterator[tuple[float, int]]:
    """Time in the file and number of each picture."""
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            yield frame.time, number_in(frame.to_ndarray(format="bgr24"))


def at(seconds: float) -> int:
    return START_NS + round(seconds * S)


@pytest.fixture(scope="module")
def twelve_seconds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Recorded, ...]]:
    return recorded(tmp_path_factory.mktemp("door"), range(120))


def test_what_is_sought_begins_with_a_key_picture_though_it_is_written_more_often(
    twelve_seconds: tuple[Path, tuple[Recorded, ...]],
) -> None:
    folder, entries = twelve_seconds
    for entry in entries:
        layout = layout_of(folder / entry.file)
        written = (folder / entry.file).read_bytes().count(b"moof")
        keys = 0
        with av.open(str(folder / entry.file)) as container:
            keys = sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
        assert len(layout.fragments) == keys < written
        for number in range(keys):
            with layout.opened_at(number) as container:
                assert next(container.demux(video=0)).is_keyframe


def test_a_span_over_three_files_is_one_file_without_a_gap(twelve_seconds: tuple[Path, tuple[Recorded, ...]]) -> None:
    folder, entries = twelve_seconds
    assert len(entries) == 3
    plan = planned(folder, entries, at(2.2), at(10))
    shown = list(pictures(b"".join(joined(plan))))
    numbers = [number for _, number in shown]
    # from the key picture that the first one needs
    assert 0 <= 22 - numbers[0] <= 1.5 * FPS
    assert numbers == list(range(numbers[0], 100))
    times = np.diff([time for time, _ in shown])
    assert times == pytest.approx(np.full(len(times), 0.1), abs=0.002)
    assert plan.gaps == ()


def test_nothing_is_encoded(twelve_seconds: tuple[Path, tuple[Recorded, ...]]) -> None:
    folder, entries = twelve_seconds
    known = set()
    for entry in entries:
        with av.open(str(folder / entry.file)) as container:
            known |= {bytes(packet) for packet in container.demux(video=0) if packet.size}
    with av.open(io.BytesIO(b"".join(joined(planned(folder, entries, at(0), at(12)))))) as container:
        exported = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert len(exported) == 120
    assert set(exported) <= known


def test_gaps_are_said_and_what_comes_after_them_follows_at_once(
    twelve_seconds: tuple[Path, tuple[Recorded, ...]],
) -> None:
    folder, entries = twelve_seconds
    first, middle, last = entries
    plan = planned(folder, (first, last), at(-5), at(20))
    assert [(begin, end) for begin, end in plan.gaps] == [
        (at(-5), first.start_ns),
        (first.end_ns, last.start_ns),
        (last.end_ns, at(20)),
    ]
    data = b"".join(joined(plan))
    times = [time for time, _ in pictures(data)]
    assert len(times) == first.num_frames + last.num_frames == 120 - middle.num_frames
    assert max(np.diff(times)) < 0.2
    with av.open(io.BytesIO(data)) as container:
        assert container.metadata["comment"].count(" to ") == 4


def test_where_clips_overlap_no_picture_comes_twice(tmp_path: Path) -> None:
    folder, (one,) = recorded(tmp_path / "one", range(60), segment_s=60)
    other_folder, (two,) = recorded(tmp_path / "two", range(40, 100), segment_s=60)
    (other_folder / two.file).rename(folder / two.file)
    plan = planned(folder, (two, one), at(0), at(10))
    assert [number for _, number in pictures(b"".join(joined(plan)))] == list(range(100))
    inner = replace(two, end_ns=at(5))
    assert planned(folder, (one, inner), at(0), at(10)).recorded_s == pytest.approx(5, abs=0.2)


def test_files_with_other_parameter_sets_are_joined_and_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, (one,) = recorded(tmp_path / "one", range(30), segment_s=60)
    other_options = {"preset": "ultrafast", "forced-idr": "1", "profile": "baseline", "tune": "zerolatency"}
    monkeypatch.setitem(encoder.OPTIONS, "libx264", other_options)
    entries = [one]
    for name, numbers in (("two", range(30, 60)), ("three", range(60, 90))):
        if name == "three":
            monkeypatch.undo()
        other, (entry,) = recorded(tmp_path / name, numbers, segment_s=60)
        (other / entry.file).rename(folder / entry.file)
        entries.append(entry)
    heads = {layout_of(folder / entry.file).head for entry in entries}
    assert len(heads) > 1
    plan = planned(folder, entries, at(0), at(9))
    assert [number for _, number in pictures(b"".join(joined(plan)))] == list(range(90))


def test_sound_goes_on_over_the_files_beside_its_pictures(tmp_path: Path) -> None:
    first, second = (record(tmp_path / name, OPUS) for name in ("one", "two"))
    entries = []
    for number, path in enumerate((first, second)):
        entry = described(path)
        assert entry is not None
        entries.append(replace(entry, start_ns=at(4 * number), end_ns=at(4 * number + 3.96)))
    (first.parent / "later.mp4").write_bytes(second.read_bytes())
    entries[1] = replace(entries[1], file="later.mp4")
    data = b"".join(joined(planned(first.parent, entries, at(1.5), at(7))))
    path = tmp_path / "out.mp4"
    path.write_bytes(data)
    found = lengths(path)
    # a key picture a second
    assert 5.4 <= found["video"] <= 6.6
    assert abs(found["audio"] - found["video"]) < 0.25


def test_pictures_of_another_size_are_refused_in_words(tmp_path: Path) -> None:
    folder, (one,) = recorded(tmp_path / "one", range(20), segment_s=60)
    _, (two,) = recorded(tmp_path / "two", range(20, 40), (160, 90), segment_s=60)
    with pytest.raises(SinkError, match=r"size of the pictures changes at 2026-.*Z; export what is before it"):
        planned(folder, (one, two), at(0), at(4))


def test_a_span_of_which_nothing_is_recorded_is_refused(twelve_seconds: tuple[Path, tuple[Recorded, ...]]) -> None:
    folder, entries = twelve_seconds
    with pytest.raises(SinkError, match="nothing is recorded of this span"):
        planned(folder, entries, at(100), at(200))


def test_a_file_that_made_room_meanwhile_is_left_out(tmp_path: Path) -> None:
    folder, entries = recorded(tmp_path, range(120))
    plan = planned(folder, entries, at(0), at(12))
    (folder / entries[1].file).unlink()
    numbers = [number for _, number in pictures(b"".join(joined(plan)))]
    assert len(numbers) == 120 - entries[1].num_frames


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 0.05), (4.45, 4.6), (11.85, 30.0), (3.0, 3.1)])
def test_short_spans_and_those_at_the_edges_hold_their_pictures(
    twelve_seconds: tuple[Path, tuple[Recorded, ...]], start_s: float, end_s: float
) -> None:
    folder, entries = twelve_seconds
    numbers = [number for _, number in pictures(b"".join(joined(planned(folder, entries, at(start_s), at(end_s)))))]
    wanted = [number for number in range(120) if start_s <= number / FPS < end_s]
    assert set(wanted) <= set(numbers)
    assert numbers == sorted(set(numbers))


def test_an_export_holds_little_of_a_long_file_in_memory(tmp_path: Path) -> None:
    folder, (entry,) = recorded(tmp_path, range(600), segment_s=3600)
    pieces = list(joined(planned(folder, (entry,), at(0), at(60))))
    assert len(pieces) > 1 or entry.num_bytes < 300_000
    assert max(len(piece) for piece in pieces) < 1_000_000


def test_a_time_lapse_has_key_pictures_in_their_order(twelve_seconds: tuple[Path, tuple[Recorded, ...]]) -> None:
    folder, entries = twelve_seconds
    keys = sum(len(layout_of(folder / entry.file).fragments) for entry in entries)
    shown = list(pictures(b"".join(lapse(planned(folder, entries, at(0), at(12)), 60))))
    numbers = [number for _, number in shown]
    assert len(numbers) == keys >= 8
    assert numbers == sorted(numbers)
    assert np.diff([time for time, _ in shown]) == pytest.approx(np.full(keys - 1, 0.04), abs=0.001)
    few = list(pictures(b"".join(lapse(planned(folder, entries, at(0), at(12)), 4 / 25))))
    assert len(few) == 4
    assert few[0][1] < 15
    assert few[-1][1] > 80


def test_a_strip_shows_the_key_pictures_at_their_times(twelve_seconds: tuple[Path, tuple[Recorded, ...]]) -> None:
    folder, entries = twelve_seconds
    path = folder / entries[1].file
    strip = strip_of(path)
    image = cv2.imdecode(np.frombuffer(strip.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    width, height = strip.size
    assert (width, height) == (160, 90)
    assert len(strip.times_s) == len(layout_of(path).fragments)
    first = round((entries[1].start_ns - START_NS) / S * FPS)
    for number, time_s in enumerate(strip.times_s):
        tile = image[:height, number * width : (number + 1) * width]
        assert number_in(tile) == first + round(time_s * FPS)
    assert len(strip_of(path, 2).times_s) == 2


def test_strips_are_kept_within_their_bytes(
    twelve_seconds: tuple[Path, tuple[Recorded, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, entries = twelve_seconds
    paths = [folder / entry.file for entry in entries]
    one = len(strip_of(paths[0]).jpeg)
    kept = Strips(max_bytes=round(one * 2.5))
    for path in paths:
        kept.of(path)
    assert 0 < kept.num_bytes <= one * 2.5
    monkeypatch.setattr(strips, "strip_of", lambda path: pytest.fail("it is kept"))
    assert kept.of(paths[2]).times_s


def test_a_file_that_is_no_video_has_no_strip(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"\0\0\0\x10ftyp" + b"\xff" * 5000)
    with pytest.raises(SinkError, match="strip"):
        strip_of(path)
    with pytest.raises(SinkError, match="strip"):
        strip_of(tmp_path / "gone.mp4")
