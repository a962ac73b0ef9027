"""What edge init writes is valid, keeps the comments, and holds no password."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.commands import init as command
from edge.commands.init import TEMPLATE, init
from edge.config.camera import Camera
from edge.config.load import load_config
from edge.daemon.credentials import MIN_TOKEN_CHARS
from edge.errors import UsageError


def comments(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith("#")}


def test_the_file_is_the_manual_with_the_cameras_in_it(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    init(path, source=["0", "rtsp://10.0.0.2/one", "0"])
    config = load_config(path)
    assert [(stream.name, stream.source) for stream in config.streams] == [
        ("camera0", "0"),
        ("10-0-0-2", "rtsp://10.0.0.2/one"),
        ("camera0-3", "0"),
    ]
    assert config.server.enabled
    assert config.state_dir == tmp_path / "state"
    assert config.models[0].path.is_file()
    taken = {'# state_dir = "/var/lib/edge"', "# can_edit = false", '# token_file = "token"'}
    assert comments(TEMPLATE.read_text()) - comments(path.read_text()) == taken


def test_the_page_asks_for_a_token_and_saves_what_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    init(path, source=["0"])
    server = load_config(path).server
    assert server.can_edit and server.token_file == tmp_path / "token"
    first = (tmp_path / "token").read_text()
    assert len(first.strip()) >= MIN_TOKEN_CHARS
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    init(path, source=["1"], force=True)
    assert (tmp_path / "token").read_text() == first, "who knows it shall not be locked out"


@pytest.mark.parametrize(
    ("address", "host", "port"), [("broker.lan", "broker.lan", None), ("::1", None, None), ("[::1]:1884", "::1", 1884)]
)
def test_events_go_to_a_broker(tmp_path: Path, address: str, host: str | None, port: int | None) -> None:
    path = tmp_path / "edge.toml"
    if host is None:
        with pytest.raises(UsageError, match="HOST or HOST:PORT"):
            init(path, source=["0"], mqtt=address)
        assert not path.exists()
        return
    init(path, source=["0"], mqtt=address)
    (broker,) = load_config(path).mqtt
    assert (broker.host, broker.port) == (host, port)


def test_a_password_goes_into_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    init(path, source=["rtsp://admin:canary%2Fword@10.0.0.2/one"])
    (stream,) = load_config(path).streams
    assert "canary" not in path.read_text()
    assert (stream.source, stream.username) == ("rtsp://10.0.0.2/one", "admin")
    assert stream.password_file is not None
    assert stream.password_file.read_text() == "canary/word\n"
    assert stream.password_file.stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"edge\.toml exists"):
        init(path, source=["0"])
    assert path.read_text() == "mine"
    init(path, source=["0"], force=True)
    assert load_config(path).streams[0].source == "0"


def test_without_a_camera_the_built_in_street_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "plugged_in", list)
    init(tmp_path / "edge.toml")
    assert load_config(tmp_path / "edge.toml").streams[0].source.startswith("synthetic://street")


def test_odd_characters_stay_what_they_are(tmp_path: Path) -> None:
    camera = Camera("a", 'gst:videotestsrc name="x" ! appsink')
    assert camera.lines(tmp_path).splitlines()[1] == 'source = "gst:videotestsrc name=\\"x\\" ! appsink"'
