"""From nothing to a checked edge.toml: a camera is found on the network, and its two pictures are what is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from camera_rig import free_port
from daemon_process import COMMAND
from onvif_device import OnvifDevice, two_pictures

from edge.config.load import load_config

pytestmark = pytest.mark.real_server
PASSWORD = 'canary "p@ss/w#rd" 31'


@pytest.fixture(scope="module")
def camera() -> Iterator[OnvifDevice]:
    with two_pictures(PASSWORD) as device:
        yield device


def edge(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    assert "canary" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_camera_is_found_written_and_checked(camera: OnvifDevice, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(PASSWORD + "\n")
    login = ("--username", "admin", "--password-file", "pw")
    found = json.loads(edge(tmp_path, "discover", "--json", "--wait", "1.5").stdout)
    own = [one for one in found["cameras"] if f":{camera.port}/" in one["url"]]
    assert len(own) == 1 and own[0]["wants_login"] and not own[0]["profiles"]

    done = edge(tmp_path, "discover", f"{own[0]['host']}:{camera.port}", *login, "--write", "edge.toml")
    assert done.returncode == 0, done.stderr
    for words in ("Testmaker TM-2 <&>", "1280x720", "640x360", "H264", "record_source"):
        assert words in done.stdout
    config = load_config(tmp_path / "edge.toml")
    (stream,) = config.streams
    assert stream.source.endswith("/sub") and stream.record_source is not None
    assert stream.record_source.endswith("/main")
    # whatever host it names, the password goes to the one that was asked
    assert own[0]["host"] in stream.source and own[0]["host"] in stream.record_source
    assert stream.username == "admin" and stream.password_file is not None
    assert stream.password_file.stat().st_mode & 0o777 == 0o600
    assert stream.password_file.read_text() == PASSWORD + "\n"
    text = (tmp_path / "edge.toml").read_text()
    assert "canary" not in text

    (tmp_path / "edge.toml").write_text(text.replace("# port = 8080", f"port = {free_port()}"))
    checked = edge(tmp_path, "check", "edge.toml", "--json")
    rows = json.loads(checked.stdout)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    sources = [row for row in rows if row["kind"] in ("stream", "source", "record_source")]
    assert "640x360" in json.dumps(sources)

    # a second time nothing is written twice
    before = (tmp_path / "edge.toml").read_text()
    again = edge(tmp_path, "discover", f"{own[0]['host']}:{camera.port}", *login, "--write", "edge.toml")
    assert again.returncode == 0 and "already" in again.stderr
    assert (tmp_path / "edge.toml").read_text() == before


def test_a_camera_joins_those_that_are_there(camera: OnvifDevice, tmp_path: Path) -> None:
    done = edge(tmp_path, "init", "--source", "rtsp://10.0.0.2/one")
    before = (tmp_path / "edge.toml").read_text()
    (tmp_path / "pw").write_text(PASSWORD)
    place = f"127.0.0.1:{camera.port}"
    done = edge(tmp_path, "discover", place, "--username", "admin", "--password-file", "pw", "--write", "edge.toml")
    assert done.returncode == 0, done.stderr
    after = (tmp_path / "edge.toml").read_text()
    streams = load_config(tmp_path / "edge.toml").streams
    assert [one.name for one in streams] == ["10-0-0-2", "127-0-0-1"]
    assert [line for line in before.splitlines() if line not in after.splitlines()] == []
    assert after.index("127-0-0-1") < after.index("The live page and API")


def test_a_wrong_password_writes_nothing(camera: OnvifDevice, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("canary-but-wrong")
    place = f"127.0.0.1:{camera.port}"
    done = edge(tmp_path, "discover", place, "--username", "admin", "--password-file", "pw", "--write", "edge.toml")
    assert done.returncode == 1 and re.search(r"no camera told its pictures", done.stderr)
    assert "not Authorized" in done.stdout
    assert not (tmp_path / "edge.toml").exists() and [path.name for path in tmp_path.iterdir()] == ["pw"]


def test_who_is_not_there_is_named(tmp_path: Path) -> None:
    done = edge(tmp_path, "discover", f"127.0.0.1:{free_port()}")
    assert done.returncode == 0 and "refused" in done.stdout
