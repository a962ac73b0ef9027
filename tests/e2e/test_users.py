"""Named users of the live page: logins, sessions, roles per camera, and what ends when they change."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import TOKEN, VIEW_TOKEN, gate_of
from e2e.live_show import wait_until
from e2e.users_show import CAMERAS, PASSWORD, USER_TOKEN, UsersShow, log_in, users_show
from e2e.webrtc_viewer import Viewer

from edge.server.access import COOKIE, MAX_FAILURES, SECURE_SESSION, SESSION
from edge.server.proxies import Proxies
from edge.users.audit import read_audit
from edge.users.file import changed_users
from edge.users.rights import Rights

PROXY = Proxies("x-user", ("127.0.0.1/32",))
ENDS_WITHIN_S = 2.0


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsersShow]:
    folder = tmp_path_factory.mktemp("users")
    with users_show(folder, audit_file=folder / "audit.jsonl") as running:
        for camera in running.cameras:
            camera.publish()
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[UsersShow]:
    """A server that no other test has used up the attempts of."""
    with users_show(tmp_path, audit_file=tmp_path / "audit.jsonl") as running:
        for camera in running.cameras:
            camera.publish()
        yield running


def cameras_of(client: httpx.Client) -> list[str]:
    return [card["name"] for card in client.get("/api/streams").json()["streams"]]


def change(show: UsersShow, name: str, act: Callable[[Any], Any]) -> None:
    with changed_users(show.users) as users:
        users[name] = act(users[name])
        if users[name] is None:
            del users[name]


# logins


def test_a_name_and_its_password_open_the_page(show: UsersShow) -> None:
    with show.client() as client:
        page = client.get("/")
        assert page.status_code == 401
        assert 'name="name"' in page.text and 'method="post" action="/login"' in page.text
        assert "form-action 'self'" in page.headers["content-security-policy"]
        answer = log_in(client, "vera")
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(SESSION))
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
        assert "app.js" in client.get("/").text
        me = client.get("/api/me").json()
        assert (me["name"], me["kind"], me["roles"]) == ("vera", "user", {"*": "view"})
        assert cameras_of(client) == list(CAMERAS)
    # the answer of the gate is not kept by anybody
    assert answer.headers["cache-control"] == "no-store"


def test_the_tokens_go_on_to_work(show: UsersShow) -> None:
    for token, role in ((TOKEN, "operate"), (VIEW_TOKEN, "view")):
        with show.client() as client:
            me = client.get("/api/me", headers={"Authorization": f"Bearer {token}"}).json()
            assert (me["kind"], me["roles"]) == ("token", {"*": role})
            assert client.get("/api/me").status_code == 401
            assert client.get(f"/?token={token}").status_code == 303
            assert client.get("/api/me").json()["roles"] == {"*": "view"}


@pytest.mark.parametrize("token", [TOKEN, VIEW_TOKEN])
def test_a_token_may_be_given_in_the_form_without_a_name(show: UsersShow, token: str) -> None:
    with show.client() as client:
        assert log_in(client, "", token).status_code == 303
        assert client.get("/api/me").json()["kind"] == "token"
        assert COOKIE in client.cookies and SESSION not in client.cookies


def test_a_users_token_opens_as_much_as_its_user_may_see(show: UsersShow) -> None:
    with show.client() as client:
        headers = {"Authorization": f"Bearer {USER_TOKEN}"}
        assert client.get("/api/me", headers=headers).json()["name"] == "doris"
        # an address ends up in histories: there it is worth nothing
        assert client.get(f"/api/me?token={USER_TOKEN}").status_code == 401
        assert log_in(client, "", USER_TOKEN).status_code == 303
        assert cameras_of(client) == ["door"]


def test_wrong_ones_are_told_the_same_whatever_is_wrong(own: UsersShow) -> None:
    with own.client() as client:
        answers = [
            log_in(client, name, password)
            for name, password in (("vera", "wrong"), ("nobody", "wrong"), ("nobody", PASSWORD), ("", "wrong"))
        ]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.text for answer in answers}) == 1
        assert not any("set-cookie" in answer.headers for answer in answers)
        assert log_in(client, "vera", "").status_code == 400


def test_a_known_name_takes_no_longer_than_an_unknown_one(tmp_path: Path) -> None:
    times: dict[str, list[float]] = {"vera": [], "nobody": []}
    with users_show(tmp_path) as running, running.client() as client:
        log_in(client, "vera")
        for _ in range(4):
            for name, found in times.items():
                begin_s = time.perf_counter()
                assert log_in(client, name, "wrong").status_code == 401
                found.append(time.perf_counter() - begin_s)
    known, unknown = (min(found) for found in times.values())
    assert 0.4 < known / unknown < 2.5, times
    # a comparison takes some 20 ms; without one the answer would come in 2
    assert statistics.median(times["nobody"]) > 0.01


def test_guesses_are_limited_by_network_and_others_get_in(own: UsersShow) -> None:
    def asked(source: str, password: str) -> int:
        transport = httpx.HTTPTransport(local_address=source)
        with own.client(transport=transport) as client:
            return log_in(client, "vera", password).status_code

    assert [asked("127.0.0.3", f"wrong {n}") for n in range(MAX_FAILURES + 2)] == [401] * MAX_FAILURES + [429] * 2
    assert asked("127.0.0.3", PASSWORD) == 429
    assert asked("127.0.0.4", PASSWORD) == 303


def test_right_logins_do_not_count_as_guesses(own: UsersShow) -> None:
    with own.client() as client:
        assert {log_in(client, "vera").status_code for _ in range(MAX_FAILURES + 5)} == {303}


# sessions


def test_a_session_that_somebody_else_has_chosen_is_never_taken_over(own: UsersShow) -> None:
    chosen = "0123456789abcdef" * 4
    with own.client() as client:
        client.headers["Cookie"] = f"{SESSION}={chosen}"
        answer = log_in(client, "vera")
        assert answer.status_code == 303 and chosen not in str(answer.headers)
    assert httpx.get(f"{own.url}/api/me", headers={"Cookie": f"{SESSION}={chosen}"}).status_code == 401


def test_each_login_has_a_new_cookie_and_ends_the_old_one(own: UsersShow) -> None:
    with own.client("vera") as client:
        old = client.cookies[SESSION]
        log_in(client, "vera")
        assert client.cookies[SESSION] != old
        assert client.get("/api/me").status_code == 200
        assert len(client.get("/api/sessions").json()["sessions"]) == 1
    assert httpx.get(f"{own.url}/api/me", headers={"Cookie": f"{SESSION}={old}"}).status_code == 401


def test_log_out_ends_the_session_wherever_its_cookie_is(own: UsersShow) -> None:
    with own.client("vera") as client:
        cookie = client.cookies[SESSION]
        answer = client.post("/api/logout")
        assert answer.status_code == 200 and SESSION not in client.cookies
    assert httpx.get(f"{own.url}/api/me", headers={"Cookie": f"{SESSION}={cookie}"}).status_code == 401


def test_an_admin_lists_and_ends_sessions_and_others_their_own(own: UsersShow) -> None:
    with own.client("anna") as anna, own.client("vera") as vera, own.client("doris") as doris:
        listed = anna.get("/api/sessions").json()["sessions"]
        assert [one["user"] for one in listed] == ["anna", "vera", "doris"]
        assert all(cookie not in str(listed) for cookie in (vera.cookies[SESSION], anna.cookies[SESSION]))
        assert [one["user"] for one in vera.get("/api/sessions").json()["sessions"]] == ["vera"]
        of_doris, of_vera = (next(one["id"] for one in listed if one["user"] == name) for name in ("doris", "vera"))
        assert vera.delete(f"/api/sessions/{of_doris}").status_code == 404
        assert anna.delete(f"/api/sessions/{of_doris}").status_code == 200
        assert doris.get("/api/me").status_code == 401
        assert vera.delete(f"/api/sessions/{of_vera}").status_code == 200
        assert vera.get("/api/me").status_code == 401


def test_sessions_end_when_idle(tmp_path: Path) -> None:
    with users_show(tmp_path, idle_s=1.0) as running, running.client("vera") as client:
        for _ in range(3):
            time.sleep(0.5)
            assert client.get("/api/me").status_code == 200
        time.sleep(1.2)
        assert client.get("/api/me").status_code == 401


def test_sessions_outlive_the_gate(own: UsersShow) -> None:
    with own.client("vera") as client:
        before = gate_of(os.getpid())
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: gate_of(os.getpid()) not in (0, before))
        assert client.get("/api/me").json()["name"] == "vera"


# other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": ""},
    ],
)
def test_another_site_changes_nothing_with_the_cookie(show: UsersShow, headers: dict[str, str]) -> None:
    with show.client("olga") as client:
        cookie = {"Cookie": f"{SESSION}={client.cookies[SESSION]}"}
        told = {name: value for name, value in headers.items() if value}
        assert httpx.post(f"{show.url}/api/logout", headers={**cookie, **told}).status_code == 403
        assert client.get("/api/me").status_code == 200


def test_another_site_cannot_log_a_browser_in(show: UsersShow) -> None:
    form = {"name": "vera", "password": PASSWORD}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = httpx.post(f"{show.url}/login", data=form, headers=headers)
        assert answer.status_code == 403 and "set-cookie" not in answer.headers


def test_over_https_the_cookie_is_secure_and_bound_to_the_host(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"),
        ],
        check=True,
        capture_output=True,
    )
    with users_show(tmp_path, tls=(cert, key)) as running, running.client() as client:
        answer = log_in(client, "vera")
        cookie = next(one for one in answer.headers.get_list("set-cookie") if SECURE_SESSION in one)
        assert "Secure" in cookie and "Path=/" in cookie and "Domain" not in cookie
        value = cookie.partition("=")[2].partition(";")[0]
        shown = {"Cookie": f"{SECURE_SESSION}={value}"}
        assert client.get("/api/me", headers=shown).json()["name"] == "vera"
        # that of plain HTTP, which another program of the host could have set, counts for nothing
        client.cookies.clear()
        assert client.get("/api/me", headers={"Cookie": f"{SESSION}={value}"}).status_code == 401


# what changes while somebody looks


def pictures_end_s(show: UsersShow, client: httpx.Client, path: str, act: Callable[[], None]) -> float:
    """How long after an act an open stream of pictures ends."""
    begin_s = [0.0]

    def later() -> None:
        time.sleep(0.3)
        begin_s[0] = time.monotonic()
        act()

    stopping = threading.Event()

    def publish() -> None:
        while not stopping.wait(0.05):
            for camera in show.cameras:
                camera.publish()

    threads = [threading.Thread(target=later), threading.Thread(target=publish)]
    try:
        with client.stream("GET", path, timeout=10) as answer:
            assert answer.status_code == 200
            for thread in threads:
                thread.start()
            with suppress(httpx.RemoteProtocolError, httpx.ReadError):
                for _ in answer.iter_raw():
                    assert time.monotonic() - (begin_s[0] or time.monotonic()) < 10
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    return time.monotonic() - begin_s[0]


WAYS = ["/stream/door.mjpeg", "/api/feed", "/api/events", "/api/results/door"]


@pytest.mark.parametrize("path", WAYS)
def test_what_a_removed_user_watches_ends(own: UsersShow, path: str) -> None:
    with own.client("vera") as client:
        assert pictures_end_s(own, client, path, lambda: change(own, "vera", lambda user: None)) < ENDS_WITHIN_S
        assert client.get("/api/me").status_code == 401
        assert log_in(client, "vera").status_code == 401


@pytest.mark.parametrize("end", ["role", "password", "session", "file"])
def test_what_somebody_watches_ends_when_it_may_not_any_more(own: UsersShow, end: str) -> None:
    from dataclasses import replace

    with own.client("anna") as anna, own.client("vera") as client:
        session = anna.get("/api/sessions").json()["sessions"][1]["id"]
        acts: dict[str, Callable[[], Any]] = {
            "role": lambda: change(own, "vera", lambda user: replace(user, rights=Rights({"attic": "view"}))),
            "password": lambda: change(own, "vera", lambda user: user.with_new_generation()),
            "session": lambda: anna.delete(f"/api/sessions/{session}"),
            "file": lambda: own.users.chmod(0o644),
        }
        assert pictures_end_s(own, client, "/stream/door.mjpeg", acts[end]) < ENDS_WITHIN_S
        assert client.get("/stream/door.mjpeg").status_code == (404 if end == "role" else 401)


def test_a_removed_user_watches_no_longer_over_webrtc(tmp_path: Path) -> None:
    with users_show(tmp_path, max_peers=4) as running, running.client("vera") as client:
        headers = {"Cookie": f"{SESSION}={client.cookies[SESSION]}", "Origin": running.url}
        viewer = Viewer(running.url, "door", headers=headers)
        stopping = threading.Event()

        def publish() -> None:
            while not stopping.wait(0.05):
                running.cameras[0].publish()

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            assert viewer.start().status == 201
            wait_until(lambda: len(viewer.seen) > 3)
            change(running, "vera", lambda user: None)
            begin_s = time.monotonic()
            board = running.cameras[0].board
            wait_until(lambda: board.counts()["door"]["viewers"] == 0)
            assert time.monotonic() - begin_s < ENDS_WITHIN_S
        finally:
            stopping.set()
            publisher.join()
            viewer.close()


def test_an_offer_is_for_who_may_look_and_for_no_other_site(tmp_path: Path) -> None:
    with users_show(tmp_path, max_peers=4) as running, running.client("doris") as client:
        client.headers["content-type"] = "application/sdp"
        assert client.post("/stream/attic/whep", content=b"v=0").status_code == 404
        assert client.post("/stream/door/whep", content=b"v=0").status_code == 400
        client.headers["Origin"] = "https://evil.example"
        assert client.post("/stream/door/whep", content=b"v=0").status_code == 403


def test_a_users_token_that_goes_ends_its_stream(own: UsersShow) -> None:
    with httpx.Client(base_url=own.url, headers={"Authorization": f"Bearer {USER_TOKEN}"}) as client:
        act = lambda: change(own, "doris", lambda user: None)  # noqa: E731
        assert pictures_end_s(own, client, "/stream/door.mjpeg", act) < ENDS_WITHIN_S
        assert client.get("/api/me").status_code == 401


def test_a_changed_role_counts_without_a_restart(own: UsersShow) -> None:
    from dataclasses import replace

    with own.client("doris") as client:
        assert cameras_of(client) == ["door"]
        change(own, "doris", lambda user: replace(user, rights=Rights({"attic": "view"})))
        wait_until(lambda: cameras_of(client) == ["attic"], 2)


@pytest.mark.parametrize("content", [b"", b'{"users": 1}', b"\0" * 100], ids=["empty", "number", "zeros"])
def test_a_rotten_file_lets_nobody_in_and_a_repaired_one_does(own: UsersShow, content: bytes) -> None:
    whole = own.users.read_bytes()
    with own.client("vera") as client:
        own.users.write_bytes(content)
        wait_until(lambda: client.get("/api/me").status_code == 401, 2)
        assert log_in(client, "vera").status_code == 401
        # the device's own tokens are in other files
        assert client.get("/api/me", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        own.users.write_bytes(whole)
        wait_until(lambda: log_in(client, "vera").status_code == 303, 3)


# proxies


def test_the_header_of_a_trusted_proxy_names_the_user(tmp_path: Path) -> None:
    with users_show(tmp_path, proxies=PROXY) as running:
        with httpx.Client(base_url=running.url, headers={"X-User": "doris"}) as client:
            assert client.get("/api/me").json()["name"] == "doris"
            assert cameras_of(client) == ["door"]
            # another site can make a browser send requests that the proxy vouches for
            assert client.post("/api/logout").status_code == 403
            assert client.post("/api/logout", headers={"Origin": running.url}).status_code == 200
        assert httpx.get(f"{running.url}/api/me", headers={"X-User": "nobody"}).status_code == 401
        twice = [("X-User", "doris"), ("X-User", "anna")]
        assert httpx.get(f"{running.url}/api/me", headers=twice).status_code == 401


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.3 is an address of this machine on Linux only")
def test_the_header_of_anybody_else_is_ignored_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with users_show(tmp_path, proxies=PROXY) as running:
        transport = httpx.HTTPTransport(local_address="127.0.0.3")
        with httpx.Client(base_url=running.url, transport=transport, headers={"X-User": "anna"}) as client:
            assert client.get("/api/me").status_code == 401
            # with a right token it is let in as that token's holder, over a connection that stays open
            for _ in range(3):
                me = client.get("/api/me", headers={"Authorization": f"Bearer {TOKEN}"}).json()
                assert me["kind"] == "token"
        with running.client("anna") as anna:
            assert anna.get("/api/stats").json()["access"]["spoofed"] >= 2
    assert "127.0.0.3 sends x-user and is no trusted proxy: it is ignored" in caplog.text


def test_many_may_come_over_one_connection_of_a_proxy(tmp_path: Path) -> None:
    """A proxy keeps connections, and sends the requests of one browser after those of another."""
    with (
        users_show(tmp_path, proxies=Proxies("", ("127.0.0.1",))) as running,
        socket.create_connection(("127.0.0.1", running.port), 10) as connection,
    ):

        def ask(text: str, body: str = "") -> HTTPResponse:
            head = f"{text} HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n{body}".encode())
            answer = HTTPResponse(connection)
            answer.begin()
            answer.read()
            return answer

        token = TOKEN
        assert ask("GET /healthz").status == 200
        token = ""
        answer = ask("POST /login", f"name=vera&password={PASSWORD.replace(' ', '+')}")
        assert answer.status == 303
        found = re.search(r"edgeloop-session=([0-9a-f]{64})", answer.getheader("set-cookie") or "")
        assert found is not None
        cookie = {"Cookie": f"{SESSION}={found[1]}"}
        assert httpx.get(f"{running.url}/api/me", headers=cookie).json()["name"] == "vera"


# the audit log


def test_every_change_and_who_comes_and_goes_is_noted(own: UsersShow) -> None:
    with own.client("anna") as anna, own.client() as other:
        log_in(other, "vera", "wrong")
        log_in(other, "nobody", "wrong")
        with own.client("vera") as vera:
            vera.post("/api/logout")
        lines = anna.get("/api/audit").json()["lines"]
    told = [(line["who"], line["what"], line.get("status")) for line in reversed(lines)]
    assert told == [
        ("anna", "login", None),
        ("vera", "wrong login", None),
        ("unknown", "wrong login", None),
        ("vera", "login", None),
        ("vera", "POST /api/logout", None),
        ("vera", "POST /api/logout", 200),
    ]
    assert all(line["from"] == "127.0.0.1" for line in lines)
    text = (own.folder / "audit.jsonl").read_text()
    assert PASSWORD not in text and (own.folder / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_who_may_read_the_audit_log(show: UsersShow) -> None:
    with show.client("anna") as anna, show.client("adam") as adam, show.client("olga") as olga:
        assert anna.get("/api/audit").json()["lines"]
        assert adam.get("/api/audit").json()["lines"] == []
        assert olga.get("/api/audit").status_code == 403
        assert olga.get("/api/audit", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 403


def test_what_cannot_be_noted_is_not_done(own: UsersShow) -> None:
    audit = own.folder / "audit.jsonl"
    with own.client("anna") as anna:
        session = anna.get("/api/sessions").json()["sessions"][0]["id"]
        while not audit.is_dir():
            audit.rename(own.folder / "before")
            # the login's own line may come between the two
            with suppress(FileExistsError):
                audit.mkdir()
        refused = anna.delete(f"/api/sessions/{session}")
        assert refused.status_code == 503 and "the audit log cannot be written" in refused.text
        # who looks at live pictures, and who logs in, is served
        assert anna.get("/api/me").status_code == 200
        with own.client("vera") as vera, vera.stream("GET", "/api/feed") as feed:
            assert feed.status_code == 200
        assert anna.get("/api/stats").json()["access"]["audit_lost"] >= 2
        audit.rmdir()
        assert anna.delete(f"/api/sessions/{session}").status_code == 200
    lines = list(read_audit(audit))
    assert lines[-1]["lost_before"] >= 2 and lines[-1]["what"].startswith("DELETE /api/sessions/")
