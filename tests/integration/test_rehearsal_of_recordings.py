"""The last recordings are run through what runs and what shall take over; what differs is told, shown, or refused."""

# the clip is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.test_rehearsal import worse
from integration.test_clip_tests import MIDDLE, MODEL, YARD, clip, configured  # noqa: F401

from edge.cliptests.child import rehearse_apart
from edge.cliptests.run import NS_PER_S, Verdict
from edge.config.daemon import ClipTestSettings
from edge.config.schema import Config
from edge.daemon.rehearsal import fingerprint, keep_seen, rehearse, rehearse_start
from edge.errors import ClipTestError
from edge.recording.index import RecordingIndex, described
from edge.recording.names import name_at

HOUR_NS = 3600 * NS_PER_S
AN_HOUR_AGO_NS = time.time_ns() - HOUR_NS


@pytest.fixture(scope="module")
def films(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of recordings, with one of an hour ago and one of two days ago that is damaged."""
    folder = tmp_path_factory.mktemp("films")
    index = RecordingIndex(folder / "door")
    (folder / "door").mkdir()
    for age_ns, data in ((48 * HOUR_NS, b""), (HOUR_NS, clip.read_bytes())):
        path = folder / "door" / name_at(AN_HOUR_AGO_NS + HOUR_NS - age_ns, "segment")
        path.write_bytes(clip.read_bytes())
        entry = described(path)
        assert entry is not None
        index.add(entry)
        path.write_bytes(data)
    return folder


def recorded(films: Path, model: Path = MODEL, **more: Any) -> Config:
    return configured(model, record={"folder": str(films), "mode": "continuous", "content": "plain"}, **more)


def looked(before: Config, after: Config, html: Path | None = None, hours: float = 24) -> list[Verdict]:
    since_ns = time.time_ns() - round(hours * HOUR_NS)
    return rehearse_apart(before, after, since_ns=since_ns, for_s=60, html=html)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    worse(folder)
    return folder / "worse.onnx"


def test_a_worse_model_is_seen_and_shown_side_by_side(films: Path, bad: Path, tmp_path: Path) -> None:
    (verdict,) = looked(recorded(films), recorded(films, bad), tmp_path / "page.html")
    assert verdict.differences and "lost" in verdict.differences[0].text
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") >= 2 and "expected" in page


def test_the_same_model_under_another_name_loses_nothing(films: Path, tmp_path: Path) -> None:
    for suffix in ("onnx", "json"):
        shutil.copy(MODEL.with_suffix(f".{suffix}"), tmp_path / f"same.{suffix}")
    (verdict,) = looked(recorded(films), recorded(films, tmp_path / "same.onnx"), tmp_path / "page.html")
    assert verdict.differences == ()
    assert not (tmp_path / "page.html").exists()


def test_what_is_too_old_or_damaged_is_no_difference(films: Path, bad: Path) -> None:
    assert looked(recorded(films), recorded(films, bad), hours=0.1) == []
    found = looked(recorded(films), recorded(films, bad), hours=72)
    assert sorted(bool(one.differences) for one in found) == [False, True]


def test_lines_that_are_changed_on_purpose_are_no_difference(films: Path, tmp_path: Path) -> None:
    moved = {**MIDDLE, "points_share": [(0.9, 0.3), (0.9, 1.0)]}
    assert looked(recorded(films), recorded(films, lines=(moved,), zones=(YARD,))) == [], "nothing else is another"
    strict = recorded(films, lines=(moved,), zones=(YARD,), score=0.97)
    (verdict,) = looked(recorded(films), strict)
    assert not any("mid" in one.text for one in verdict.differences) and verdict.differences


@pytest.mark.parametrize("way", ["off", "tell", "refuse"])
def test_the_setting_says_what_follows(
    films: Path, bad: Path, tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    tests = ClipTestSettings.model_validate({"folder": tmp_path / "tests", "rehearse": way})
    after = recorded(films, bad).model_copy(update={"tests": tests})
    caplog.set_level(logging.INFO)
    if way == "refuse":
        with pytest.raises(ClipTestError, match=r'1 of 1 recordings are seen otherwise.*tests.rehearse = "tell"'):
            rehearse(after, tmp_path, {}, recorded(films))
    else:
        rehearse(after, tmp_path, {}, recorded(films))
    assert ("seen otherwise" in caplog.text) == (way == "tell")
    assert (tmp_path / "rehearsal.html").exists() == (way != "off")


def test_a_start_compares_another_model_with_what_the_one_before_saw(
    films: Path, bad: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tests = ClipTestSettings.model_validate({"folder": tmp_path / "tests", "rehearse": "tell"})
    ran = recorded(films).model_copy(update={"tests": tests})
    assert rehearse_start(ran, tmp_path) == "", "nothing is kept yet"
    keep_seen(ran, tmp_path)
    made = tmp_path / "last-seen" / "made-with.json"
    assert made.exists() and rehearse_start(ran, tmp_path) == ""
    # another version, which sees the same
    note = json.loads(made.read_text())
    made.write_text(json.dumps({**note, "version": "0.0.9"}))
    caplog.set_level(logging.INFO)
    assert rehearse_start(ran, tmp_path) == "" and "nothing is lost in 1 recordings" in caplog.text
    # an engine that was built again, and is worse: the same path, other bytes
    worse_at_it = tmp_path / "model"
    worse_at_it.mkdir()
    for suffix in ("onnx", "json"):
        shutil.copy(bad.with_suffix(f".{suffix}"), worse_at_it / f"{MODEL.stem}.{suffix}")
    after = recorded(films, worse_at_it / f"{MODEL.stem}.onnx").model_copy(update={"tests": tests})
    assert rehearse_start(after, tmp_path) == "", "its path is another setting: that is no upgrade"
    made.write_text(json.dumps({**fingerprint(after), "version": "0.0.9"}))
    assert "1 of 1 recordings are seen otherwise than by what ran before" in rehearse_start(after, tmp_path)
    assert "data:image/jpeg" in (tmp_path / "rehearsal.html").read_text()
    refusing = after.model_copy(
        update={"tests": tests.model_copy(update=dict.fromkeys(("on_start", "rehearse"), "refuse"))}
    )
    with pytest.raises(ClipTestError, match="seen otherwise"):
        rehearse_start(refusing, tmp_path)
