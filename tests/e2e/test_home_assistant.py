"""A real Home Assistant and a real daemon at one broker: what is seen there, and what is switched from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camera_rig import free_port
from daemon_process import SCENE, Daemon, config_of, daemon, with_tokens
from mosquitto import Broker, Listener
from needs import HOME_ASSISTANT, need
from tiny_models import tiny_model

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "edge/models/street-nano-int8.onnx"
pytestmark = pytest.mark.real_server


class Home:
    """Home Assistant in a process of its own."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        folder.mkdir()
        script = ROOT / "tests/servers/home_assistant.py"
        arguments = [need(HOME_ASSISTANT), str(script), str(folder), str(broker.port), str(free_port())]
        self._log = (folder / "log.txt").open("w")
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._answer() == "ready", (folder / "log.txt").read_text()

    def ask(self, *order: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or "null")

    def states(self) -> dict[str, str]:
        found: dict[str, str] = self.ask("states")
        return found

    def wait_for(self, is_there: Callable[[dict[str, str]], bool], timeout_s: float = 40) -> dict[str, str]:
        deadline = time.monotonic() + timeout_s
        while not is_there(states := self.states()):
            assert time.monotonic() < deadline, states
            time.sleep(0.2)
        return states

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    running.start()
    yield running
    running.end()


@pytest.fixture
def home(tmp_path: Path, broker: Broker) -> Iterator[Home]:
    running = Home(tmp_path / "home", broker)
    yield running
    running.end()


def street(folder: Path, broker: Broker, more: str = "commands = true\n") -> str:
    streams = (
        '[[streams]]\nname = "street"\nsource = "synthetic://street?seed=7&size=640x360&fps=15&live=1"\n'
        f'[streams.record]\nfolder = "{folder}/recordings"\nmode = "continuous"\ncontent = "plain"\n'
        '[[streams.analytics.lines]]\nname = "pavement"\npoints_share = [[0.5, 0.2], [0.5, 0.95]]\n'
        '[[streams.analytics.zones]]\nname = "all of it"\n'
        "points_share = [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]]\n"
    )
    events = (
        f'state_dir = "{folder}/state"\n[events]\nsnapshots = "{folder}/shots"\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndiscovery = "homeassistant"\n{more}'
    )
    return config_of(MODEL, streams, "", events)


def switched_off(running: Daemon) -> list[str]:
    with running.client() as client:
        found: list[str] = client.get("/api/stats").json()["streams"]["street"]["switched_off"]
        return found


def recorded_bytes(folder: Path) -> int:
    """Of pictures: finished files, and the one that is being written."""
    return sum(path.stat().st_size for path in (folder / "recordings" / "street").glob("*") if ".mp4" in path.name)


def test_home_assistant_shows_a_camera_and_switches_it(tmp_path: Path, broker: Broker, home: Home) -> None:
    config = street(tmp_path, broker)
    with daemon(tmp_path, config) as running:
        states = home.wait_for(lambda now: now.get("binary_sensor.street_all_of_it") == "on")
        assert states["binary_sensor.street_connected"] == "on" and states["sensor.street_picture"] == "ok"
        assert states["switch.street_analysis"] == states["switch.street_recording"] == "on"
        states = home.wait_for(lambda now: now.get("sensor.street_pavement_person_out", "").isdigit(), 60)
        assert int(states["sensor.street_pavement_out"]) >= int(states["sensor.street_pavement_person_out"])
        assert "binary_sensor.street_all_of_it_person" in states
        home.wait_for(lambda now: now["image.street_last_event"] != "unknown")
        assert bytes.fromhex(home.ask("image", "image.street_last_event"))[:2] == b"\xff\xd8"

        home.ask("call", "switch.turn_off", "switch.street_analysis")
        states = home.wait_for(lambda now: now["switch.street_analysis"] == "off")
        assert states["binary_sensor.street_all_of_it"] == states["sensor.street_all_of_it_count"] == "unavailable"
        assert states["sensor.street_pavement_out"].isdigit() and states["switch.street_recording"] == "on"
        home.ask("call", "switch.turn_off", "switch.street_recording")
        home.wait_for(lambda now: now["switch.street_recording"] == "off")
        assert switched_off(running) == ["analysis", "recording"]
        time.sleep(1)
        before = recorded_bytes(tmp_path)
        time.sleep(2)
        assert recorded_bytes(tmp_path) == before > 0
        assert running.stop() == 0
    # it stays so over a restart
    with daemon(tmp_path, config) as running:
        running.until(lambda: bool(running.url))
        assert switched_off(running) == ["analysis", "recording"]
        states = home.wait_for(lambda now: now["binary_sensor.street_connected"] == "on")
        assert states["binary_sensor.street_all_of_it"] == "unavailable"
        for part in ("analysis", "recording"):
            home.ask("call", "switch.turn_on", f"switch.street_{part}")
        home.wait_for(lambda now: now["binary_sensor.street_all_of_it"] == "on")
        running.until(lambda: recorded_bytes(tmp_path) > before)
        assert switched_off(running) == []
        assert running.stop() == 0


def test_nobody_switches_anything_unless_that_is_allowed(tmp_path: Path, broker: Broker) -> None:
    with daemon(tmp_path, street(tmp_path, broker, more="")) as running:
        listener = Listener(broker)
        listener.wait_for(lambda got: any(topic == "edge/street/state" for topic, _, _ in got))
        listener.publish("edge/street/analysis/set", "OFF")
        time.sleep(2)
        assert switched_off(running) == []
        assert not [topic for topic, _, _ in listener.got if "/switch/" in topic]
        listener.close()
        assert running.stop() == 0


def test_a_stream_of_a_worker_is_switched_and_stays_so_when_that_is_lost(tmp_path: Path, broker: Broker) -> None:
    streams = "".join(f'[[streams]]\nname = "{name}"\nsource = "{SCENE}"\n' for name in ("door", "yard"))
    more = (
        f'state_dir = "{tmp_path}/state"\n[workers]\ncount = 2\nspare = false\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ncommands = true\n'
    )
    with daemon(tmp_path, config_of(tiny_model(tmp_path / "tiny.onnx"), streams, with_tokens(tmp_path), more)) as run:

        def stats() -> Any:
            with run.client() as client:
                return client.get("/api/stats").json()

        def is_off(name: str) -> bool:
            stream = stats()["streams"][name]
            return stream["switched_off"] == ["analysis"] and stream["counts"].get("drop_switched_off", 0) > 0

        run.wait_for("READY=1", 90)
        listener = Listener(broker)
        listener.wait_for(lambda got: any(topic == "edge/door/state" for topic, _, _ in got))
        run.until(lambda: stats()["streams"]["yard"]["counts"].get("emitted", 0) > 0)
        listener.publish("edge/door/analysis/set", "OFF")
        run.until(lambda: is_off("door"))
        lost = next(worker for worker in stats()["workers"] if "door" in worker["streams"])
        os.kill(lost["pid"], signal.SIGKILL)
        run.until(lambda: lost["pid"] not in {worker["pid"] for worker in stats()["workers"]}, 60)
        run.until(lambda: is_off("door"), 60)
        assert stats()["streams"]["yard"]["switched_off"] == []
        listener.publish("edge/door/analysis/set", "ON")
        run.until(lambda: stats()["streams"]["door"]["switched_off"] == [])
        listener.close()
        assert run.stop() == 0
