"""The daemon as systemd and its users meet it: watchdog, reload, model swap, roles, hostile clients, a clean end."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import COMMAND, SCENE, TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from needs import need
from tiny_models import tiny_model

from edge.server.metrics import DEVICE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PIPE_BYTES = 4096
QUICK_SWAP = "[swap]\nshadow_frames = 3\nprobation_s = 0.2\nmax_slowdown = 1000\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Daemon]:
    """One daemon for the tests that only ask."""
    folder = tmp_path_factory.mktemp("served")
    server = with_tokens(folder, "can_reload = true\ncan_swap = true\n")
    night = f'[night]\nenabled = false\nfolder = "{folder}/night"\nteachers = ["t.onnx"]\nsealed = ["coco:s.json"]\n'
    told = '[[notify]]\npush = true\ncontact = "mailto:me@example.org"\n'
    more = f'state_dir = "{folder}/state"\n{QUICK_SWAP}\n{night}\n{told}'
    with daemon(folder, config_of(model, server=server, more=more)) as running:
        running.wait_for("READY=1")
        deadline = time.monotonic() + 20
        while "emitted" not in stats(running)["streams"]["door"]["counts"] and time.monotonic() < deadline:
            time.sleep(0.05)
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.text


def stats(running: Daemon) -> Any:
    with running.client() as client:
        return client.get("/api/stats").json()


def num_feeds(running: Daemon, seconds: float) -> int:
    return sum(message == "WATCHDOG=1" for message in running.receive(seconds))


# watchdog


class StuckSink:
    """A named pipe whose reader takes nothing until told."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.reader, 1031, PIPE_BYTES)  # F_SETPIPE_SZ

    def drain(self) -> None:
        try:
            while os.read(self.reader, 65536):
                pass
        except BlockingIOError:
            return


def stream_into(path: Path, name: str = "door") -> str:
    return f'[[streams]]\nname = "{name}"\nsource = "{SCENE}"\nsinks = ["jsonl:{path}"]\n'


def test_a_sink_that_hangs_stops_the_feed_and_a_restart_recovers(tmp_path: Path, model: Path) -> None:
    """The test plays systemd with WatchdogSec=2: what it measures is the time without results."""
    sink = StuckSink(tmp_path / "pipe")
    config = config_of(model, stream_into(tmp_path / "pipe"))
    with daemon(tmp_path, config) as running:
        running.wait_for("READY=1")
        while num_feeds(running, 0.5):
            sink.drain() if len(running.messages) < 8 else None
        hung = time.monotonic()
        # it is not fed while the stage hangs, whatever else goes on
        assert num_feeds(running, 1.0) == 0
        running.until(lambda: "output of door has made no progress" in running.text, 15)
        running.process.send_signal(signal.SIGABRT)
        assert running.process.wait(20) == -signal.SIGABRT
        # whose stack was it? the journal says so
        assert "Current thread" in running.text or "Thread 0x" in running.text
    sink.drain()
    with daemon(tmp_path, config) as running:
        running.wait_for("WATCHDOG=1")
        sink.drain()
        assert time.monotonic() - hung < 40
    os.close(sink.reader)


def test_a_stage_that_goes_on_is_fed_again(tmp_path: Path, model: Path) -> None:
    sink = StuckSink(tmp_path / "pipe")
    with daemon(tmp_path, config_of(model, stream_into(tmp_path / "pipe"))) as running:
        running.wait_for("READY=1")
        while num_feeds(running, 0.5):
            pass
        assert num_feeds(running, 1.0) == 0
        for _ in range(10):
            sink.drain()
            if num_feeds(running, 0.3):
                break
        else:
            pytest.fail("no feed although the sink takes again")
    os.close(sink.reader)


