"""Saving from the page: what was drawn counts at once, the stream goes on, and every earlier file can come back."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_model
from waiting import wait_until

import edge.daemon.edit
from edge.config.load import load_config
from edge.daemon.edit import FOLDER, MAX_VERSIONS, ConfigEditor
from edge.daemon.reload import Reloader
from edge.errors import ConfigError, SinkError
from edge.files import write_atomic
from edge.pipeline import Pipeline

SCENE = "synthetic://street?seed=1&size=96x64&fps=50&objects=1&live=1"
LINE = {"name": "gate", "points_share": [[0.1, 0.5], [0.9, 0.5]]}
ZONE = {"name": "yard", "points_share": [[0.2, 0.2], [0.8, 0.2], [0.5, 0.9]]}


class Site:
    """A pipeline that runs a file, and what edits the file."""

    def __init__(self, folder: Path) -> None:
        tiny_model(folder / "m.onnx")
        self.path = folder / "edge.toml"
        self.state = folder / "state"
        self.path.write_text(
            f'# ours\n[model]\npath = "{folder}/m.onnx"\nthreads = 1\n[[streams]]\nname = "door"\nsource = "{SCENE}"\n'
        )
        loaded = load_config(self.path)
        self.pipeline = Pipeline(loaded)
        self.pipeline.start()
        self.reloader = Reloader(self.path, loaded, self.pipeline)
        self.editor = ConfigEditor(self.path, self.state, self.pipeline, lambda: None)

    def save(self, **drawn: Any) -> Any:
        return self.editor.save("door", drawn, self.editor.drawn("door")["version"])

    def wait_for_frames(self, count: int = 3) -> None:
        counters = self.pipeline.streams["door"].metrics.counters
        wanted = counters["emitted"] + count
        wait_until(lambda: counters["emitted"] >= wanted)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    running = Site(tmp_path)
    running.wait_for_frames()
    yield running
    assert running.pipeline.stop()
    assert not running.pipeline.failures()


def test_what_is_saved_counts_in_the_stream_that_goes_on(site: Site) -> None:
    stream = site.pipeline.streams["door"]
    site.save(lines=[LINE], zones=[ZONE])
    assert site.reloader.reload().applied == ["stream door was given other lines and zones"]
    assert site.pipeline.streams["door"] is stream
    site.wait_for_frames()
    assert set(stream.analysis.counts()["lines"]) == {"gate"}
    assert [shape.name for shape in stream.analysis.shapes] == ["gate", "yard"]
    assert stream.tally.as_dict()["lines"]["gate"]["in"] == 0
    site.save()
    assert site.reloader.reload().failed == []
    site.wait_for_frames()
    assert stream.analysis.shapes == () and stream.tally.as_dict()["lines"] == {}
    assert not stream.analysis.has_analytics


def test_counts_go_on_by_name(site: Site) -> None:
    site.save(lines=[LINE])
    site.reloader.reload()
    site.wait_for_frames()
    analysis = site.pipeline.streams["door"].analysis
    assert analysis._analytics is not None
    analysis._analytics.lines.load_counts({"gate": {"by_class": {"in": {"person": 7}, "out": {}}}})
    assert analysis.counts()["lines"]["gate"]["in"] == 7
    site.save(lines=[{**LINE, "points_share": [[0.1, 0.9], [0.9, 0.9]]}, {**LINE, "name": "other"}])
    site.reloader.reload()
    assert analysis.counts()["lines"]["gate"]["in"] >= 7
    assert analysis.counts()["lines"]["other"]["in"] == 0


def test_a_mask_begins_the_stream_again_as_it_lies_before_the_first_queue(site: Site) -> None:
    site.save(masks=[[[0, 0], [0.5, 0], [0.5, 0.5]]])
    assert site.reloader.reload().applied == ["stream door was started again"]
    site.wait_for_frames()


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({"lines": [{**LINE, "points_share": [[0.5, 0.5], [0.5, 0.5]]}]}, "line 'gate'"),
        ({"lines": [{**LINE, "classes": ["persn"]}]}, "did you mean 'person'"),
        ({"zones": [{**ZONE, "points_share": [[0, 0], [1, 1], [1, 0], [0, 1]]}]}, "zone 'yard'"),
        ({"lines": [{**LINE, "schedules": [{"time_zone": "Mars/North"}]}]}, "Mars/North"),
        ({"lines": [LINE, LINE]}, "gate"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_written(site: Site, drawn: Any, words: str) -> None:
    before = site.path.read_text()
    with pytest.raises(ConfigError, match=words):
        site.save(**drawn)
    assert site.path.read_text() == before
    assert site.editor.versions() == []


def test_who_drew_on_an_older_file_is_told(site: Site) -> None:
    version = site.editor.drawn("door")["version"]
    site.path.write_text(site.path.read_text() + "# edited by hand\n")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        site.editor.save("door", {"lines": [LINE]}, version)


def test_the_last_versions_are_kept_and_come_back(site: Site) -> None:
    first = site.path.read_text()
    for number in range(MAX_VERSIONS + 3):
        site.save(lines=[{**LINE, "name": f"line-{number}"}])
        if number == 0:
            assert site.editor.versions()[0]["saved_at"].endswith("+00:00")
            (kept,) = (site.state / FOLDER).iterdir()
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600
            site.editor.restore(site.editor.versions()[0]["id"])
            assert site.path.read_text() == first
    assert len(site.editor.versions()) == MAX_VERSIONS
    newest = site.editor.versions()[0]["id"]
    site.editor.restore(newest)
    assert 'name = "line-11"' in site.path.read_text()
    with pytest.raises(ConfigError, match="no version is called"):
        site.editor.restore("../edge")


def test_the_file_keeps_its_rights(site: Site) -> None:
    site.path.chmod(0o640)
    # the daemon's own, which keeps what it makes to itself
    umask = os.umask(0o077)
    try:
        site.save(lines=[LINE])
    finally:
        os.umask(umask)
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o640


def test_a_file_that_may_not_be_written_is_one_sentence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes | str, mode: int | None = None) -> None:
        if path == site.path:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        write_atomic(path, data, mode)

    monkeypatch.setattr(edge.daemon.edit, "write_atomic", refuse)
    with pytest.raises(SinkError, match=r"cannot be written \(Read-only file system\)"):
        site.save(lines=[LINE])


def test_a_full_disk_for_versions_changes_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    before = site.path.read_text()
    with pytest.raises(SinkError, match="nothing was changed"):
        site.save(lines=[LINE])
    assert site.path.read_text() == before
