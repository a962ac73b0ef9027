"""A real daemon, a real broker, a real webhook: events arrive without a secret in them, and a stop says goodbye."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from daemon_process import config_of, daemon, with_tokens
from e2e.test_secrets import CANARY, leaks
from mosquitto import Broker, Listener
from needs import need
from tiny_models import tiny_model

from edge.chaos.camera import ChaosCamera

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(180)]


class Hook(ThreadingHTTPServer):
    """Keeps what is posted to it: headers and body, without the address and the login, which are secrets themselves."""

    daemon_threads = True

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), HookHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class HookHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "authorization"}
        self.server.got.append((json.dumps(headers), body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    running = Hook()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    passwords = tmp_path / "passwords"
    subprocess.run([need("mosquitto_passwd"), "-b", "-c", str(passwords), "edge", CANARY], check=True)
    lines = ["allow_anonymous false", f"password_file {passwords}", f"log_dest file {tmp_path}/mosquitto.log"]
    running = Broker(tmp_path, *lines, "log_type all")
    running.start()
    yield running
    running.end()


@pytest.fixture
def camera() -> Iterator[ChaosCamera]:
    running = ChaosCamera()
    yield running
    running.close()


def config_with_targets(folder: Path, camera: ChaosCamera, port: int, hook_port: int) -> str:
    """A camera that will freeze, with a secret in its address, and targets with secrets in every slot."""
    secret = quote(CANARY, safe="")
    model = tiny_model(folder / "tiny.onnx")
    (folder / "password").write_text(CANARY)
    streams = (
        f'[[streams]]\nname = "door"\n'
        f'source = "http://viewer:{secret}@127.0.0.1:{camera.port}/cam.mjpg?token={secret}"\n'
        "retry_base_s = 0.2\nretry_cap_s = 0.5\n[streams.health]\nfrozen_s = 1.0\nhold_s = 0\n"
    )
    more = (
        f'state_dir = "{folder}/state"\nstop_timeout_s = 8\n'
        f'[events]\nsnapshots = "{folder}/shots"\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nusername = "edge"\npassword_file = "{folder}/password"\n'
        'discovery = "homeassistant"\n'
        f'[[webhooks]]\nurl = "http://u:{secret}@127.0.0.1:{hook_port}/hook?token={secret}"\n'
        f'secret_file = "{folder}/password"\n'
    )
    return config_of(model, streams, with_tokens(folder), more)


def kinds(listener: Listener) -> list[str]:
    return [json.loads(text)["kind"] for topic, text, _ in listener.got if topic.endswith("/events")]


def test_delivered_events_hold_no_secret(tmp_path: Path, broker: Broker, hook: Hook, camera: ChaosCamera) -> None:
    listener = Listener(broker, username="edge", password=CANARY)
    config = config_with_targets(tmp_path, camera, broker.port, hook.server_address[1])
    with daemon(tmp_path, config, arguments=("--debug",)) as running:
        running.wait_for("READY=1")
        running.until(lambda: "streaming" in running.text, 40)
        camera.set_fault("frozen")
        listener.wait_for(lambda _: "camera_frozen" in kinds(listener), 40)
        camera.set_fault("refuse")
        running.until(lambda: "backing_off" in running.text, 40)
        camera.set_fault("none")
        listener.wait_for(lambda _: kinds(listener).count("camera_recovered") >= 2, 40)
        running.until(lambda: len(hook.got) >= 4, 20)
        assert running.stop() == 0
    listener.close()
    bodies = [json.loads(text) for topic, text, _ in listener.got if topic.endswith("/events")]
    told = [body for body in bodies if body["kind"] in ("camera_offline", "camera_recovered")]
    assert told[0]["kind"] == "camera_offline"
    assert "cam.mjpg" in told[0]["data"]["reason"]
    assert ("camera_recovered", "offline") in [(body["kind"], body["data"].get("from")) for body in told[1:]]
    assert leaks("\n".join(f"{topic} {text}" for topic, text, _ in listener.got)) == []
    assert leaks("\n".join(headers + body for headers, body in hook.got)) == []
    assert leaks(running.text) == []
    assert leaks("\n".join(str(path) for path in (tmp_path / "shots").iterdir())) == []


def test_a_stop_says_goodbye_to_the_broker_in_time(
    tmp_path: Path, broker: Broker, hook: Hook, camera: ChaosCamera
) -> None:
    listener = Listener(broker, "edge/status", username="edge", password=CANARY)
    config = config_with_targets(tmp_path, camera, broker.port, hook.server_address[1])
    with daemon(tmp_path, config) as running:
        running.wait_for("READY=1")
        listener.wait_for(lambda got: [text for _, text, _ in got] == ["online"], 40)
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        spent_s = time.monotonic() - began
    listener.wait_for(lambda got: [text for _, text, _ in got] == ["online", "offline"], 10)
    listener.close()
    late = Listener(broker, "edge/status", username="edge", password=CANARY)
    late.wait_for(lambda got: ("edge/status", "offline", True) in got, 10)
    late.close()
    broker.end(signal.SIGTERM)
    ours = [line for line in (tmp_path / "mosquitto.log").read_text().splitlines() if "edgeloop-" in line]
    # the broker would send the will, which says the same, to a client that vanishes
    assert any("Received DISCONNECT from edgeloop-" in line for line in ours), ours[-5:]
    assert spent_s < 8
    print(f"\nstopped and said goodbye after {spent_s:.1f} s")
