"""Every event has the form of the shipped schema, and an id that never changes."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import uuid
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edge.errors import SinkError
from edge.events.outbox import Outbox
from edge.events.schema import EnvelopeMaker, ModelFacts, Place
from edge.events.snapshots import Snapshots
from edge.events.writer import CAPACITY, MAX_PICTURES, EventWriter
from edge.metrics.clock import WallClock
from edge.sinks.events import EventSink
from edge.sinks.home_assistant import EVENT_KINDS
from edge.types import Detections, Event, Frame, Result

SCHEMA = json.loads(files("edge.events").joinpath("event.schema.json").read_text())
CHECK = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
CLOCK = WallClock(1_795_000_000_000_000_000, lambda: 0)
MODEL = ModelFacts("street", "ab" * 32)


def result(seq: int = 3, num_events: int = 1, pts_ns: int | None = None) -> Result:
    image = np.full((48, 64, 3), 90, np.uint8)
    frame = Frame("door", 0, seq, time.monotonic_ns(), pts_ns, image)
    events = tuple(Event("line_crossed", "door", frame.time_ns, n, {"line": "a"}) for n in range(num_events))
    return Result(frame, Detections.empty(), events=events)


def bodies(outbox: Outbox) -> list[dict[str, Any]]:
    return [json.loads(event.body) for event in outbox.recent(10**6)][::-1]


def written(desk: EventWriter) -> None:
    desk.close()
    desk.run(threading.Event())


@given(
    kind=st.sampled_from(EVENT_KINDS),
    track=st.none() | st.integers(0, 2**62),
    data=st.dictionaries(
        st.text(max_size=9), st.none() | st.booleans() | st.text(max_size=9) | st.integers(), max_size=4
    ),
    place=st.none()
    | st.builds(
        Place, st.integers(0, 99), st.integers(0, 10**9), st.integers(0, 10**15), st.none() | st.integers(0, 10**15)
    ),
)
def test_every_event_has_the_form_of_the_schema(
    kind: str, track: int | None, data: dict[str, Any], place: Place | None
) -> None:
    event = Event(kind, "door", 10**9, track, data)
    envelope = EnvelopeMaker("run", CLOCK).make(event, place, 0, MODEL, {"snapshot": "/a.jpg"})
    body = json.loads(envelope.body)
    CHECK.validate(body)
    assert body["data"] == data
    assert (body["id"], body["kind"]) == (envelope.id, kind)


def test_the_schema_itself_is_one_and_refuses_what_is_unknown() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    body = json.loads(EnvelopeMaker("r", CLOCK).make(Event("tick", "door", 0), None, 0, None, {}).body)
    assert not list(CHECK.iter_errors(body))
    assert list(CHECK.iter_errors({**body, "colour": "red"}))
    assert list(CHECK.iter_errors({**body, "id": 7}))


def test_an_id_is_made_of_what_happened_and_differs_in_every_way() -> None:
    maker, event, place = EnvelopeMaker("r", CLOCK), Event("tick", "door", 5, 1), Place(0, 3, 5, None)
    assert maker.id_of(event, place, 0) == EnvelopeMaker("r", CLOCK).id_of(event, place, 0)
    others = [
        EnvelopeMaker("r2", CLOCK).id_of(event, place, 0),
        maker.id_of(Event("tock", "door", 5, 1), place, 0),
        maker.id_of(Event("tick", "yard", 5, 1), place, 0),
        maker.id_of(Event("tick", "door", 5, 2), place, 0),
        maker.id_of(event, Place(1, 3, 5, None), 0),
        maker.id_of(event, Place(0, 4, 5, None), 0),
        maker.id_of(event, place, 1),
        maker.id_of(event, None, 0),
    ]
    assert len({maker.id_of(event, place, 0), *others}) == 9
    assert uuid.UUID(others[0]).version == 5


def test_two_runs_never_share_an_id(tmp_path: Path) -> None:
    for _ in range(2):
        outbox = Outbox(tmp_path / "e.db", [])
        desk = EventWriter(outbox)
        desk.report(result(), None)
        written(desk)
        found = {body["id"] for body in bodies(outbox)}
        outbox.close()
    assert len(found) == 2


def test_the_desk_keeps_events_with_picture_model_and_clip(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", [])
    desk = EventWriter(outbox, Snapshots(tmp_path / "pictures", 10**7))
    sink = EventSink(desk, "door", lambda: MODEL, lambda _: "/clips/1.mp4")
    shown = np.full((48, 64, 3), 200, np.uint8)
    sink.write(result(num_events=2, pts_ns=1_500_000_000), lambda: shown)
    sink.write(result(num_events=0), lambda: pytest.fail("nothing happened, so nothing is drawn"))
    desk.report(result(seq=4), None, MODEL)
    desk.report_event(Event("camera_offline", "door", time.monotonic_ns()))
    written(desk)
    first, second, third, fourth = bodies(outbox)
    for body in (first, second, third, fourth):
        CHECK.validate(body)
    assert first["links"] == second["links"] == {"clip": "/clips/1.mp4", "snapshot": first["links"]["snapshot"]}
    picture = cv2.imread(first["links"]["snapshot"])
    assert picture is not None
    assert picture.shape == (48, 64, 3)
    assert abs(float(picture.mean()) - 200) < 3
    assert first["model"] == {"name": "street", "sha256": "ab" * 32}
    assert (first["media_s"], first["epoch"], first["seq"]) == (1.5, 0, 3)
    assert (third["links"], third["model"]) == ({}, first["model"])
    assert (fourth["seq"], fourth["model"], fourth["kind"]) == (None, None, "camera_offline")
    outbox.close()


def test_a_desk_that_is_not_served_stays_bounded_and_counts(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "e.db", [])
    desk = EventWriter(outbox, Snapshots(tmp_path / "pictures", 10**7))
    num_drawn = 0

    def picture() -> Any:
        nonlocal num_drawn
        num_drawn += 1
        return np.zeros((4, 4, 3), np.uint8)

    for seq in range(CAPACITY + 10):
        desk.report(result(seq), picture)
    assert num_drawn == MAX_PICTURES + min(10, MAX_PICTURES)
    assert desk.stats()["dropped"] == 10
    written(desk)
    assert [body["seq"] for body in bodies(outbox)] == list(range(10, CAPACITY + 10))
    outbox.close()


def test_an_outbox_that_fails_for_a_while_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.events.writer.RETRY_S", 0.01)
    outbox = Outbox(tmp_path / "e.db", [])
    desk = EventWriter(outbox)
    outbox._database.execute("PRAGMA query_only = 1")
    for seq in range(3):
        desk.report(result(seq), None)
    desk.close()
    writer = threading.Thread(target=desk.run, args=(threading.Event(),))
    writer.start()
    while desk.stats().get("write_errors", 0) < 3:
        time.sleep(0.005)
    with outbox._lock:
        outbox._database.execute("PRAGMA query_only = 0")
    writer.join(10)
    assert [body["seq"] for body in bodies(outbox)] == [0, 1, 2]
    outbox.close()


def test_old_pictures_make_room(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    snapshots = Snapshots(tmp_path, 60_000)
    paths = [Path(snapshots.write(str(uuid.UUID(int=number)), noise)) for number in range(40)]
    kept = [path for path in paths if path.exists()]
    assert sum(path.stat().st_size for path in kept) <= 60_000
    assert kept == paths[-len(kept) :]
    assert Snapshots(tmp_path, 60_000)._num_bytes == sum(path.stat().st_size for path in kept)


def test_pictures_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    names = ("holiday.jpg", f"{uuid.UUID(int=7)}-copy.jpg", f"{uuid.UUID(int=7).hex}.jpg")
    others = [tmp_path / name for name in names]
    for path in others:
        path.write_bytes(bytes(50_000))
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    snapshots = Snapshots(tmp_path, 60_000)
    paths = [Path(snapshots.write(str(uuid.uuid4()), noise)) for _ in range(20)]
    assert all(path.exists() for path in others)
    # and take no room from ours
    assert sum(path.stat().st_size for path in paths if path.exists()) > 50_000


def test_the_pictures_written_last_stay_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    snapshots = Snapshots(tmp_path, 60_000)
    paths = [Path(snapshots.write(str(uuid.uuid4()), noise)) for _ in range(5)]
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    paths += [Path(snapshots.write(str(uuid.uuid4()), noise)) for _ in range(20)]
    kept = [path for path in paths if path.exists()]
    assert kept == paths[-len(kept) :]


def test_a_folder_of_pictures_that_cannot_be_read_is_said_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{uuid.UUID(int=7)}.jpg").write_bytes(b"12")
    picture = np.zeros((8, 8, 3), np.uint8)
    with monkeypatch.context() as broken:
        broken.setattr("edge.events.snapshots.files_in", _no_disk)
        snapshots = Snapshots(tmp_path, 60_000)
        assert "cannot be made or read (Input/output error)" in caplog.text
        with pytest.raises(SinkError, match=r"cannot be made or read \(Input/output error\)"):
            snapshots.write("a", picture)
    assert Path(snapshots.write("a", picture)).is_file()


def _no_disk(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
