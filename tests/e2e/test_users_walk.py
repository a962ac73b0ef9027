"""Every route of a real daemon, asked by every role for every camera: nothing of one reaches who may not see it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from e2e.live_show import wait_until
from e2e.users_show import PASSWORD, ROLES, log_in, write_users
from push_server import Browser

from edge.models.shipped import FOLDER
from edge.server.access import SESSION
from edge.users.audit import read_audit
from edge.users.file import changed_users

pytestmark = pytest.mark.real_server
# no other word of the program has this name in it
HIDDEN = "atticcanary"
CAMERAS = ("door", HIDDEN)
STREAM = """
[[streams]]
name = "{name}"
source = "synthetic://street?seed=3&size=480x270&objects=10&fps=5&live=1"
[[streams.analytics.lines]]
name = "{name}-line"
points_share = [[0.5, 0.3], [0.5, 1.0]]
[streams.record]
folder = "{folder}/films"
mode = "continuous"
content = "plain"
segment_s = 4
fragment_s = 1
"""
MORE = """
state_dir = "{folder}/state"
[track_store]
[tests]
folder = "{folder}/tests"
[events]
snapshots = "{folder}/snapshots"
[[notify]]
push = true
contact = "mailto:me@example.org"
push_hosts = ["127.0.0.1"]
"""
# how much is read of what does not end
READ_S, READ_BYTES = 0.4, 1 << 20
# these look for cameras on the network, end what the walk needs, or have the file read again under it
LEFT_OUT = {("GET", "/api/cameras"), ("POST", "/api/reload"), ("POST", "/api/logout")}


@dataclass
class Walk:
    """The daemon, and what there is of each camera: its files, pictures and questions."""

    running: Daemon
    folder: Path
    cookies: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    event_ids: dict[str, str] = field(default_factory=dict)

    def headers_of(self, who: str) -> dict[str, str]:
        if who == "nobody":
            return {}
        if who in ("operate token", "view token"):
            return {"Authorization": f"Bearer {TOKEN if who == 'operate token' else VIEW_TOKEN}"}
        return {"Cookie": f"{SESSION}={self.cookies[who]}", "Origin": self.running.url}

    def asked(self, who: str, method: str, path: str, *, awaited: bytes = b"", **options: Any) -> tuple[int, bytes]:
        """The status, and what is answered in headers and body, as far as it comes soon, or till this has come."""
        headers = self.headers_of(who)
        with httpx.Client(base_url=self.running.url, headers=headers, timeout=30, verify=False) as client:
            until_s = time.monotonic() + READ_S
            with client.stream(method, path, **options) as answer:
                body = str(answer.headers).encode()
                with suppress(httpx.ReadTimeout, httpx.RemoteProtocolError):
                    answer.request.extensions["timeout"]["read"] = 20 if awaited else READ_S
                    for chunk in answer.iter_raw():
                        body += chunk
                        is_enough = awaited in body if awaited else time.monotonic() > until_s
                        if is_enough or len(body) > READ_BYTES:
                            break
                return answer.status_code, body


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Two recorded streets, until each has a whole film and an event with its picture."""
    folder = tmp_path_factory.mktemp("walk")
    write_users(folder / "users.json")
    allowed = "can_edit = true\ncan_add_tests = true\ncan_swap = true\ncan_reload = true\n"
    server = with_tokens(folder, f'users_file = "{folder}/users.json"\n{allowed}')
    streams = "".join(STREAM.format(name=name, folder=folder) for name in CAMERAS)
    config = config_of(FOLDER / "street-nano-int8.onnx", streams, server, MORE.format(folder=folder))
    with daemon(folder, config) as running:
        running.wait_for("READY=1", 120)
        running.until(lambda: running.url != "")
        found = Walk(running, folder)
        for name in ROLES:
            with httpx.Client(base_url=running.url, timeout=30) as client:
                assert log_in(client, name).status_code == 303
                found.cookies[name] = client.cookies[SESSION]
        with running.client() as client:
            running.until(lambda: collect(found, client), 120)
        yield found
        assert running.stop() == 0
        assert "Traceback" not in running.text


def collect(walk: Walk, client: httpx.Client) -> bool:
    """Note what there is; whether it is all there."""
    for one in client.get("/api/recordings").json()["recordings"]:
        walk.files[one["stream"]] = one["file"]
    for event in client.get("/api/review?limit=200").json()["events"]:
        if snapshot := event["links"].get("snapshot"):
            walk.pictures[event["stream"]] = snapshot.removeprefix("snapshots/")
        walk.event_ids[event["stream"]] = event["id"]
    is_there = all(set(table) >= set(CAMERAS) for table in (walk.files, walk.pictures, walk.event_ids))
    if is_there:
        put_questions(walk)
    return is_there


