"""Frames that are kept for the night: a fair draw, bounded, private, whole; and which frames are worth a label."""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.config.night import NightSettings
from edge.config.schema import StreamSettings
from edge.metrics.clock import WallClock
from edge.night.choose import NS_PER_HOUR, NS_PER_S, Chooser
from edge.night.frames import CameraFrames, KeptFrame, forget, frames_of
from edge.night.keeper import CAPACITY, Keeper, masks_of
from edge.night.shift import Chain, sweep
from edge.types import Detections, Frame, Result, Tracks

BEGIN_NS = 1_790_000_000 * NS_PER_S // NS_PER_HOUR * NS_PER_HOUR
JPEG = b"\xff\xd8" + b"0" * 998


def settings(**more: Any) -> NightSettings:
    values: dict[str, Any] = {"teachers": ["teacher.onnx"], "sealed": ["coco:sealed.json"]}
    return NightSettings(**values | more)


def offered(frames: CameraFrames, wall_ns: int, *reasons: str, jpeg: bytes = JPEG) -> None:
    """As the keeper does with a frame."""
    chosen = ["random"] if frames.wants(wall_ns, is_random=True) else []
    chosen += reasons if reasons and frames.wants(wall_ns, is_random=False) else ()
    if chosen:
        frames.keep(wall_ns, chosen, jpeg)


def found(*scores: float, kind: int = 0, place: float = 100.0) -> Detections:
    boxes = np.array([[place + 40 * row, place, place + 30 + 40 * row, place + 30] for row in range(len(scores))])
    count = len(scores)
    return Detections(
        boxes.reshape(-1, 4).astype(np.float32), np.array(scores, np.float32), np.full(count, kind, np.int32)
    )


