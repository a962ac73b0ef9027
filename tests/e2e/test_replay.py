"""Recordings: lossless, without secrets, and the same bytes at every replay."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.config.load import config_from_arguments
from edge.config.schema import Config
from edge.daemon.service import run_service
from edge.errors import DataError, SourceError
from edge.models.shipped import demo_model
from edge.pipeline.replay import capture, load_capture, replay
from edge.sources.choose import open_source
from edge.sources.replay import RawWriter, ReplaySource

SCENE = "synthetic://street?seed=4&size=320x180&objects=5&frames=25&fps=10"


def configured(*sources: str, sinks: tuple[str, ...] = (), **stream: Any) -> Config:
    return config_from_arguments(
        sources, demo_model(), sinks, for_model={"engine": "ort", "threads": 1}, for_stream=stream
    )


def replayed(folder: Path) -> bytes:
    lines: list[bytes] = []
    replay(folder, lines.append)
    return b"".join(lines)


def test_a_replay_gives_the_same_bytes_each_time_and_what_the_run_gave(tmp_path: Path) -> None:
    config = configured(SCENE, f"{SCENE}&seed=9".replace("seed=4&", ""), sinks=(f"jsonl:{tmp_path}/{{stream}}.jsonl",))
    run_service(config)
    counts = capture(config, tmp_path / "raw", 120)
    assert set(counts.values()) == {25}
    first, second = replayed(tmp_path / "raw"), replayed(tmp_path / "raw")
    assert first == second
    by_stream: dict[str, list[Any]] = {name: [] for name in counts}
    for line in map(json.loads, first.splitlines()):
        by_stream[line["stream"]].append(line["objects"])
    for name, objects in by_stream.items():
        run = [json.loads(line)["objects"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert objects == run
    assert sum(map(len, by_stream["street"])) > 10


def test_the_recorded_pictures_are_lossless_and_keep_their_times(tmp_path: Path) -> None:
    capture(configured(SCENE), tmp_path / "raw", 60)
    recorded, scene = open_source(str(tmp_path / "raw" / "street")), open_source(SCENE)
    for _ in range(25):
        was, now = scene.read(), recorded.read()
        assert was is not None
        assert now is not None
        assert (was[0] == now[0]).all()
        assert was[1] == now[1]
    assert recorded.read() is None


def test_a_recording_holds_no_secret(tmp_path: Path) -> None:
    config = configured(SCENE)
    secret = {"source": "rtsp://viewer:canarysecret@127.0.0.1:9/x?token=canarysecret", "open_timeout_s": 0.5}
    stream = config.streams[0].model_copy(update=secret)
    capture(config.model_copy(update={"streams": (stream,)}), tmp_path / "raw", 0.3)
    assert b"canarysecret" not in b"".join(
        path.read_bytes() for path in (tmp_path / "raw").rglob("*") if path.is_file()
    )


def test_a_size_that_changes_begins_a_new_film(tmp_path: Path) -> None:
    writer = RawWriter(tmp_path / "cam")
    pictures = [np.random.default_rng(i).integers(0, 255, (48 + i // 3, 64, 3), dtype=np.uint8) for i in range(8)]
    for seq, image in enumerate(pictures):
        writer.write(image, seq // 4, seq, 1000 + seq, None, [("camera_dark", {"seconds": 3.0})] if seq == 5 else ())
    writer.close()
    source = ReplaySource(tmp_path / "cam")
    for seq, image in enumerate(pictures):
        picture = source.read()
        assert picture is not None
        assert (picture[0] == image).all()
        assert (source.last.seq, source.last.epoch, source.last.captured_ns) == (seq, seq // 4, 1000 + seq)
    assert len(list((tmp_path / "cam").glob("*.mkv"))) == 3


@pytest.mark.parametrize(
    ("spoil", "error", "expected"),
    [
        (lambda raw: (raw / "recording.json").unlink(), DataError, "cannot be read"),
        (lambda raw: (raw / "recording.json").write_text("{}"), DataError, "not a capture"),
        (lambda raw: (raw / "street" / "index.jsonl").write_text("{}\n"), SourceError, "not an index"),
        (lambda raw: (raw / "street" / "0000.mkv").unlink(), SourceError, "cannot be read"),
    ],
)
def test_a_damaged_recording_is_one_sentence(tmp_path: Path, spoil: Any, error: type[Exception], expected: str) -> None:
    capture(configured(SCENE), tmp_path / "raw", 60)
    spoil(tmp_path / "raw")
    with pytest.raises(error, match=expected):
        replayed(tmp_path / "raw")


def test_a_line_of_the_index_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    capture(configured(SCENE), tmp_path / "raw", 60)
    index = tmp_path / "raw" / "street" / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join(lines[:9]) + lines[9][:17])
    assert len(replayed(tmp_path / "raw").splitlines()) == 9


def test_a_replay_cuts_pictures_into_tiles_as_the_run_did(tmp_path: Path) -> None:
    """What a whole picture shows of one object is not what its tiles show of it."""
    whole, cut = configured(SCENE), configured(SCENE, tiles=(2, 1), sinks=(f"jsonl:{tmp_path}/run.jsonl",))
    run_service(cut)
    objects = []
    for name, config in (("whole", whole), ("cut", cut)):
        capture(config, tmp_path / name, 120)
        objects.append([json.loads(line)["objects"] for line in replayed(tmp_path / name).splitlines()])
    assert objects[1] == [json.loads(line)["objects"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert objects[0] != objects[1]


@pytest.mark.parametrize(("hour", "has_events"), [(12, False), (23, True)])
def test_schedules_follow_the_time_of_the_recording(hour: int, has_events: bool, tmp_path: Path) -> None:
    """The recording is of noon or of night, the replay is of now."""
    night = {"start_at": "22:00", "end_at": "06:00", "time_zone": "UTC"}
    zone = {"name": "all", "points_share": [(0, 0), (1, 0), (1, 1), (0, 1)], "schedules": [night]}
    capture(configured(SCENE, analytics={"zones": [zone]}), tmp_path / "raw", 60)
    facts = json.loads((tmp_path / "raw" / "recording.json").read_text())
    first = json.loads((tmp_path / "raw" / "street" / "index.jsonl").read_text().splitlines()[0])
    begun = datetime(2026, 11, 22, hour, tzinfo=timezone.utc)
    facts["wall_offset_ns"] = int(begun.timestamp() * 1e9) - first["captured_ns"]
    (tmp_path / "raw" / "recording.json").write_text(json.dumps(facts))
    events = [event for line in replayed(tmp_path / "raw").splitlines() for event in json.loads(line)["events"]]
    assert bool(events) == has_events


def test_another_model_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    capture(configured(SCENE), tmp_path / "raw", 60)
    path = tmp_path / "raw" / "recording.json"
    facts = json.loads(path.read_text())
    facts["models"] = {"model": "0" * 64}
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="edge replay --model"):
        replayed(tmp_path / "raw")
    assert replay(tmp_path / "raw", lambda _: None, demo_model()) == 25
    assert load_capture(tmp_path / "raw").models == {"model": "0" * 64}


def test_a_folder_with_something_in_it_is_not_recorded_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match="is not empty"):
        capture(configured(SCENE), tmp_path, 1)