def put_questions(walk: Walk) -> None:
    """One about each camera: only the newest are kept."""
    with walk.running.client() as client:
        for name in CAMERAS:
            asked = client.post("/api/questions", json={"ask": "why", "stream": name, "at": time.time() - 3})
            walk.questions[name] = asked.json()["id"]


def routes(walk: Walk) -> list[tuple[str, str]]:
    """Method and path of everything that the server offers, by its own description."""
    with walk.running.client() as client:
        paths = client.get("/api/openapi.json").json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(found) > 40
    return [one for one in found if one not in LEFT_OUT]


def filled(walk: Walk, path: str, camera: str) -> str:
    """The path, asked for this camera."""
    file = walk.pictures[camera] if path.startswith("/snapshots/") else walk.files[camera]
    stem = file.removesuffix(".mp4") if path.startswith("/strip/") else file
    ids = {"/api/questions/{id}": walk.questions[camera]}
    path = path.replace("{id}", ids.get(path, "0" * 16)).replace("{viewer}", "x").replace("{file}", stem)
    path = path.replace("{name}", camera)
    if path.startswith(("/export/", "/lapse/", "/api/export/")):
        path += f"?from={time.time() - 900:.1f}&to={time.time():.1f}"
    return path


def bodies(method: str, path: str, camera: str) -> dict[str, Any]:
    """What goes with a request so that its answer depends on who asks."""
    if path.endswith("/whep"):
        return {"content": b"v=0", "headers": {"content-type": "application/sdp"}}
    if method == "POST" and path == "/api/questions":
        return {"json": {"ask": "why", "stream": camera, "at": time.time() - 3}}
    if method == "POST" and path == "/api/review/seen":
        return {"json": {"seen": True, "query": f"streams={camera}"}}
    return {"json": {}} if method in ("POST", "PUT") else {}


ASKED_FOR_ONE = {"/snapshots/{file}", "/api/questions/{id}", "/api/questions"}
SEERS = {"anna", "olga", "vera", "operate token", "view token"}
OF_DOOR = {"doris", "oscar", "adam"}
WHO = ["nobody", *ROLES, "operate token", "view token"]


def tells_of_hidden(walk: Walk, body: bytes) -> list[bytes]:
    """What in an answer is of the hidden camera."""
    secrets = [HIDDEN, walk.files[HIDDEN], walk.pictures[HIDDEN].removesuffix(".jpg"), walk.event_ids[HIDDEN]]
    return [body[max(0, body.find(one) - 80) : body.find(one) + 80] for one in map(str.encode, secrets) if one in body]


@pytest.mark.parametrize("who", WHO)
def test_no_route_shows_a_camera_to_who_may_not_see_it(walk: Walk, who: str) -> None:
    questions = [
        (method, path, camera)
        for method, path in routes(walk)
        for camera in (CAMERAS if is_asked_for_one(path) else CAMERAS[:1])
    ]
    # most of the time goes into waiting for what does not end
    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(ask, walk, who, *question) for question in questions if question[0] == "GET"]
        for look in looks:
            look.result()
    for question in questions:
        if question[0] != "GET":
            ask(walk, who, *question)


def is_asked_for_one(path: str) -> bool:
    return path in ASKED_FOR_ONE or ("{name}" in path and not path.startswith("/api/models/"))


def ask(walk: Walk, who: str, method: str, path: str, camera: str) -> None:
    """Ask for a camera, and look for one in the answer that is not to be seen."""
    others = [] if who in SEERS else [HIDDEN] if who in OF_DOOR else list(CAMERAS)
    where = filled(walk, path, camera)
    status, body = walk.asked(who, method, where, **bodies(method, path, camera))
    what = f"{who}: {method} {where}: {status}"
    assert status < 500 or status in (501, 503), what
    if who == "nobody":
        assert status == (200 if path == "/healthz" else 401), what
    asks_for_other = is_asked_for_one(path) and camera in others
    if asks_for_other:
        # a list of which questions are answered is about no camera
        assert status in (401, 403, 404) or (method, path) == ("GET", "/api/questions"), what
    if who not in SEERS and not (asks_for_other and camera == HIDDEN):
        assert not tells_of_hidden(walk, body), (what, tells_of_hidden(walk, body))
    if asks_for_other:
        # the answer may say again what was asked for, and nothing more
        again = body.replace(f"'{camera}'".encode(), b"")
        assert not tells_of_hidden(walk, again), (what, again)


