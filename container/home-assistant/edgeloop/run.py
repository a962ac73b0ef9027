"""Starts Edgeloop as an add-on: the options and the broker that Home Assistant gives become edge.toml and secret files.

It begins as root, who alone reads the options, and becomes the user edge before the daemon starts.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import sys
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.commands.init import TEMPLATE, filled_in, with_page
from edge.config.camera import Camera
from edge.config.edit import drawn_in, parse_drawn, with_drawn
from edge.config.load import load_config
from edge.errors import ConfigError, EdgeError
from edge.models.shipped import demo_model

DATA = Path("/data")
SUPERVISOR = "http://supervisor"
USER = "edge"
PROGRAM = "/opt/edge/bin/edge"
MIN_TOKEN_CHARS = 16


def main() -> None:
    """Write the configuration, become the user edge, and be the daemon."""
    folder = DATA / "edge"
    folder.mkdir(exist_ok=True)
    options = json.loads((DATA / "options.json").read_text(encoding="utf-8"))
    try:
        config = write_config(folder, options, ask_broker(SUPERVISOR, os.environ["SUPERVISOR_TOKEN"]))
    except EdgeError as error:
        sys.exit(f"error: {error}")
    if os.geteuid() == 0:
        become(USER, folder)
    os.chdir(folder)
    os.environ["HOME"] = str(folder)
    del os.environ["SUPERVISOR_TOKEN"]
    os.execv(PROGRAM, ["edge", "run", str(config)])


def become(name: str, folder: Path) -> None:
    """Be this user from here on, who owns the folder."""
    user = pwd.getpwnam(name)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    os.initgroups(name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def ask_broker(supervisor: str, token: str) -> dict[str, Any]:
    """Host, port, username, password and ssl of the broker that Home Assistant uses."""
    request = urllib.request.Request(f"{supervisor}/services/mqtt", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)["data"]
    return found


def write_config(folder: Path, options: dict[str, Any], broker: dict[str, Any]) -> Path:
    """Write edge.toml and the secrets next to it; the path of the former.

    Raises:
        EdgeError: an option is not as it should be.
    """
    if len(options["token"]) < MIN_TOKEN_CHARS:
        raise EdgeError(f"the option token has {len(options['token'])} characters; expected {MIN_TOKEN_CHARS} or more")
    if not options["streams"]:
        raise EdgeError("no stream is configured; name a camera in the options")
    cameras = []
    for stream in options["streams"]:
        camera = Camera.of(stream["name"], stream["source"])
        given = {key: stream[key] for key in ("username", "password") if stream.get(key)}
        camera = replace(camera, **given)
        camera.write_password(folder)
        cameras.append(camera)
    text = filled_in(TEMPLATE.read_text(encoding="utf-8"), demo_model(cameras[0].source), cameras, folder)
    text = with_page(text, secret(folder / "token", options["token"]))
    text = re.sub(r'(?m)^# host = "127\.0\.0\.1"$', 'host = "0.0.0.0"', text, count=1)
    mqtt = {"host": broker["host"], "port": int(broker["port"]), "discovery": "homeassistant"}
    if options.get("switches"):
        mqtt["commands"] = True
    if broker.get("ssl"):
        mqtt["tls"] = True
    if broker.get("username"):
        mqtt["username"] = broker["username"]
        mqtt["password_file"] = str(secret(folder / "mqtt-password", broker["password"]))
    config = folder / "edge.toml"
    if config.exists():
        text = drawn_again(text, config.read_text(encoding="utf-8"), cameras)
    # JSON's strings, numbers and truth values are TOML's
    config.write_text(text + "\n[mqtt]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in mqtt.items()))
    load_config(config)
    return config


def drawn_again(text: str, before: str, cameras: list[Camera]) -> str:
    """The text with the lines, zones and masks that stood in the file before on cameras of the same name."""
    for camera in cameras:
        # a camera that is new has none
        with suppress(ConfigError, ValueError):
            text = with_drawn(text, camera.name, parse_drawn(drawn_in(before, camera.name)))
    return text


def secret(path: Path, value: str) -> Path:
    """Write a file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value + "\n")
    return path


if __name__ == "__main__":
    main()