def test_offline_cameras_and_stopped_decoders_do_not_stop_the_feed(tmp_path: Path, model: Path) -> None:
    streams = (
        '[[streams]]\nname = "offline"\nsource = "rtsp://127.0.0.1:1/x"\nretry_cap_s = 60\nretry_base_s = 60\n'
        f'[[streams]]\nname = "stopped"\nsource = "{SCENE}"\nisolation = "process"\nstall_timeout_s = 1\n'
    )
    with daemon(tmp_path, config_of(model, streams)) as running:
        running.wait_for("READY=1")
        running.until(lambda: "stopped: streaming" in running.text and "offline: backing_off" in running.text)
        for child in children_of(running.process.pid):
            os.kill(child, signal.SIGSTOP)
        running.until(lambda: "stopped: backing_off" in running.text)
        assert num_feeds(running, 1.0) >= 1
        assert "has made no progress" not in running.text


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


# reload


def test_a_reload_changes_streams_and_leaves_the_others_alone(tmp_path: Path, model: Path) -> None:
    camera = f'[[streams]]\nname = "{{}}"\nsource = "{SCENE}"\n'
    with daemon(tmp_path, config_of(model, camera.format("a") + camera.format("b"))) as running:
        running.wait_for("READY=1")
        running.until(lambda: stats(running)["streams"]["a"]["counts"].get("emitted", 0) > 5)
        before = stats(running)["streams"]["a"]["counts"]
        # b goes, c comes, and the port cannot be changed while it runs
        text = config_of(model, camera.format("a") + camera.format("c")).replace("port = 0", "port = 1234")
        (tmp_path / "edge.toml").write_text(text)
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: "needs a restart: server is read at the start" in running.text)
        running.until(lambda: stats(running)["streams"].get("c", {}).get("counts", {}).get("emitted", 0) > 3)
        after = stats(running)
        assert set(after["streams"]) == {"a", "c"}
        assert after["streams"]["a"]["counts"]["emitted"] > before["emitted"]
        assert "reconnects" not in after["streams"]["a"]["counts"]
        assert after["config"]["last_reload"]["applied"] == ["stream b was removed", "stream c was added"]
        # a broken file changes nothing, and says so
        (tmp_path / "edge.toml").write_text(text.replace("source", "sauce"))
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: "nothing was changed, the last good configuration goes on" in running.text)
        running.until(lambda: stats(running)["config"]["state"] == "safe")
        state = stats(running)["config"]
        assert "did you mean 'streams.0.source'?" in state["reason"]
        assert running.stop() == 0


def test_a_broken_file_starts_the_last_good_configuration_and_says_so(tmp_path: Path, model: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "last-good.toml").write_text(config_of(model))
    with daemon(tmp_path, "[model]\npath = 5\n", env={"STATE_DIRECTORY": str(state)}) as running:
        running.wait_for("READY=1")
        assert any("safe mode" in message for message in running.messages + running.receive(1.0))
        assert "the last good configuration runs" in running.text
        assert stats(running)["config"]["state"] == "safe"
        assert running.stop() == 0


def test_counts_and_events_are_kept_where_systemd_says(tmp_path: Path, model: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    zone = '[[streams.analytics.zones]]\nname = "all"\npoints_share = [[0, 0], [1, 0], [1, 1], [0, 1]]\n'
    config = config_of(model, f'[[streams]]\nname = "door"\nsource = "{SCENE}"\n{zone}', more="[events]\n")
    with daemon(tmp_path, config, env={"STATE_DIRECTORY": str(state)}) as running:
        running.wait_for("READY=1")
        running.until(lambda: stats(running)["streams"]["door"]["counts"].get("emitted", 0) > 5)
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: "last_reload" in stats(running)["config"])
        assert stats(running)["config"]["last_reload"]["needs_restart"] == []
        assert running.stop() == 0
    assert {path.name for path in state.iterdir()} >= {"door.analytics.json", "events.db"}