@pytest.mark.parametrize("who", sorted(OF_DOOR | SEERS))
def test_what_somebody_may_see_is_given(walk: Walk, who: str) -> None:
    # on a busy machine the first picture is late
    wait_until(lambda: walk.asked(who, "GET", "/snapshot/door.jpg")[0] == 200)
    for path in ("/stream/{name}.mjpeg", "/api/results/{name}", "/api/events/{name}"):
        assert walk.asked(who, "GET", path.replace("{name}", "door"))[0] == 200
    for path in ("/recordings/{name}/{file}", "/snapshots/{file}", "/strip/{name}/{file}.jpg", "/export/{name}.mp4"):
        assert walk.asked(who, "GET", filled(walk, path, "door"))[0] == 200, path
    status, body = walk.asked(who, "GET", "/metrics")
    assert status == 200 and b'stream="door"' in body


FILTERED = [
    "/api/streams",
    "/api/stats",
    "/api/feed",
    "/api/events",
    "/metrics",
    "/api/recordings",
    "/api/history",
    "/api/review",
    "/api/review/density",
]


@pytest.mark.parametrize("path", FILTERED)
def test_a_list_has_the_own_camera_and_not_the_other(walk: Walk, path: str) -> None:
    for who in sorted(OF_DOOR):
        status, body = walk.asked(who, "GET", path, awaited=b"door")
        assert status == 200 and b"door" in body and not tells_of_hidden(walk, body)
        for query in (f"streams={HIDDEN}", f"streams=door,{HIDDEN}"):
            _, body = walk.asked(who, "GET", f"{path}?{query}")
            assert not tells_of_hidden(walk, body.replace(f"'{HIDDEN}'".encode(), b"")), (who, path, query)
    assert HIDDEN.encode() in walk.asked("vera", "GET", path, awaited=HIDDEN.encode())[1]


def test_nobody_marks_what_it_may_not_see(walk: Walk) -> None:
    def unseen() -> int:
        with walk.running.client() as client:
            return int(client.get(f"/api/review?streams={HIDDEN}&seen=0&to={now_s}").json()["found"])

    now_s = time.time() - 2
    before = unseen()
    orders: list[dict[str, Any]] = [
        {"seen": True, "ids": [walk.event_ids[HIDDEN]]},
        {"seen": True, "query": f"streams={HIDDEN}"},
        {"seen": True, "query": ""},
    ]
    for order in orders:
        status, _ = walk.asked("oscar", "POST", "/api/review/seen", json=order)
        assert status == 200
        assert unseen() == before > 0


# role, method, path, the least role on which camera (None: all of them)
CHANGES = [
    ("GET", "/api/streams/{name}/drawn", "operate", "own"),
    ("PUT", "/api/streams/{name}/drawn", "operate", "own"),
    ("PUT", "/api/questions/{id}", "operate", "own"),
    ("GET", "/api/config/versions", "operate", "all"),
    ("POST", "/api/config/versions", "operate", "all"),
    ("POST", "/api/models/model/swap", "operate", "all"),
    ("POST", "/api/cameras", "operate", "all"),
    ("POST", "/api/cameras/look", "operate", "all"),
    ("GET", "/api/models", "view", "all"),
]
MAY: dict[str, tuple[str, str]] = {
    "anna": ("operate", "all"),
    "olga": ("operate", "all"),
    "operate token": ("operate", "all"),
    "oscar": ("operate", "own"),
    "adam": ("operate", "own"),
    "vera": ("view", "all"),
    "view token": ("view", "all"),
    "doris": ("view", "own"),
}


@pytest.mark.parametrize(("method", "path", "role", "where"), CHANGES)
def test_who_may_change_what(walk: Walk, method: str, path: str, role: str, where: str) -> None:
    if "{id}" in path:
        put_questions(walk)
    for who, (has, on) in MAY.items():
        status, _ = walk.asked(who, method, filled(walk, path, "door"), **bodies(method, path, "door"))
        is_allowed = (role == "view" or has == "operate") and (where == "own" or on == "all")
        assert (status != 403) is is_allowed, f"{who}: {method} {path}: {status}"


def test_every_look_at_a_recording_and_every_change_is_noted(walk: Walk) -> None:
    for path in ("/recordings/{name}/{file}", "/strip/{name}/{file}.jpg", "/snapshots/{file}", "/export/{name}.mp4"):
        assert walk.asked("oscar", "GET", filled(walk, path, "door"))[0] == 200
    # a player asks for many parts of a file
    before = sum(1 for line in read_audit(walk.folder / "state" / "audit.jsonl") if line["who"] == "adam")
    for start in range(5):
        where = filled(walk, "/recordings/{name}/{file}", "door")
        assert walk.asked("adam", "GET", where, headers={"Range": f"bytes={start}-{start + 9}"})[0] == 206
    assert walk.asked("oscar", "PUT", "/api/streams/door/drawn", json={})[0] == 400
    lines = list(read_audit(walk.folder / "state" / "audit.jsonl"))
    looks = [line["what"] for line in lines if line["who"] == "oscar" and line["what"].startswith("look ")]
    assert {what.split("/")[1] for what in looks} >= {"recordings", "strip", "snapshots", "export"}
    assert sum(1 for line in lines if line["who"] == "adam") - before <= 1
    of_adam = next(line for line in lines if line["who"] == "adam" and line["what"] == f"look {where}")
    assert of_adam["camera"] == "door" and of_adam["from"] == "127.0.0.1"
    changes = [line for line in lines if line["who"] == "oscar" and line["what"] == "PUT /api/streams/door/drawn"]
    assert {line.get("status") for line in changes} >= {None, 400}
    picture = next(line for line in lines if line["what"].startswith("look /snapshots/") and line["who"] == "oscar")
    assert picture["camera"] == "door"
    with httpx.Client(base_url=walk.running.url, headers=walk.headers_of("adam")) as client:
        told = client.get("/api/audit?limit=500").json()["lines"]
    assert told and {line["camera"] for line in told} == {"door"}


