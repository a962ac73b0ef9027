"""Guarantee 15: a canary password in every place where a secret may stand is found in no output of a real daemon."""

from __future__ import annotations

import base64
import errno
import html
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
from daemon_process import COMMAND, SCENE, TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from push_server import Browser
from rtsp_rig import digest
from tiny_models import tiny_model

from edge.events.phones import PhoneBook
from edge.trackstore.read import Reader
from edge.users.file import User, changed_users, token_hash
from edge.users.passwords import hash_of
from edge.users.rights import Rights

# characters that every encoding changes, and a middle that none does
CANARY = "Cq7/canary0x7f@:#?%"
CORE = "canary0x7f"
USER_TOKEN = "users-token-canary-0123456789abcdef"
NETWORK = ("password", "user", "raw", "query", "pwd", "token", "fragment", "srt", "rtmp", "blank", "odd")


def forms_of(secret: str) -> set[str]:
    """What an output is searched for."""
    encoded = secret.encode()
    forms = {secret, quote(secret, safe=""), quote_plus(secret), quote(quote(secret, safe=""), safe="")}
    forms |= {json.dumps(secret)[1:-1], html.escape(secret), repr(secret)[1:-1], encoded.hex()}
    for user in (b"", b"a:", b"ab:", b"admin:"):
        begin = (len(user) * 4 + 2) // 3
        forms.add(base64.b64encode(user + encoded).decode()[begin : begin + 12])
    return forms


def leaks(text: str) -> list[str]:
    """The forms of a secret that stand in this text, with what stands around them."""
    wanted = {CORE, base64.b64encode(CORE.encode()).decode()[:10]}
    for secret in (CANARY, TOKEN, VIEW_TOKEN, USER_TOKEN):
        wanted |= forms_of(secret)
    lower = text.lower()
    places = [(form, lower.find(form.lower())) for form in wanted]
    return [text[max(0, at - 60) : at + 60] for _, at in places if at >= 0]


@contextmanager
def rude_server() -> Iterator[int]:
    """A TCP server on many local addresses that answers with an error that quotes the request, as cameras do."""
    with ExitStack() as stack:
        listeners = _listeners_on_one_port(stack)
        for listener in listeners:
            threading.Thread(target=_refuse_all, args=(listener,), daemon=True).start()
        yield listeners[0].getsockname()[1]


def _listeners_on_one_port(stack: ExitStack) -> list[socket.socket]:
    """On many addresses, as cameras of one host would wait for each other; a port that is free on one may be in use."""
    while True:
        with ExitStack() as trial:
            listeners = [trial.enter_context(socket.create_server(("127.0.0.1", 0)))]
            port = listeners[0].getsockname()[1]
            try:
                for n in range(2, 14):
                    listeners.append(trial.enter_context(socket.create_server((f"127.0.0.{n}", port))))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            stack.push(trial.pop_all())
            return listeners