def test_a_stream_with_a_wrong_class_is_refused_and_the_others_go_on(tmp_path: Path, model: Path) -> None:
    zone = '[[streams.analytics.zones]]\nname = "all"\npoints_share = [[0, 0], [1, 0], [1, 1]]\nclasses = ["persn"]\n'
    with daemon(tmp_path, config_of(model)) as running:
        running.wait_for("READY=1")
        with (tmp_path / "edge.toml").open("a") as file:
            file.write(f'[[streams]]\nname = "yard"\nsource = "{SCENE}"\n{zone}')
        running.process.send_signal(signal.SIGHUP)
        running.until(lambda: "did you mean 'person'?" in running.text)

        def emitted() -> int:
            return int(stats(running)["streams"]["door"]["counts"].get("emitted", 0))

        before = emitted()
        running.until(lambda: emitted() > before)
        assert running.stop() == 0


# model swap


def edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=90, check=False)


def test_a_model_is_swapped_by_command_and_comes_back_after_a_restart(tmp_path: Path) -> None:
    first = tiny_model(tmp_path / "first.onnx")
    tiny_model(tmp_path / "second.onnx", scores=(0.85, 0.75))
    tiny_model(tmp_path / "blind.onnx", scores=(0.0, 0.0))
    config = config_of(
        first, server=with_tokens(tmp_path, "can_swap = true\n"), more=f'state_dir = "{tmp_path}/state"\n{QUICK_SWAP}'
    )
    token = ("--token-file", str(tmp_path / "token"))
    with daemon(tmp_path, config) as running:
        running.wait_for("READY=1")
        running.until(lambda: bool(running.url))
        done = edge("swap", "second.onnx", "--url", running.url, *token)
        assert done.returncode == 0, done.stderr
        assert "model runs second.onnx now" in done.stdout
        refused = edge("swap", "blind.onnx", "--url", running.url, *token, "--json")
        assert refused.returncode == 1
        assert "blind.onnx was refused in phase shadow: both models agree on 0%" in refused.stderr
        with running.client() as client:
            assert client.get("/api/models").json()["model"]["file"] == "second.onnx"
        explained = edge("explain", "--url", running.url, *token)
        assert "the busiest thread is" in explained.stdout, explained.stderr
        assert "a frame takes" in explained.stdout
        assert running.stop() == 0
    with daemon(tmp_path, config) as running:
        running.wait_for("READY=1")
        assert "runs second.onnx, swapped in earlier in place of first.onnx" in running.text


@pytest.mark.parametrize("path", ["../tiny.onnx", "/etc/passwd", "", ".hidden", "nothing.onnx", "a/b.onnx"])
def test_only_files_beside_the_model_can_be_named(path: str, served: Daemon) -> None:
    with served.client() as client:
        answer = client.post("/api/models/model/swap", json={"path": path})
    assert answer.status_code == 409
    assert "passwd" not in answer.text or "expected the name of a file" in answer.text


# who may do what


def routes(running: Daemon) -> dict[str, list[str]]:
    with running.client() as client:
        paths = client.get("/api/openapi.json").json()["paths"]
    return {path.replace("{name}", "door"): [method.upper() for method in methods] for path, methods in paths.items()}


def test_every_route_and_method_needs_a_token(served: Daemon) -> None:
    known = routes(served)
    assert {"/api/reload", "/api/models/door/swap", "/metrics", "/api/stats"} <= set(known)
    assert {
        "/api/push",
        "/api/push/phones",
        "/api/push/phones/{id}",
        "/api/snoozes",
        "/api/snoozes/{id}",
        "/snooze",
    } <= set(known)
    with httpx.Client(base_url=served.url) as client:
        for path in [*known, "/", "/app.js", "/nothing", "/api/../api/stats"]:
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
                answer = client.request(method, path)
                assert answer.status_code == (401 if path != "/healthz" else 200 if method in ("GET", "HEAD") else 405)