def test_where_the_audit_log_cannot_be_written_recordings_are_kept_back_and_live_pictures_are_not(walk: Walk) -> None:
    audit = walk.folder / "state" / "audit.jsonl"
    kept = audit.rename(audit.with_name("kept"))
    audit.mkdir()
    try:
        for path in ("/recordings/{name}/{file}", "/snapshots/{file}", "/export/{name}.mp4"):
            # who has just been noted as looking at it is not noted again for a minute
            wait_until(lambda path=path: walk.asked("vera", "GET", filled(walk, path, "door"))[0] == 503, 70)  # type: ignore[misc]
            status, body = walk.asked("vera", "GET", filled(walk, path, "door"))
            assert status == 503 and b"the audit log cannot be written" in body and len(body) < 2000, path
        assert walk.asked("vera", "GET", "/stream/door.mjpeg")[0] == 200
    finally:
        audit.rmdir()
        kept.rename(audit)
    assert walk.asked("vera", "GET", filled(walk, "/snapshots/{file}", "door"))[0] == 200


def test_no_log_and_no_line_holds_a_password_or_a_cookie(walk: Walk) -> None:
    text = walk.running.text + (walk.folder / "state" / "audit.jsonl").read_text()
    assert PASSWORD not in text and PASSWORD.replace(" ", "+") not in text and "$argon2" not in text
    assert not any(cookie in text for cookie in walk.cookies.values())


def test_a_phone_is_listed_and_ended_by_its_owner_and_by_who_rules_all(walk: Walk) -> None:
    def phones_for(who: str) -> dict[str, str]:
        _, body = walk.asked(who, "GET", "/api/push/phones", awaited=b"]}")
        return {one["user"]: one["id"] for one in json.loads(body[body.rindex(b'{"phones":') :])["phones"]}

    def put(who: str, name: str) -> tuple[Browser, int]:
        browser = Browser(f"https://127.0.0.1/{name.replace(' ', '-')}")
        return browser, walk.asked(who, "POST", "/api/push", json=browser.subscription(name))[0]

    phones = {who: put(who, who) for who in ("doris", "oscar", "vera", "view token")}
    assert {status for _, status in phones.values()} == {200}
    assert put("nils", "nils")[1] == 403
    ids = phones_for("anna")
    assert set(ids) == {"doris", "oscar", "vera", ""} and phones_for("operate token") == ids
    for who in ("doris", "oscar", "vera"):
        assert phones_for(who) == {who: ids[who]}
    for who in ("nils", "adam", "olga", "view token"):
        assert phones_for(who) == {}
        assert walk.asked(who, "DELETE", f"/api/push/phones/{ids['doris']}")[0] == 404
    # one that knows the address of another's is no owner either
    gone = {"json": {"endpoint": phones["doris"][0].endpoint}}
    for who in ("oscar", "vera", "view token"):
        assert b'"was_there": false' in walk.asked(who, "DELETE", "/api/push", awaited=b"}", **gone)[1]
    assert walk.asked("doris", "DELETE", f"/api/push/phones/{ids['doris']}")[0] == 200
    assert walk.asked("anna", "DELETE", f"/api/push/phones/{ids['oscar']}")[0] == 200
    assert set(phones_for("anna")) == {"vera", ""}
    with changed_users(walk.folder / "users.json") as users:
        kept = users.pop("vera")
    try:
        wait_until(lambda: set(phones_for("anna")) == {""}, 20)
    finally:
        with changed_users(walk.folder / "users.json") as users:
            users["vera"] = kept
    assert walk.asked("operate token", "DELETE", f"/api/push/phones/{ids['']}")[0] == 200
    told = [(line["what"], line.get("user")) for line in read_audit(walk.folder / "state/audit.jsonl")]
    assert (f"DELETE /api/push/phones/{ids['oscar']}", "oscar") in told