def result(seconds: float, detections: Detections, seen: tuple[bool, ...] = ()) -> Result:
    """A result with a track per detection, or per ``seen``, which says whether it is seen in this frame."""
    at_ns, count = round(seconds * NS_PER_S), len(seen)
    frame = Frame("gate", 0, 1, at_ns, at_ns, np.zeros((360, 640, 3), np.uint8))
    boxes = np.array([[100.0, 100.0, 140.0, 180.0]] * count, np.float32).reshape(-1, 4)
    tracks = Tracks(
        track_id=np.arange(count, dtype=np.int64),
        xyxy=boxes,
        score=np.full(count, 0.9, np.float32),
        class_id=np.zeros(count, np.int32),
        age=np.ones(count, np.float32),
        velocity=np.zeros((count, 2), np.float32),
        detection=np.array([row if one else -1 for row, one in enumerate(seen)], np.int32),
    )
    return Result(frame, detections, tracks)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files that need not outlive a power cut."""
    monkeypatch.setattr("edge.files._sync", lambda path: None)


@pytest.mark.usefixtures("quick_disk")
def test_every_frame_of_an_hour_is_drawn_equally_often(tmp_path: Path) -> None:
    """Over many cameras, each tenth of the hour has its share of the sample, restarts in between included."""
    tenths: Counter[int] = Counter()
    for camera in range(60):
        name, bounds = f"c{camera}", settings(random_per_hour=4, doubtful_per_hour=0)
        # a night of its own: each frame that is kept asks how full the night is with all of its cameras
        folder = tmp_path / name
        frames = CameraFrames(folder, name, bounds)
        for number in range(50):
            if number == 23:
                frames = CameraFrames(folder, name, bounds)
            offered(frames, BEGIN_NS + number * 70 * NS_PER_S)
        kept = frames_of(folder, name)
        assert len(kept) == 4
        tenths.update((one.wall_ns - BEGIN_NS) // (70 * NS_PER_S) // 5 for one in kept)
    # 240 draws, 24 expected of each tenth with a deviation of 4.6
    assert all(8 <= tenths[tenth] <= 40 for tenth in range(10)), tenths


@pytest.mark.usefixtures("quick_disk")
def test_an_hour_that_is_full_of_doubts_leaves_the_fair_sample_alone(tmp_path: Path) -> None:
    plain, doubtful = (CameraFrames(tmp_path / one, "gate", settings(random_per_hour=4)) for one in ("a", "b"))
    for number in range(300):
        offered(plain, BEGIN_NS + number * NS_PER_S)
        offered(doubtful, BEGIN_NS + number * NS_PER_S, "low-score")
    drawn = [{one.wall_ns for one in frames_of(tmp_path / place) if one.is_random} for place in ("a", "b")]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4
    assert len([one for one in frames_of(tmp_path / "b") if "low-score" in one.reasons]) == 24


@pytest.mark.usefixtures("quick_disk")
def test_bytes_days_and_numbers_are_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    bounds = settings(max_mb=1, max_days=2, per_camera=225, random_per_hour=30)
    gate, yard = CameraFrames(tmp_path, "gate", bounds), CameraFrames(tmp_path, "yard", bounds)
    for number in range(75):
        offered(yard, BEGIN_NS + number * NS_PER_S, jpeg=20 * JPEG)
    for number in range(75):
        offered(gate, BEGIN_NS + 1000 * NS_PER_S + number * 48 * NS_PER_S, jpeg=20 * JPEG)
    kept = frames_of(tmp_path)
    assert sum(one.num_bytes for one in kept) <= 1_000_000
    assert min(one.wall_ns for one in kept) >= BEGIN_NS + 1000 * NS_PER_S
    offered(gate, BEGIN_NS + 51 * NS_PER_HOUR)
    assert {one.camera for one in frames_of(tmp_path, "gate")} == {"gate"}
    assert len(frames_of(tmp_path, "gate")) == 1


def test_a_camera_keeps_no_more_than_its_cap(tmp_path: Path) -> None:
    frames = CameraFrames(tmp_path, "gate", settings(per_camera=10))
    for hour in range(6):
        for number in range(30):
            offered(frames, BEGIN_NS + hour * NS_PER_HOUR + number * NS_PER_S)
    assert len(frames_of(tmp_path)) == 10


def test_frames_are_private_and_what_a_kill_left_is_swept(tmp_path: Path) -> None:
    frames = CameraFrames(tmp_path / "night", "gate", settings())
    offered(frames, BEGIN_NS)
    place = tmp_path / "night" / "frames" / "gate"
    (place / f".{BEGIN_NS}-random-0123456789abcdef.jpg").write_bytes(b"torn")
    assert [one.wall_ns for one in frames_of(tmp_path / "night")] == [BEGIN_NS]
    CameraFrames(tmp_path / "night", "gate", settings())
    assert not list(place.glob(".*.jpg"))
    for folder in (place, place.parent, place.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}


def test_a_moment_has_one_frame_though_the_clock_was_set_back(tmp_path: Path) -> None:
    frames = CameraFrames(tmp_path, "gate", settings())
    offered(frames, BEGIN_NS)
    frames.keep(BEGIN_NS, ["low-score"], JPEG)
    assert [one.reasons for one in frames_of(tmp_path)] == [("low-score",)]


def test_other_masks_delete_what_was_kept_under_the_old_ones(tmp_path: Path) -> None:
    plain = StreamSettings(name="gate", source="rtsp://camera")
    masked = StreamSettings.model_validate(
        {"name": "gate", "source": "rtsp://camera", "masks": [[[0, 0], [0.5, 0], [0.5, 0.5]]]}
    )
    for stream, left in ((plain, 1), (plain, 2), (masked, 1)):
        frames = CameraFrames(tmp_path, "gate", settings(), masks_of(stream))
        offered(frames, BEGIN_NS + left * 30 * NS_PER_S + (stream is masked))
        assert len(frames_of(tmp_path)) == left


def test_a_forgotten_camera_leaves_no_picture_anywhere(tmp_path: Path) -> None:
    frames = CameraFrames(tmp_path, "gate", settings())
    other = CameraFrames(tmp_path, "yard", settings())
    offered(frames, BEGIN_NS)
    offered(other, BEGIN_NS)
    for place in (tmp_path / "work" / "frames" / "gate", tmp_path / "reports" / "2026-11-30T020000" / "gate"):
        place.mkdir(parents=True)
        (place / "00.jpg").write_bytes(JPEG)
    assert forget(tmp_path, "gate") == 1
    assert [path.parent.name for path in tmp_path.rglob("*.jpg")] == ["yard"]


def test_frames_of_one_moment_lie_on_one_side_of_every_split() -> None:
    def at(seconds: int) -> KeptFrame:
        return KeptFrame("gate", BEGIN_NS + seconds * NS_PER_S, ("random",), Path(), 1)

    moment = BEGIN_NS // NS_PER_S % 20
    assert at(-moment).draw == at(19 - moment).draw
    draws = [at(20 * number).draw for number in range(1000)]
    assert 0.16 < sum(draw < 0.2 for draw in draws) / len(draws) < 0.24


def test_a_slow_disk_loses_frames_and_holds_nobody_up(tmp_path: Path) -> None:
    keeper = Keeper(settings(random_per_hour=500), tmp_path, WallClock(offset_ns=BEGIN_NS))
    sink = keeper.sink_of(StreamSettings(name="gate", source="rtsp://camera"))
    assert sink is not None
    for number in range(40):
        sink.write(result(number, found(0.9)), lambda: np.zeros((1, 1, 3), np.uint8))
    keeper.write_waiting()
    assert keeper.stats()["kept"] == CAPACITY
    assert keeper.stats()["dropped"] == 40 - CAPACITY


def test_a_full_disk_is_said_and_costs_frames_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(settings(), tmp_path, WallClock(offset_ns=BEGIN_NS))
    sink = keeper.sink_of(StreamSettings(name="gate", source="rtsp://camera"))
    assert sink is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(CameraFrames, "keep", full)
        sink.write(result(0, found(0.9)), lambda: np.zeros((1, 1, 3), np.uint8))
        keeper.write_waiting()
    assert keeper.stats()["error"] == "No space left on device"
    sink.write(result(1, found(0.9)), lambda: np.zeros((1, 1, 3), np.uint8))
    keeper.write_waiting()
    assert (keeper.stats()["error"], keeper.stats()["kept"]) == ("", 1)


def test_low_scores_are_worth_a_label_once_a_second() -> None:
    chooser = Chooser()
    assert chooser.reasons(result(0, found(0.9))) == []
    assert chooser.reasons(result(1, found(0.9, 0.4))) == ["low-score"]
    assert chooser.reasons(result(1.5, found(0.9, 0.4))) == []
    assert chooser.reasons(result(2.5, found(0.9, 0.4))) == ["low-score"]


def test_a_track_that_flickers_is_worth_a_label() -> None:
    chooser, told = Chooser(), []
    for number, is_seen in enumerate((True, True, False, True, False, True)):
        told += chooser.reasons(result(number / 5, found(0.9), (is_seen,)))
    assert told == ["flicker"]


def test_a_track_that_ends_early_amid_the_picture_is_worth_a_label() -> None:
    chooser, told = Chooser(), []
    for number in range(10):
        told += chooser.reasons(result(number / 5, found(0.9), (True,) if number < 5 else ()))
    assert told == ["broken"]


def test_a_class_that_hardly_ever_comes_is_worth_a_label() -> None:
    chooser, told = Chooser(), []
    for number in range(200):
        told += chooser.reasons(result(number, found(0.9, 0.9, 0.9)))
    assert told == []
    assert chooser.reasons(result(300, found(0.9, kind=2))) == ["rare"]


def test_a_set_that_judges_must_not_teach() -> None:
    with pytest.raises(ValueError, match="must never teach"):
        settings(replay=["coco:sealed.json"])


def test_models_that_took_over_nowhere_and_old_reports_go(tmp_path: Path) -> None:
    first, place = tmp_path / "first.onnx", tmp_path / "models"
    place.mkdir()
    (tmp_path / "reports").mkdir()
    chain = Chain(str(first))
    for number in range(8):
        for suffix in (".onnx", ".json", ".pt", ".ranges.json"):
            (place / f"m-{number}{suffix}").write_text("")
        if number != 7:
            chain = chain.with_link(str(place / f"m-{number}.onnx"), str(place / f"m-{number}.pt"), f"night-{number}")
    chain.write(tmp_path)
    for number in range(70):
        (tmp_path / "reports" / f"2026-01-{number:03}.json").write_text("{}")
    sweep(tmp_path, first)
    assert {path.name.partition(".")[0] for path in place.iterdir()} == {f"m-{number}" for number in range(2, 7)}
    assert len(list((tmp_path / "reports").glob("*.json"))) == 60