@pytest.mark.parametrize(
    ("token", "method", "path", "status"),
    [
        (VIEW_TOKEN, "GET", "/api/stats", 200),
        (VIEW_TOKEN, "GET", "/api/models", 200),
        (VIEW_TOKEN, "POST", "/api/reload", 403),
        (VIEW_TOKEN, "POST", "/api/models/model/swap", 403),
        (TOKEN, "POST", "/api/models/nobody/swap", 404),
        (VIEW_TOKEN, "GET", "/api/streams/door/drawn", 403),
        (VIEW_TOKEN, "PUT", "/api/streams/door/drawn", 403),
        (VIEW_TOKEN, "GET", "/api/config/versions", 403),
        (VIEW_TOKEN, "POST", "/api/config/versions", 403),
        (VIEW_TOKEN, "GET", "/api/questions", 200),
        (VIEW_TOKEN, "GET", "/api/night", 200),
        (VIEW_TOKEN, "GET", "/api/night/page", 200),
        (TOKEN, "POST", "/api/night", 405),
        (VIEW_TOKEN, "PUT", "/api/questions/0", 403),
        # it operates, and the configuration does not allow it
        (TOKEN, "PUT", "/api/streams/door/drawn", 403),
        (TOKEN, "POST", "/api/config/versions", 403),
        (TOKEN, "PUT", "/api/questions/0", 403),
        (TOKEN, "POST", "/api/stats", 405),
        (TOKEN, "GET", "/api/reload", 404),
    ],
)
def test_the_view_token_changes_nothing(token: str, method: str, path: str, status: int, served: Daemon) -> None:
    with served.client(token) as client:
        assert client.request(method, path, json={"path": "x.onnx"}).status_code == status


def test_a_token_in_the_address_or_a_cookie_changes_nothing(served: Daemon) -> None:
    assert httpx.post(f"{served.url}/api/reload?token={TOKEN}").status_code == 403
    with httpx.Client(base_url=served.url) as client:
        client.get(f"/?token={TOKEN}")
        assert client.get("/api/stats").status_code == 200
        assert client.post("/api/reload").status_code == 403


LINE = {"name": "gate", "points_share": [[0.1, 0.5], [0.9, 0.5]]}


