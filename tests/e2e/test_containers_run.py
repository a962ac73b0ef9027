"""What compose.yaml and the add-on start, as processes of this machine: broker, daemon and start script as they are."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from camera_rig import free_port
from daemon_process import COMMAND, daemon
from mosquitto import Broker, Listener
from needs import need
from supervisor import TOKEN, supervisor
from waiting import wait_until

from edge.commands.init import TEMPLATE
from edge.models.shipped import FOLDER as MODELS

pytestmark = pytest.mark.real_server
CONTAINER = Path(__file__).parents[2] / "container"
SECRET = "a-token-of-sixteen-characters"
BROKER_PASSWORD = "canary-7f3a-password"
# run.py with the folders, program and Supervisor of this machine
START = """
import runpy, sys
from pathlib import Path
script, folder, user = sys.argv[1:4]
places = {"DATA": Path(folder), "TEMPLATE": Path(folder, "template.toml"), "PROGRAM": f"{folder}/program"}
main = runpy.run_path(script)["main"]
main.__globals__.update(**places, USER=user, SUPERVISOR=sys.argv[4])
main()
"""


def test_what_compose_starts_works_together(tmp_path: Path) -> None:
    port = free_port()
    lines = (CONTAINER / "mosquitto.conf").read_text()
    lines = lines.replace("listener 1883", f"listener {port} 127.0.0.1").replace("/mosquitto/data/", f"{tmp_path}/")
    broker = Broker(tmp_path, port=port, whole=lines)
    (tmp_path / "token").write_text(SECRET)
    places = {
        "/var/lib/edge": str(tmp_path / "state"),
        "/opt/edge/models": str(MODELS),
        "/run/secrets/token": str(tmp_path / "token"),
        'host = "0.0.0.0"': 'host = "127.0.0.1"\nport = 0',
        'host = "mosquitto"': f'host = "127.0.0.1"\nport = {port}',
    }
    config = (CONTAINER / "edge.toml").read_text()
    for there, here in places.items():
        assert there in config
        config = config.replace(there, here)
    broker.start()
    try:
        listener = Listener(broker)
        with daemon(tmp_path, config) as running:
            running.wait_for("READY=1", 90)
            running.until(lambda: bool(running.url))
            assert httpx.get(f"{running.url}/api/stats").status_code == 401
            shows_it_all(listener, "street")
            listener.publish("edge/street/analysis/set", "OFF")
            with running.client(SECRET) as client:
                running.until(
                    lambda: client.get("/api/stats").json()["streams"]["street"]["switched_off"] == ["analysis"]
                )
            assert running.stop() == 0
        listener.close()
    finally:
        broker.end()


def shows_it_all(listener: Listener, stream: str) -> None:
    """Home Assistant's discovery has an entity of each kind, and the camera's state is told."""
    kinds = {"binary_sensor", "sensor", "switch", "image"}

    def is_told(got: list[tuple[str, str, bool]]) -> bool:
        topics = {topic for topic, _, _ in got}
        found = {topic.split("/")[1] for topic in topics if topic.startswith("homeassistant/")}
        return kinds <= found and f"edge/{stream}/state" in topics

    listener.wait_for(is_told, 60)


def test_the_addon_starts_from_its_options_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run([need("mosquitto_passwd"), "-b", "-c", str(passwords), "addons", BROKER_PASSWORD], check=True)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    data = tmp_path / "data"
    data.mkdir()
    # any free port, as nothing maps it here
    text, count = re.subn(r"(?m)^# port = 8080$", "port = 0", TEMPLATE.read_text(encoding="utf-8"))
    assert count == 1
    (data / "template.toml").write_text(text)
    program = data / "program"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    stream = {"name": "door", "source": "synthetic://street?seed=7&size=320x180&fps=10&live=1"}
    (data / "options.json").write_text(json.dumps({"token": SECRET, "switches": True, "streams": [stream]}))
    login = {"username": "addons", "password": BROKER_PASSWORD}
    broker.start()
    try:
        listener = Listener(broker, **login)
        with supervisor({"host": "127.0.0.1", "port": broker.port, "ssl": False, **login}) as url:
            script = str(CONTAINER / "home-assistant" / "edgeloop" / "run.py")
            command = [sys.executable, "-c", START, script, str(data), getpass.getuser(), url]
            log = tmp_path / "log.txt"
            with log.open("w") as file:
                process = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT, env=clean_environment(), cwd=tmp_path
                )
            try:
                wait_until(lambda: "live page" in log.read_text() or process.poll() is not None)
                found = re.search(r"live page: http://[^:]+:(\d+)", log.read_text())
                assert found is not None, log.read_text()
                page = f"http://127.0.0.1:{found[1]}/api/stats"
                assert httpx.get(page).status_code == 401
                assert httpx.get(page, headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
                shows_it_all(listener, "door")
                process.send_signal(signal.SIGTERM)
                assert process.wait(40) == 0, log.read_text()
            finally:
                process.kill()
                process.wait()
        # Home Assistant is told that it is gone
        listener.wait_for(lambda got: ("edge/status", "offline") in {(topic, said) for topic, said, _ in got})
        listener.close()
    finally:
        broker.end()
    assert BROKER_PASSWORD not in log.read_text()


def clean_environment() -> dict[str, str]:
    """What the Supervisor gives."""
    return {"PATH": os.environ["PATH"], "SUPERVISOR_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
