"""What a camera calls itself is text: it moves no cursor, ends no line of the file, and is no markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from onvif_device import OnvifDevice, Picture, onvif_device

from edge.commands.discover import discover
from edge.errors import SourceError, UsageError


def test_a_strange_name_is_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    picture = Picture("a", "H264", 640, 360, 10, "rtsp://h/x?user=admin&password=canary")
    camera = OnvifDevice([picture], auth="none", maker="[red]evil\u202e\u200b[/red]", model="\u009b2Jx")
    with onvif_device(camera):
        discover([f"127.0.0.1:{camera.port}"], wait=0.2)
    told = capsys.readouterr().out
    assert "[red]evil" in told and "640x360" in told
    assert "\u202e" not in told and "\u009b" not in told and "\x1b" not in told
    assert "canary" not in told


def test_pictures_without_an_address_are_told_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = OnvifDevice([Picture("a", "H264", 640, 360, 10, "http://h/x")], auth="none")
    with onvif_device(camera), pytest.raises(SourceError, match="nothing was written"):
        discover([f"127.0.0.1:{camera.port}"], write=tmp_path / "edge.toml", wait=0.2)
    assert "no profile has an RTSP address" in " ".join(capsys.readouterr().out.split())
    assert not list(tmp_path.iterdir())


def test_a_password_needs_its_user(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret")
    with pytest.raises(UsageError, match="--username"):
        discover(["127.0.0.1:9"], password_file=tmp_path / "pw")