def test_lines_are_saved_over_the_api_and_nonsense_is_one_sentence(tmp_path: Path, model: Path) -> None:
    server = with_tokens(tmp_path, "can_edit = true\n")
    with daemon(tmp_path, config_of(model, server=server, more=f'state_dir = "{tmp_path}/state"\n')) as running:
        running.wait_for("READY=1")
        before = (tmp_path / "edge.toml").read_text()
        with running.client() as client:
            route = "/api/streams/door/drawn"
            now = client.get(route).json()
            assert now == {"version": now["version"], "lines": [], "zones": [], "masks": [], "score": None}
            dice = random.Random(4)
            for body in (b"", b"[]", b"{}", b'{"version": 1}', b"\xff", b'{"version": "x", "lines": 3}', b"[" * 30_000):
                assert client.put(route, content=body).status_code in (400, 409), body[:20]
            whole = json.dumps({**now, "lines": [LINE]}).encode()
            for _ in range(200):
                data = bytearray(whole)
                for _ in range(dice.randrange(1, 4)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
                answer = client.put(route, content=bytes(data))
                assert answer.status_code in (200, 400, 409)
                if answer.status_code == 200:
                    assert tomllib.loads((tmp_path / "edge.toml").read_text())
                    (tmp_path / "edge.toml").write_text(before)
            assert client.put(route, content=b"x" * 70_000).status_code == 413
            assert client.put("/api/streams/attic/drawn", json=now).status_code == 404
            assert client.post("/api/config/versions", json={"restore": "../../edge"}).status_code == 409
            assert client.put(route, json={**now, "lines": [LINE]}).status_code == 200
            running.until(lambda: "gate" in stats(running)["streams"]["door"]["analytics"].get("lines", {}))
            versions = client.get("/api/config/versions").json()["versions"]
            assert client.post("/api/config/versions", json={"restore": versions[0]["id"]}).status_code == 200
            assert (tmp_path / "edge.toml").read_text() == before
        assert running.stop() == 0
        assert "Traceback" not in running.text


def test_orders_are_off_unless_allowed(tmp_path: Path, model: Path) -> None:
    with daemon(tmp_path, config_of(model, server=with_tokens(tmp_path))) as running:
        running.wait_for("READY=1")
        with running.client() as client:
            assert "server.can_reload = true" in client.post("/api/reload").text
            assert client.post("/api/models/model/swap", json={"path": "x"}).status_code == 403
            assert "server.can_edit = true" in client.get("/api/streams/door/drawn").text
            for ask, key in (("what-if", "server.can_edit = true"), ("test", "server.can_add_tests = true")):
                assert key in client.post("/api/questions", json={"ask": ask, "stream": "door"}).text
            assert "[track_store]" in client.post("/api/questions", json={"ask": "why", "stream": "door", "at": 1}).text
        # guesses are counted, and keep nobody out who has the right token
        with httpx.Client(base_url=running.url) as client:
            codes = [client.get("/api/stats", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(12)]
        assert codes == [401] * 10 + [429] * 2
        answer = httpx.get(f"{running.url}/api/stats", headers={"Authorization": "Bearer 13"})
        assert 0 < int(answer.headers["retry-after"]) <= 60
        with running.client() as client:
            assert client.get("/api/stats").status_code == 200


def test_https_by_certificate_files(tmp_path: Path, model: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, "-keyout", key, "-out", cert, *subject], check=True, capture_output=True)
    tls = f'tls_cert_file = "{cert}"\ntls_key_file = "{key}"\n'
    with daemon(tmp_path, config_of(model, server=with_tokens(tmp_path, tls))) as running:
        running.wait_for("READY=1")
        assert running.url.startswith("https://")
        with running.client(verify=ssl.create_default_context(cafile=str(cert))) as client:
            assert client.get("/api/stats").status_code == 200
            del client.headers["authorization"]
            assert "Secure" in client.get(f"/?token={TOKEN}").headers["set-cookie"]
        with pytest.raises(httpx.HTTPError):
            httpx.get(running.url.replace("https", "http"))
        asked = edge("explain", "--url", running.url, "--token-file", str(tmp_path / "token"), "--ca-file", str(cert))
        assert asked.returncode == 0, asked.stderr


# hostile clients


def open_many(stack: ExitStack, port: int, count: int, data: bytes) -> list[socket.socket]:
    found = []
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        if data:
            connection.sendall(data)
        found.append(connection)
    return found


def emitted(running: Daemon) -> int:
    return int(stats(running)["streams"]["door"]["counts"]["emitted"])


def test_a_thousand_idle_and_slow_connections_leave_the_streams_alone(served: Daemon) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    before, started = emitted(served), time.monotonic()
    with ExitStack() as stack:
        open_many(stack, port, 900, b"")
        slow = open_many(stack, port, 100, b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        for connection in slow:
            try:
                connection.sendall(b"b")
            except OSError:
                continue
        # whoever asks properly is served meanwhile
        assert httpx.get(f"{served.url}/healthz", timeout=5).status_code == 200
        until = time.monotonic() + 2
        while time.monotonic() < until:
            time.sleep(0.1)
        rate = (emitted(served) - before) / (time.monotonic() - started)
        files = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
    assert rate > 10, f"{rate:.1f} of 20 frames per second"
    assert files < 400


def fuzzed_request(dice: random.Random, known: dict[str, list[str]]) -> tuple[str, str, dict[str, Any]]:
    """A request that a program gone wrong, or somebody who means no good, might send."""
    odd = ["", "..", "%00", "%2e%2e%2f", "a" * 3000, "\u00e4\u6f22", "door", "'\"<script>", "-1", "1e999", "nan", "{}"]
    path = dice.choice(list(known))
    if dice.random() < 0.3:
        path = "/" + "/".join(
            dice.choice([*odd, "api", "stream", "snapshot", "models"]) for _ in range(dice.randint(1, 4))
        )
    elif dice.random() < 0.3:
        path = path.replace("door", dice.choice(odd))
    method = dice.choice(["GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"])
    bodies: list[Any] = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 20_000, b"1" * 70_000]
    bodies += [json.dumps({"path": dice.choice(odd), "classes": dice.choice([{}, [], {"a": 1}, {"a": "b"}])}).encode()]
    options: dict[str, Any] = {
        "params": {dice.choice(["fps", "streams", "seen", "before", "from", "zones", "x", "token"]): dice.choice(odd)}
    }
    # a token that is wrong too often would end the test
    options["params"].pop("token", None)
    if method in ("POST", "PUT"):
        options["content"] = dice.choice(bodies)
    headers = {"last-event-id": dice.choice(["", "door=1", "door=x,=,a==", "door=9999999999999999999999"])}
    headers["cookie"] = dice.choice(["", "edgeloop=x", 'edgeloop="', ";;;=", "edgeloop=" + "a" * 4000])
    options["headers"] = headers
    return method, path, options


@pytest.mark.parametrize("count", [600, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_no_request_breaks_the_server(count: int, served: Daemon) -> None:
    known = routes(served)
    dice = random.Random(8)
    seen: dict[int, int] = {}
    memory = []
    with served.client() as client:
        for number in range(count):
            method, path, options = fuzzed_request(dice, known)
            headers = {**options.pop("headers")}
            try:
                with client.stream(method, path, headers=headers, timeout=5, **options) as answer:
                    seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                    assert answer.status_code < 500 or answer.status_code == 503, f"{method} {path} {options}"
                    if "stream" not in answer.headers.get("content-type", "") and "mixed" not in str(answer.headers):
                        text = answer.read().decode("utf-8", "replace")
                        assert "Traceback" not in text
            except httpx.InvalidURL:
                continue
            if number % (count // 4) == 0:
                memory.append(stats(served)["process"]["rss_mb"])
    assert {200, 400, 404, 405} <= set(seen)
    # some addresses are too odd even for the client
    assert sum(seen.values()) > 0.9 * count, seen
    assert "Traceback" not in served.text
    assert memory[-1] < memory[1] * 1.2 + 20


def test_raw_rubbish_on_the_port_is_answered_or_closed(served: Daemon) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    dice = random.Random(9)
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            rubbish = dice.choice(
                [dice.randbytes(200), b"GET /" + dice.randbytes(40), b"\x16\x03\x01" + dice.randbytes(60)]
            )
            connection.sendall(rubbish + b"\r\n\r\n")
            connection.settimeout(0.02)
            try:
                answer = connection.recv(100)
            except OSError:
                continue
            assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert httpx.get(f"{served.url}/healthz").status_code == 200


# figures


def test_metrics_name_drops_reconnects_memory_and_stages(served: Daemon) -> None:
    with served.client() as client:
        text = client.get("/metrics").text
    for name in (
        "edgeloop_frames_total",
        "edgeloop_stage_ms",
        "edgeloop_process_rss_bytes",
        "edgeloop_process_threads",
    ):
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name
    assert "edgeloop_config_safe_mode 0.0" in text
    dashboard = json.loads((Path(__file__).parents[2] / "systemd" / "grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"edgeloop_\w+", target["expr"])
    }
    # what the machine of the tests has not: a GPU, a governor that is switched on
    known = set(re.findall(r"^# TYPE (edgeloop_\w+)", text, re.MULTILINE)) | {name for name, _, _ in DEVICE.values()}
    assert asked
    assert asked <= known | {"edgeloop_governor_share"}


def test_logs_are_json_where_asked(tmp_path: Path, model: Path) -> None:
    with daemon(tmp_path, config_of(model, more='[log]\nform = "json"\nlevel = "debug"\n')) as running:
        running.wait_for("READY=1")
        running.until(lambda: "streaming" in running.text)
        assert running.stop() == 0
    lines = [json.loads(line) for line in running.output if line.startswith("{")]
    assert {"time", "level", "logger", "thread", "message"} <= set(lines[0])
    assert any(line["message"].startswith("door: streaming") for line in lines)
