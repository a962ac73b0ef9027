"""A camera that is added runs, its password lies in a file of its own, and what fails leaves no trace of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration.daemon.test_edit import SCENE, Site, site  # noqa: F401

import edge.daemon.edit
from edge.config.camera import Camera
from edge.config.load import load_config
from edge.daemon.cameras import MAX_LOOKS, CameraAdder
from edge.errors import ConfigError, EdgeError, SinkError, UsageError

# the site is a fixture of another file
# ruff: noqa: F811
YARD = Camera("yard", "rtsp://127.0.0.1:1/sub", "rtsp://127.0.0.1:1/main", "admin", "canary-31")


def test_a_camera_that_is_added_becomes_a_stream_and_can_be_taken_back(site: Site) -> None:
    before = site.path.read_text()
    assert site.editor.add(YARD)["name"] == "yard"
    assert site.editor.names() == ["door", "yard"]
    secret = site.path.with_name("yard.password")
    assert secret.read_text() == "canary-31\n" and secret.stat().st_mode & 0o777 == 0o600
    assert "canary" not in site.path.read_text() and site.path.read_text().startswith("# ours\n")
    assert site.reloader.reload().applied == ["stream yard was added"]
    site.wait_for_frames()
    assert set(site.pipeline.streams) == {"door", "yard"}
    site.editor.restore(site.editor.versions()[0]["id"])
    assert site.path.read_text() == before
    assert site.reloader.reload().failed == []
    assert set(site.pipeline.streams) == {"door"}


@pytest.mark.parametrize("name", ["door", "", "../evil", "a/b", "x" * 200, "a\n", "a b"])
def test_a_name_that_cannot_be_writes_nothing(site: Site, name: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in site.path.parent.iterdir()}
    with pytest.raises(ConfigError):
        site.editor.add(Camera(name, YARD.source, password="canary-31"))
    assert {path: path.stat().st_mtime_ns for path in site.path.parent.iterdir()} == before


def test_a_password_file_of_somebody_else_stays(site: Site) -> None:
    secret = site.path.with_name("yard.password")
    secret.write_text("mine")
    with pytest.raises(ConfigError, match="another name"):
        site.editor.add(YARD)
    assert secret.read_text() == "mine"


def test_a_full_disk_leaves_no_password_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edge.daemon.edit, "write_atomic", full)
    with pytest.raises(SinkError, match="No space left"):
        site.editor.add(YARD)
    assert not site.path.with_name("yard.password").exists()
    assert [one.name for one in load_config(site.path).streams] == ["door"]


class NoEditor:
    """Has one stream, and takes what comes."""

    def __init__(self) -> None:
        self.added: list[Camera] = []

    def names(self) -> list[str]:
        return ["camera0"]

    def add(self, camera: Camera) -> dict[str, str]:
        self.added.append(camera)
        return {"name": camera.name}


def test_what_was_looked_at_is_kept_for_a_while_and_added_once() -> None:
    editor = NoEditor()
    adder = CameraAdder(editor)
    for number in range(MAX_LOOKS + 3):
        adder.keep(f"look{number}", Camera("", f"rtsp://h/{number}", password="canary-31"))
    with pytest.raises(ConfigError, match="look at it again"):
        adder.add("look2", "a")
    adder.add("look3", "a")
    with pytest.raises(ConfigError, match="look at it again"):
        adder.add("look3", "b")
    assert [(one.name, one.source) for one in editor.added] == [("a", "rtsp://h/3")]


@pytest.mark.parametrize(
    "place", ["gst:x ! appsink", "/etc/passwd", "synthetic://street", SCENE, "mine://x", "v4l2://0"]
)
def test_only_a_camera_is_looked_at(place: str) -> None:
    with pytest.raises(UsageError, match="expected a camera"):
        CameraAdder(NoEditor()).look(place, "", "")


def test_a_camera_that_is_away_is_no_look(tmp_path: Path) -> None:
    adder = CameraAdder(NoEditor())
    with pytest.raises(EdgeError) as told:
        adder.look("rtsp://admin:canary-31@127.0.0.1:1/x", "", "")
    assert "canary" not in str(told.value)
    with pytest.raises(EdgeError, match="refused"):
        adder.look("127.0.0.1:1", "admin", "canary-31")
