"""Messages to phones over a push service that checks every one: none lost, none twice, and no service is trusted."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from push_server import Answer, Browser, PushServer, vapid_key

from edge.config.events import PUSH_HOSTS, NotifySettings
from edge.errors import ConfigError, SinkError
from edge.events.joined_delivery import LaterError
from edge.events.message import Message
from edge.events.outbox import Outbox
from edge.events.phones import MAX_OF_USER, MAX_PHONES, NOBODY, Owner, Phone, PhoneBook
from edge.events.schema import Envelope
from edge.events.snooze import Snoozes
from edge.pipeline.messages import Phones
from edge.pipeline.phone_owners import PhoneOwners
from edge.sinks.push import MAX_PAYLOAD_BYTES, PushTarget, load_or_make_key, payload_of
from edge.users.file import User, changed_users
from edge.users.rights import Rights, Role

pytestmark = pytest.mark.real_server
MESSAGE = Message(
    "m-1",
    "door: 2 events",
    "10:00:00 door person 7: zone entered yard",
    Path("/shots/0a.jpg"),
    "door",
    "2026-11-30T10:00:00.000Z",
    (("door", "zone_entered"),),
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PushServer]:
    running = PushServer(tmp_path)
    yield running
    running.end()
    assert running.faults == []


def settings(server: PushServer, **more: Any) -> NotifySettings:
    facts = {"push": True, "contact": server.contact, "push_hosts": ["127.0.0.1"], "push_ca_file": server.ca_file}
    return NotifySettings.model_validate({**facts, "join_s": 0, "cool_down_s": 0, "backoff_base_s": 0.05, **more})


class Rig:
    """Phones next to an outbox, as in a daemon."""

    def __init__(self, folder: Path, wanted: NotifySettings, owners: PhoneOwners | None = None) -> None:
        place = folder / "events.db"
        self.snoozes = Snoozes(folder / "events.snoozes.json")
        self.phones = Phones(wanted, place, self.snoozes, owners)
        self.outbox = Outbox(place, self.phones.target_names)
        self.phones.start(self.outbox)
        self.num_put = 0

    def put(self, count: int = 1, stream: str = "door", kind: str = "tick") -> None:
        for number in range(self.num_put, self.num_put + count):
            facts = {"time": "2026-11-30T07:00:00.000Z", "track_id": number, "data": {"class": "car"}}
            self.outbox.put([Envelope(f"id-{number}", kind, stream, time.time_ns(), json.dumps(facts))])
        self.num_put += count

    def end(self) -> bool:
        self.phones.stop()
        is_clean = self.phones.join(time.monotonic() + 10)
        self.outbox.close()
        return is_clean


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


def target(folder: Path, server: PushServer, browser: Browser, **more: Any) -> tuple[PushTarget, list[Phone]]:
    phone = Phone.of(browser.subscription(), ["127.0.0.1"])
    gone: list[Phone] = []
    key = load_or_make_key(folder / "push.pem")
    return PushTarget("phone", phone, settings(server, **more), key, lambda message: "offered", gone.append), gone


def test_a_phone_reads_what_happened_and_where_to_look(tmp_path: Path, server: PushServer) -> None:
    browser = server.browser()
    target(tmp_path, server, browser)[0].send(MESSAGE, threading.Event())
    assert browser.got == [
        {
            "id": "m-1",
            "title": "door: 2 events",
            "body": "10:00:00 door person 7: zone entered yard",
            "at": "2026-11-30T10:00:00.000Z",
            "open": "#/recordings/door?t=1796032797",
            "picture": "snapshots/0a.jpg",
            "snooze": "offered",
        }
    ]
    (_, headers), *_ = server.requests
    assert headers["ttl"] == "86400" and headers["urgency"] == "high"
    assert stat.S_IMODE((tmp_path / "push.pem").stat().st_mode) == 0o600


def test_a_message_that_is_sent_again_takes_the_place_of_itself(tmp_path: Path, server: PushServer) -> None:
    service, _ = target(tmp_path, server, server.browser())
    other = Message("m-2", "door: tick", "")
    for message in (MESSAGE, MESSAGE, other):
        service.send(message, threading.Event())
    topics = [headers["topic"] for _, headers in server.requests]
    assert topics[0] == topics[1] != topics[2]


@pytest.mark.parametrize("body", ["x" * 100_000, "é🚶" * 10_000, '"\\\n' * 5_000])
def test_a_long_message_gives_way_and_stays_whole(body: str) -> None:
    data = payload_of(Message("m", "t" * 200, body, None, "door" * 16, "2026", ()), "o" * 1500, has_picture=True)
    assert len(data) <= MAX_PAYLOAD_BYTES
    assert body.startswith(json.loads(data)["body"]) and len(json.loads(data)["body"]) > 100


@pytest.mark.parametrize("status", [404, 410])
def test_a_phone_that_is_gone_is_forgotten(tmp_path: Path, server: PushServer, status: int) -> None:
    rig = Rig(tmp_path, settings(server))
    gone, stays = server.browser("gone"), server.browser("stays")
    server.gone_status = status
    for browser in (gone, stays):
        rig.phones.add(browser.subscription())
    rig.put()
    until(lambda: len(stays.got) == len(gone.got) == 1)
    del server.browsers[next(path for path in server.browsers if "gone" in path)]
    rig.put()
    until(lambda: len(stays.got) == 2 and rig.phones.stats()["phones"] == 1)
    assert gone.endpoint not in (tmp_path / "events.phones.secret").read_text()
    assert len(rig.phones.target_names) == 1
    assert rig.end()


@pytest.mark.parametrize(
    ("header", "low_s", "high_s"),
    [
        ("120", 120, 120),
        (300, 200, 300),
        ("99999999999999999999", 21_600, 21_600),
        (-300, 0, 0),
        ("soon", 0, 0),
        ("-5", 0, 0),
    ],
)
def test_a_service_says_when_to_try_again(
    tmp_path: Path, server: PushServer, header: str | int, low_s: float, high_s: float
) -> None:
    """As a text, or as a date so many seconds from now."""
    if isinstance(header, int):
        header = formatdate(time.time() + header, usegmt=True)
    server.answers = [Answer(429, (("retry-after", header),))]
    service, _ = target(tmp_path, server, server.browser())
    with pytest.raises(SinkError, match="status 429") as failed:
        service.send(MESSAGE, threading.Event())
    after_s = failed.value.after_s if isinstance(failed.value, LaterError) else 0
    assert low_s <= after_s <= high_s


def test_nothing_is_sent_before_the_time_that_the_service_names(tmp_path: Path, server: PushServer) -> None:
    rig, browser = Rig(tmp_path, settings(server)), server.browser()
    rig.phones.add(browser.subscription())
    server.answers = [Answer(503, (("retry-after", "2"),))]
    rig.put(3)
    until(lambda: len(server.requests) == 1)
    began_s = time.monotonic()
    until(lambda: len(browser.got) >= 1)
    assert 1.8 < time.monotonic() - began_s < 6
    assert len(server.requests) <= 3
    assert rig.end()


HOSTILE = [
    Answer(500, (), b"x" * 5_000_000),
    Answer(200, (), b"x" * 50_000_000),
    Answer(302, (("location", "https://127.0.0.1:1/elsewhere"),)),
    Answer(307, (("location", "http://169.254.169.254/latest/meta-data"),)),
    Answer(400),
    Answer(403),
    Answer(201, stalls_s=600),
]


def test_a_hostile_service_costs_nobody_else_anything(tmp_path: Path, server: PushServer) -> None:
    """Seven phones whose services stall, redirect, refuse and flood; the eighth is told everything at once."""
    rig = Rig(tmp_path, settings(server, timeout_s=300))
    others = [PushServer(folder) for folder in [tmp_path / str(n) for n in range(len(HOSTILE))] if not folder.mkdir()]
    try:
        for other, answer in zip(others, HOSTILE, strict=True):
            # its certificate is none that is trusted: every other one lies behind the same authority
            other.socket.context.load_cert_chain(server.ca_file)  # type: ignore[attr-defined]
            other.answers = [answer] * 1000
            rig.phones.add(other.browser("hostile").subscription())
        browser = server.browser("good")
        rig.phones.add(browser.subscription())
        for number in range(10):
            rig.put()
            began_s = time.monotonic()
            until(lambda number=number: len(browser.got) == number + 1)  # type: ignore[misc]
            assert time.monotonic() - began_s < 3
        assert {path for path, _ in server.requests} == {browser.endpoint.removeprefix(server.origin)}
        assert all(other.requests for other in others)
        began_s = time.monotonic()
        assert rig.end(), "a service that stalls holds up no stop"
        assert time.monotonic() - began_s < 5
    finally:
        for other in others:
            other.end()


def test_what_was_kept_for_a_phone_is_sent_after_a_restart_with_the_same_key(
    tmp_path: Path, server: PushServer
) -> None:
    rig, browser = Rig(tmp_path, settings(server)), server.browser()
    rig.phones.add(browser.subscription("Pixel"))
    server.answers = [Answer(500)] * 1000
    rig.put(5)
    until(lambda: len(server.requests) >= 1)
    assert rig.end()
    server.answers = []
    again = Rig(tmp_path, settings(server))
    until(lambda: len(browser.got) >= 1)
    assert {vapid_key(headers) for _, headers in server.requests} == {again.phones.key()}
    assert again.end()


SUBSCRIPTION = Browser("https://fcm.googleapis.com/fcm/send/abc").subscription()


def edited(**changes: Any) -> dict[str, Any]:
    return {**SUBSCRIPTION, **changes}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "expected"),
        ([], "expected"),
        ({"endpoint": 7, "keys": {}}, "expected"),
        (edited(keys={"p256dh": 1, "auth": 2}), "expected"),
        (edited(keys={"p256dh": "é", "auth": "AAAA"}), "public key"),
        (edited(keys={**SUBSCRIPTION["keys"], "auth": "AAAA"}), "public key"),
        (edited(keys={**SUBSCRIPTION["keys"], "p256dh": "B" * 87}), "public key"),
        (edited(endpoint="http://fcm.googleapis.com/x"), "https"),
        (edited(endpoint="https://127.0.0.1/x"), "none of push_hosts"),
        (edited(endpoint="https://169.254.169.254/latest"), "none of push_hosts"),
        (edited(endpoint="https://[::1]/x"), "none of push_hosts"),
        (edited(endpoint="https://user@fcm.googleapis.com/x"), "https"),
        (edited(endpoint="https://fcm.googleapis.com.evil.example/x"), "none of push_hosts"),
        (edited(endpoint="https://evil.example/https://fcm.googleapis.com/"), "none of push_hosts"),
        (edited(endpoint="https://evilpush.apple.com/x"), "none of push_hosts"),
        (edited(endpoint="https://fcm.googleapis.com:99999/x"), "none of push_hosts"),
        (edited(endpoint="https://fcm.googleapis.com/x\r\nHost: evil"), "https"),
        (edited(endpoint="https://fcm.googleapis.com/" + "x" * 2000), "https"),
        (edited(endpoint="file:///etc/passwd"), "https"),
    ],
)
def test_only_the_browsers_makers_servers_are_pushed_to(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Phone.of(value, PUSH_HOSTS)


@pytest.mark.parametrize("host", ["fcm.googleapis.com", "updates.push.services.mozilla.com", "web.push.apple.com"])
def test_the_browsers_makers_servers_are_known(host: str) -> None:
    assert Phone.of(edited(endpoint=f"https://{host}/x"), PUSH_HOSTS).host == host


def test_a_makers_name_that_leads_into_this_network_is_not_followed(
    tmp_path: Path, server: PushServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name server of this network may lie."""
    import socket

    port = server.server_address[1]
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [here])
    phone = Phone.of(edited(endpoint=f"https://fcm.googleapis.com:{port}/x"), PUSH_HOSTS)
    key = load_or_make_key(tmp_path / "push.pem")
    service = PushTarget("phone", phone, settings(server), key, lambda message: "", lambda phone: None)
    with pytest.raises(SinkError, match=r"fcm\.googleapis\.com cannot be reached \(no address\)"):
        service.send(MESSAGE, threading.Event())
    assert server.requests == []


