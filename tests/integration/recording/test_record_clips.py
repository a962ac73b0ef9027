"""A finished clip is never written over, and the link of an event names the file that shows it."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import record_kills as scene
from waiting import wait_until

from edge.config.recording import RecordSettings
from edge.errors import SinkError
from edge.metrics.clock import WallClock
from edge.recording.clips import ClipNames
from edge.recording.cutter import Ended
from edge.recording.disk import Disk
from edge.recording.fragments import FragmentFile
from edge.recording.recording import RecordingFolder
from edge.recording.retention import Keep
from edge.sinks.record import RecordSink
from edge.types import Detections, Event, Frame, Result
from edge.video.encoder import VideoEncoder, VideoForm, find_encoder
from edge.video.packets import PacketForm, PacketQueue, SourcePacket

FPS = scene.FPS
CLOCK = WallClock(1_795_000_000_000_000_000, time.monotonic_ns)


def settings(folder: Path, **more: Any) -> RecordSettings:
    return RecordSettings.model_validate({"folder": folder, "mode": "events", "reserve_mb": 0, **more})


def result(number: int, epoch: int, *, has_event: bool) -> Result:
    events = (Event("tick", "door", number, 1),) if has_event else ()
    frame = Frame("door", epoch, number, number * 10**9 // FPS, None, scene.numbered(number))
    return Result(frame, Detections.empty(), events=events)


def clips(folder: Path) -> dict[str, list[int]]:
    """Path → what the file shows."""
    return {str(path): scene.numbers_in(path) for path in sorted((folder / "door").glob("*.mp4"))}


class Camera:
    """Gives its packets and results to a sink in fast time, number by number."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self._packets = PacketQueue(is_lossless=True)
        chosen = settings(folder, content="source", **more)
        self.sink = RecordSink(chosen, "door", packets=self._packets, late_s=1.0, clock=CLOCK)
        self.links: dict[int, str | None] = {}

    def run(self, numbers: range, events: tuple[int, ...], epoch: int) -> None:
        encoder = VideoEncoder(find_encoder(), scene.WIDTH, scene.HEIGHT, fps=FPS, key_every_s=1)
        for number in numbers:
            shown = result(number, epoch, has_event=number in events)
            for packet in encoder.encode(shown.frame.image, (number - numbers[0]) * 90_000 // FPS):
                if number == numbers[0]:
                    sample = encoder.form_with(packet).sample
                    self._packets.begin(PacketForm("h264", scene.WIDTH, scene.HEIGHT, sample))
                time_ns = shown.frame.time_ns
                self._packets.take(SourcePacket(packet.data, packet.pts, packet.pts, packet.is_key, time_ns, time_ns))
            self.sink.write(shown, lambda image=shown.frame.image: image)  # type: ignore[misc]
            if number in events:
                self.links[number] = self.sink.clip_of(shown)


def test_a_clip_outlives_the_event_after_a_reconnect(tmp_path: Path) -> None:
    camera = Camera(tmp_path, pre_roll_s=5, post_roll_s=5)
    camera.run(range(8 * FPS), (7 * FPS,), epoch=0)
    camera.run(range(10 * FPS, 20 * FPS), (11 * FPS,), epoch=1)
    camera.sink.close()
    found = clips(tmp_path)
    assert list(camera.links.values()) == list(found)
    first, second = found.values()
    assert first == list(range(2 * FPS, 8 * FPS))
    # it ends when a result has shown that nothing prolongs it
    assert second[: 6 * FPS + 1] == list(range(10 * FPS, 16 * FPS + 1))
    assert [entry.file for entry in camera.sink.entries()] == [Path(path).name for path in found]


def test_a_clip_outlives_the_event_after_a_silence(tmp_path: Path) -> None:
    chosen = settings(tmp_path, pre_roll_s=1, post_roll_s=30)
    sink = RecordSink(chosen, "door", fps=FPS, is_lossless=True, clock=CLOCK)
    links = []
    # the second event comes with the very first picture after it
    for number in (*range(60), *range(60 + 6 * FPS, 120 + 6 * FPS)):
        shown = result(number, 0, has_event=number in (50, 60 + 6 * FPS))
        sink.write(shown, lambda image=shown.frame.image: image)  # type: ignore[misc]
        if shown.events:
            links.append(sink.clip_of(shown))
    sink.close()
    found = clips(tmp_path)
    assert links == list(found)
    first, second = found.values()
    assert 50 in first
    assert first[-1] == 59
    assert second == list(range(60 + 6 * FPS, 120 + 6 * FPS))
    assert [entry.file for entry in sink.entries()] == [Path(path).name for path in found]


def test_a_clip_outlives_the_event_after_a_disk_error(tmp_path: Path) -> None:
    is_broken = [False]

    def sometimes(fd: int, data: bytes) -> int:
        if is_broken[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.write(fd, data)

    chosen = settings(tmp_path, pre_roll_s=1, post_roll_s=100, fragment_s=0.4)
    sink = RecordSink(chosen, "door", fps=FPS, is_lossless=True, clock=CLOCK, disk=Disk(sometimes))
    sink._recorder._cutter._clock_s = lambda: 0.0 if is_broken[0] else 1e9

    def write(numbers: range, event: int) -> str | None:
        link = None
        for number in numbers:
            shown = result(number, 0, has_event=number == event)
            try:
                sink.write(shown, lambda image=shown.frame.image: image)  # type: ignore[misc]
            except SinkError:
                assert is_broken[0]
            link = sink.clip_of(shown) or link
        wait_until(lambda: not len(sink._queue))
        return link

    first = write(range(60), 30)
    is_broken[0] = True
    write(range(60, 100), -1)
    wait_until(lambda: sink._recorder.ended is not None)
    is_broken[0] = False
    second = write(range(100, 160), 110)
    sink.close()
    found = clips(tmp_path)
    assert [first, second] == list(found)
    assert 30 in found[str(first)]
    assert 110 in found[str(second)]


def written(folder: RecordingFolder, path: Path) -> tuple[FragmentFile, VideoForm]:
    """A file of ten pictures, not finished."""
    encoder = VideoEncoder(find_encoder(), scene.WIDTH, scene.HEIGHT, fps=FPS, key_every_s=0.1)
    packets = [one for n in range(10) for one in encoder.encode(scene.numbered(n), n * 90_000 // FPS)]
    form = encoder.form_with(packets[0])
    file = folder.create(path, form)
    for packet in packets:
        file.add(packet)
    return file, form


def test_a_name_that_is_taken_is_not_used_again(tmp_path: Path) -> None:
    folder = RecordingFolder(tmp_path, Keep())
    path = folder.path_of(CLOCK.offset_ns, "clip")
    ends = []
    for _ in range(3):
        file, form = written(folder, path)
        ends.append(folder.finish(file, CLOCK.offset_ns, "clip", form))
    folder.close()
    assert [end.name.removeprefix(path.stem) for end in ends if end] == [".mp4", "-2.mp4", "-3.mp4"]
    assert [entry.file for entry in folder.index.entries] == [end.name for end in ends if end]
    assert folder.path_of(CLOCK.offset_ns, "clip") not in ends


def test_what_a_crash_left_takes_no_finished_file_s_name(tmp_path: Path) -> None:
    folder = RecordingFolder(tmp_path, Keep())
    path = folder.path_of(CLOCK.offset_ns, "clip")
    file, form = written(folder, path)
    folder.finish(file, CLOCK.offset_ns, "clip", form)
    before = path.read_bytes()
    folder.close()
    (tmp_path / f".{path.name}.part").write_bytes(before)
    again = RecordingFolder(tmp_path, Keep())
    again.close()
    assert [entry.file for entry in again.index.entries] == [path.name, f"{path.stem}-2.mp4"]
    assert len(list(tmp_path.glob("*.mp4"))) == 2


@pytest.mark.parametrize(
    ("content", "ended_s", "next_s", "epoch", "is_same"),
    [
        ("source", None, 2.0, 0, True),
        ("source", None, 2.0, 1, False),
        # few results say nothing about the packets between them
        ("source", None, 6.0, 0, True),
        ("plain", None, 6.0, 0, False),
        ("plain", None, 2.0, 1, True),
        ("source", 1.5, 2.0, 0, False),
        # a result that comes after its clip was finished is in it all the same
        ("source", 2.0, 2.0, 0, True),
    ],
)
def test_which_events_share_a_clip(
    tmp_path: Path, content: str, ended_s: float | None, next_s: float, epoch: int, is_same: bool
) -> None:
    folder = RecordingFolder(tmp_path, Keep())
    ended: list[Ended | None] = [None]
    names = ClipNames(settings(tmp_path, content=content, post_roll_s=30), folder, lambda: ended[0])
    first = names.clip_for(result(FPS, 0, has_event=True))
    assert first is not None
    if ended_s is not None:
        ended[0] = Ended(first, round(ended_s * 1e9))
    later = result(round(next_s * FPS), epoch, has_event=True)
    second = names.clip_for(later)
    assert (second == first) is is_same
    # the answer stays, whatever ends meanwhile: the link and the recording are one
    ended[0] = Ended(second, 0) if second else None
    assert names.clip_for(later) == second
    folder.close()