def _refuse_all(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.settimeout(2)
            line = connection.recv(4096).split(b"\r\n")[0]
            connection.sendall(b"RTSP/1.0 401 " + line + b"\r\nContent-Length: 0\r\n\r\n")


def addresses(port: int) -> dict[str, str]:
    """An address for every slot in which a secret can stand."""
    secret = quote(CANARY, safe="")
    host = f"127.0.0.1:{port}"
    return {
        "password": f"rtsp://admin:{secret}@{host}/live",
        "user": f"rtsp://{secret}@{host}/live",
        "raw": f"rtsp://admin:{CORE}/x@{host}/live",
        "query": f"http://{host}/video.mjpg?user=admin&password={secret}&x=1",
        "pwd": f"http://{host}/cgi?action=get&usr={secret}&pwd={secret}",
        "token": f"https://{host}/a.m3u8?access_token={secret}#t=1",
        "fragment": f"http://{host}/a#token={secret}",
        "srt": f"srt://{host}?passphrase={secret}&streamid={secret}",
        "rtmp": f"rtmp://admin:{secret}@{host}/app/live",
        "blank": f"http://admin:two {CORE}@{host}/live",
        "odd": f'http://{host}/live?password=a <b>" {CORE}&x=1',
        "gst": f"gst:rtspsrc location=rtsp://u:{secret}@{host}/1 user-pw={CORE} ! appsink",
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


def streams_of(folder: Path, port: int, isolation: str = "thread", names: tuple[str, ...] = ()) -> str:
    (folder / "camera-password").write_text(CANARY)
    push = f"rtmp://127.0.0.1:{port}/live/{quote(CANARY, safe='')}"
    sinks = f'["jsonl:{folder}/door.jsonl", "{push}"]'
    tables = [f'[[streams]]\nname = "door"\nsource = "{SCENE}"\nsinks = {sinks}\n']
    sources = {name: uri for name, uri in addresses(port).items() if name in names or not names}
    for number, (name, uri) in enumerate(sources.items(), 2):
        tables.append(
            f"[[streams]]\nname = '{name}'\nsource = '{uri.replace('127.0.0.1', f'127.0.0.{number}')}'\n"
            f"isolation = '{isolation}'\nretry_base_s = 30\n"
        )
    tables.append(
        f'[[streams]]\nname = "file"\nsource = "rtsp://127.0.0.1:{port}/1"\nusername = "admin"\n'
        f'password_file = "{folder}/camera-password"\nretry_base_s = 30\nisolation = "{isolation}"\n'
        f'live_source = "rtsp://admin:{quote(CANARY, safe="")}@127.0.0.1:{port}/2"\n'
    )
    return "\n".join(tables)


def targets_of(folder: Path, port: int) -> str:
    """Where events go: a broker and a webhook that refuse everything."""
    secret = quote(CANARY, safe="")
    (folder / "signing-secret").write_text(CANARY)
    _phone_of(folder, port)
    (folder / "notify-url").write_text(f"json://u:{secret}@127.0.0.1:{port}/{secret}?+X-Key={secret}")
    return (
        f'[[notify]]\nurl_file = "{folder}/notify-url"\njoin_s = 0\ncool_down_s = 0\n'
        f'[[notify]]\nname = "phones"\npush = true\ncontact = "mailto:me@example.org"\npush_hosts = ["127.0.0.1"]\n'
        "join_s = 0\ncool_down_s = 0\n"
        f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\nusername = "edge"\npassword_file = "{folder}/camera-password"\n'
        f'[[webhooks]]\nurl = "http://u:{secret}@127.0.0.1:{port}/hook/{secret}?token={secret}"\n'
        f'secret_file = "{folder}/signing-secret"\n'
    )


def _phone_of(folder: Path, port: int) -> None:
    """A phone with a secret in each of its parts."""
    (folder / "state").mkdir()
    browser = Browser(f"https://127.0.0.1:{port}/{quote(CANARY, safe='')}", auth=f"{CORE}123456".encode())
    PhoneBook(folder / "state" / "events.phones.secret", ["127.0.0.1"]).add(browser.subscription())


def everything_served(running: Daemon) -> str:
    """What every route answers, with its headers; streams for as long as a few pictures take."""
    texts = []
    with running.client() as client:
        for path in [*client.get("/api").json(), "/", "/app.js", "/nothing", "/api/events/nobody"]:
            for name in ("door", "password") if "{name}" in path else ("",):
                # a stream without pictures sends nothing for long
                with (
                    suppress(httpx.ReadTimeout),
                    client.stream("GET", path.replace("{name}", name), timeout=0.5) as answer,
                ):
                    texts.append(f"{path} {answer.headers}")
                    for number, chunk in enumerate(answer.iter_raw()):
                        texts.append(chunk.decode("latin-1"))
                        if number > 8 or name == "password":
                            break
        texts += [why(client, name) for name in ("door", "password", "file")]
        texts.append(httpx.get(f"{running.url}/?token={TOKEN}").headers.__repr__())
        texts.append(httpx.get(f"{running.url}/api/stats?token=wrong").text)
    return "\n".join(texts)


def why(client: httpx.Client, stream: str) -> str:
    """What is answered to who asks why nothing was said of a stream."""
    asked = client.post("/api/questions", json={"ask": "why", "stream": stream, "at": time.time() - 1})
    assert asked.status_code == 202, asked.text
    for _ in range(200):
        answer = client.get(f"/api/questions/{asked.json()['id']}")
        if answer.json()["state"] in ("done", "failed"):
            return answer.text
        time.sleep(0.1)
    raise AssertionError(answer.text)


def users_with_canaries(folder: Path) -> Path:
    """A file of users whose passwords and tokens are canaries."""
    path = folder / "users.json"
    with changed_users(path) as users:
        users["anna"] = User("anna", Rights({"*": "admin"}), hash_of(CANARY), token_hash(USER_TOKEN))
    return path


def everything_answered_at_a_login(running: Daemon) -> str:
    """What a login says, right and wrong, and what an admin may read then."""
    texts = []
    with httpx.Client(base_url=running.url, timeout=30, headers={"Origin": running.url}) as client:
        for name, word in (("anna", CORE), (CANARY, CANARY), ("", CANARY), ("", USER_TOKEN), ("anna", CANARY)):
            answer = client.post("/login", data={"name": name, "password": word})
            texts.append(f"{answer.status_code} {answer.text}")
        assert answer.status_code == 303
        paths = ("/", "/api/me", "/api/sessions", "/api/audit", "/api/stats")
        texts += [f"{given.headers} {given.text}" for given in map(client.get, paths)]
        texts.append(client.post("/api/logout").text)
    return "\n".join(texts)


def everything_described(running: Daemon) -> str:
    """What RTSP answers to whoever has a token, and to who has none."""
    found = re.search(r"rtsp: rtsp://localhost:(\d+)|rtsp: rtsp://127.0.0.1:(\d+)", running.text)
    assert found is not None, running.text
    texts = []
    with socket.create_connection(("127.0.0.1", int(found[1] or found[2])), 20) as connection:
        nonce = ""
        for path in ("door", "door", "door/source", "nobody", "nobody/source"):
            uri = f"rtsp://127.0.0.1/{path}"
            shown = digest(TOKEN, "DESCRIBE", uri, nonce) if nonce else ""
            connection.sendall(f"DESCRIBE {uri} RTSP/1.0\r\nCSeq: 1\r\n{shown}\r\n".encode())
            connection.settimeout(15)
            texts.append(connection.recv(65536).decode())
            nonce = nonce or texts[0].partition('nonce="')[2].partition('"')[0]
    assert "sprop-parameter-sets" in texts[1]
    return "\n".join(texts)


def process_facts(pid: int) -> str:
    """Command lines of the daemon and its children: everybody on the machine can read them."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    pids = [
        pid,
        *(
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ),
    ]
    assert children.exists()
    return "\n".join(
        Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8") for child in pids if Path(f"/proc/{child}").exists()
    )


@pytest.mark.real_server
@pytest.mark.parametrize(("form", "isolation"), [("text", "thread"), ("json", "process")])
def test_no_output_of_a_daemon_holds_a_secret(tmp_path: Path, model: Path, form: str, isolation: str) -> None:
    names = NETWORK if isolation == "thread" else ("password", "token")
    with rude_server() as port:
        config = config_of(
            model,
            streams_of(tmp_path, port, isolation, names),
            with_tokens(tmp_path, f'users_file = "{users_with_canaries(tmp_path)}"\n'),
            f'state_dir = "{tmp_path}/state"\n[log]\nform = "{form}"\n[rtsp]\nenabled = true\nport = 0\n'
            "[track_store]\nblock_s = 1\n"
            '[night]\nteachers = ["teacher.onnx"]\nsealed = ["coco:labels.json"]\nwindow = "00:00-00:00"\n'
            f"{targets_of(tmp_path, port)}",
        )
        with daemon(tmp_path, config, arguments=("--debug",)) as running:
            running.until(lambda: all(f"{name}: backing_off" in running.text for name in [*names, "file"]), 60)
            served = (
                everything_served(running) + everything_described(running) + everything_answered_at_a_login(running)
            )
            listed = process_facts(running.process.pid)
            assert running.stop() == 0
        written = "".join(path.read_text() for path in tmp_path.rglob("*.json*"))
        reader = Reader(tmp_path / "state" / "tracks")
        kept = "".join(f"{head} {block.notes}" for name in reader.streams() for head, block in reader.blocks(name))
    assert "backing_off" in kept
    assert leaks(kept) == []
    assert "edgeloop_emitted_fps" in served
    assert '"phones": {"phones": 1' in served
    assert '"stream":"door"' in written
    assert leaks(running.text) == []
    assert leaks(served) == []
    assert leaks(listed) == []
    assert leaks(written) == []


@pytest.mark.parametrize("form", ["", "--json"])
def test_check_tells_no_secret(tmp_path: Path, model: Path, form: str) -> None:
    path = tmp_path / "edge.toml"
    names = ("password", "token") if form else ("raw", "gst", "blank", "odd")
    path.write_text(config_of(model, streams_of(tmp_path, 1, names=names), with_tokens(tmp_path)))
    arguments = ["--debug", "check", *([form] if form else [])]
    done = subprocess.run([*COMMAND, *arguments, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "failed" in done.stdout
    assert leaks(done.stdout + done.stderr) == []


@pytest.mark.parametrize("slot", ["raw", "gst", "blank", "odd"])
def test_probe_tells_no_secret(slot: str) -> None:
    uri = addresses(1)[slot]
    done = subprocess.run([*COMMAND, "--debug", "probe", uri], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (1, 3)
    assert leaks(done.stdout + done.stderr) == []


def test_the_search_would_find_a_secret() -> None:
    for form in forms_of(CANARY):
        assert leaks(f"x {form} y")