def test_the_book_of_phones_is_bounded_private_and_survives_damage(tmp_path: Path) -> None:
    path = tmp_path / "phones.json"
    book = PhoneBook(path, PUSH_HOSTS)
    for number in range(MAX_PHONES):
        book.add(edited(endpoint=f"https://fcm.googleapis.com/{number}", name=f"\u202ephone\n{number}" + "x" * 99))
    book.add(edited(endpoint="https://fcm.googleapis.com/0"))
    with pytest.raises(ConfigError, match="take messages already"):
        book.add(edited(endpoint="https://fcm.googleapis.com/one-more"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(PhoneBook(path, PUSH_HOSTS).phones()) == MAX_PHONES
    assert all(phone.name.isprintable() and len(phone.name) <= 64 for phone in PhoneBook(path, PUSH_HOSTS).phones())
    assert PhoneBook(path, ["elsewhere.example"]).phones() == []
    path.write_text('{"phones": [{"endpoint": []}, 7, null, {"endpoint": "https://127.0.0.1/"}]}')
    assert PhoneBook(path, PUSH_HOSTS).phones() == []
    path.write_bytes(b"\xff\x00")
    assert PhoneBook(path, PUSH_HOSTS).phones() == []


def test_a_damaged_key_makes_room_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "push.pem"
    path.write_text("no key")
    load_or_make_key(path)
    assert (tmp_path / "push.pem.broken").read_text() == "no key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_who_is_left_alone_is_told_nothing_and_the_others_are(tmp_path: Path, server: PushServer) -> None:
    rig = Rig(tmp_path, settings(server))
    one, other = server.browser("one"), server.browser("other")
    for browser in (one, other):
        rig.phones.add(browser.subscription())
    rig.put()
    until(lambda: len(one.got) == len(other.got) == 1)
    rig.snoozes.begin(one.got[0]["snooze"], 1)
    for number in range(5):
        rig.put()
        until(lambda number=number: len(other.got) == number + 2)  # type: ignore[misc]
    rig.put(1, kind="line_crossed")
    until(lambda: len(one.got) == 2)
    assert one.got[1]["title"] == "door: line crossed"
    rig.snoozes.begin(one.got[0]["snooze"], 0)
    rig.put()
    until(lambda: len(one.got) == 3)
    assert rig.end()


def written(path: Path, **roles: dict[str, Role]) -> dict[str, Owner]:
    """The users of a file now, as owners; one that was there goes on as it was."""
    with changed_users(path) as users:
        for name in [name for name in users if name not in roles]:
            del users[name]
        for name, table in roles.items():
            before = users.get(name)
            generation = "" if before is None else before.generation
            user = User(name, Rights(table), "", "0" * 64, generation)
            users[name] = user if before is not None else user.with_new_generation()
        return {name: Owner(name, user.generation) for name, user in users.items()}


def titles(browser: Browser) -> list[str]:
    return [one["title"] for one in browser.got]


def test_a_phone_is_told_of_the_cameras_that_its_user_may_see_now(tmp_path: Path, server: PushServer) -> None:
    path = tmp_path / "users.json"
    owners = written(path, anna={"*": "admin"}, doris={"door": "view"})
    rig = Rig(tmp_path, settings(server, neighbours=[["door", "attic"]]), PhoneOwners(path))
    phones = {name: server.browser(name) for name in ("anna", "doris")}
    for name, browser in phones.items():
        rig.phones.add(browser.subscription(name), owners[name])
    # a phone of the device's own tokens sees all
    free = server.browser("free")
    rig.phones.add(free.subscription())
    for stream in ("attic", "door"):
        rig.put(stream=stream)
        until(lambda stream=stream: all(f"{stream}: tick" in titles(one) for one in (phones["anna"], free)))  # type: ignore[misc]
    until(lambda: titles(phones["doris"]) == ["door: tick"])
    # one more camera is hers; another one is not any more
    written(path, anna={"*": "admin"}, doris={"attic": "view"})
    time.sleep(1.2)
    for stream in ("door", "attic"):
        rig.put(stream=stream)
        until(lambda: len(free.got) == rig.num_put)
    until(lambda: titles(phones["doris"]) == ["door: tick", "attic: tick"])
    assert rig.end()


def test_what_waits_for_a_phone_is_not_sent_once_its_user_may_not_see_it(tmp_path: Path, server: PushServer) -> None:
    """A message is tried again and again by then; what of it may still be seen is sent."""
    path = tmp_path / "users.json"
    owner = written(path, doris={"door": "view", "attic": "view"})["doris"]
    rig = Rig(tmp_path, settings(server, neighbours=[["door", "attic"]], join_s=0.5), PhoneOwners(path))
    browser = server.browser("doris")
    rig.phones.add(browser.subscription("doris"), owner)
    server.answers = [Answer(500)] * 10_000
    rig.put(stream="attic")
    rig.put(stream="door")
    until(lambda: len(server.requests) >= 2)
    written(path, doris={"door": "view"})
    time.sleep(1.2)
    num_before = len(browser.got)
    server.answers = []
    until(lambda: len(browser.got) > num_before)
    assert browser.got[-1]["title"] == "door: tick" and "attic" not in json.dumps(browser.got[-1])
    assert rig.end()


@pytest.mark.parametrize("how", ["removed", "other password", "no users any more"])
def test_a_phone_goes_with_its_user(tmp_path: Path, server: PushServer, how: str) -> None:
    path = tmp_path / "users.json"
    owner = written(path, anna={"*": "admin"}, doris={"door": "view"})["doris"]
    rig = Rig(tmp_path, settings(server), PhoneOwners(path))
    browser, free = server.browser("doris"), server.browser("free")
    rig.phones.add(browser.subscription("doris"), owner)
    rig.phones.add(free.subscription("free"))
    rig.put()
    until(lambda: len(browser.got) == len(free.got) == 1)
    match how:
        case "removed":
            written(path, anna={"*": "admin"})
        case "other password":
            with changed_users(path) as users:
                users["doris"] = users["doris"].with_new_generation()
        case _:
            assert rig.end()
            rig = Rig(tmp_path, settings(server), PhoneOwners())
    until(lambda: [phone.name for phone in rig.phones.phones()] == ["free"])
    rig.put()
    # what was on its way when the first one ended may come twice
    until(lambda: len(free.got) >= rig.num_put + (how == "no users any more"))
    assert len(browser.got) == 1
    assert browser.endpoint not in (tmp_path / "events.phones.secret").read_text()
    assert rig.end()


def test_a_wrong_file_of_users_tells_nobody_anything_and_forgets_nobody(tmp_path: Path, server: PushServer) -> None:
    path = tmp_path / "users.json"
    owner = written(path, doris={"door": "view"})["doris"]
    rig = Rig(tmp_path, settings(server), PhoneOwners(path))
    browser = server.browser("doris")
    rig.phones.add(browser.subscription("doris"), owner)
    whole = path.read_text()
    path.write_text("rotten")
    time.sleep(1.5)
    rig.put()
    time.sleep(1)
    path.write_text(whole)
    time.sleep(1.2)
    rig.put(kind="line_crossed")
    until(lambda: titles(browser) == ["door: line crossed"])
    assert rig.end()


def test_whose_a_phone_is_survives_a_restart_and_cannot_be_said_by_a_browser(tmp_path: Path) -> None:
    path, doris = tmp_path / "phones.json", Owner("doris", "abc")
    book = PhoneBook(path, PUSH_HOSTS)
    claimed = edited(owner={"name": "anna", "generation": "abc"})
    book.add(claimed, doris)
    (found,) = PhoneBook(path, PUSH_HOSTS).phones()
    assert found.owner == doris
    assert book.remove(found.endpoint, Owner("doris", "other")) is None
    # who has the browser now is told, and nobody else
    assert book.add(claimed).owner == NOBODY
    assert book.remove(found.endpoint, doris) is None
    assert book.remove(found.endpoint, NOBODY) is not None
    for number in range(MAX_OF_USER):
        book.add(edited(endpoint=f"https://fcm.googleapis.com/{number}"), doris)
    with pytest.raises(ConfigError, match="8 phones of doris take messages already"):
        book.add(edited(endpoint="https://fcm.googleapis.com/more"), doris)
    book.add(edited(endpoint="https://fcm.googleapis.com/more"), Owner("anna", "x"))
    rotten = json.loads(path.read_text())
    rotten["phones"][0]["owner"] = {"name": 7}
    path.write_text(json.dumps(rotten))
    again = PhoneBook(path, PUSH_HOSTS).phones()
    owners = PhoneOwners(None)
    assert again[0].owner not in (NOBODY, doris) and owners.is_gone(again[0].owner)
