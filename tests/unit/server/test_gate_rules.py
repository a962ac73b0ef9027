"""Who is let in, told by the first bytes of a connection, and how wrong tokens are counted."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.addresses.networks import is_loopback, network_of
from edge.server.access import (
    FAILURE_WINDOW_S,
    MAX_FAILURES,
    MAX_FAILURES_OF_ALL,
    MAX_NETWORKS,
    Access,
    Credentials,
    GuessLimit,
    cookie_of,
)
from edge.server.gate_rules import MAX_HEAD_BYTES, GateRules

OPERATE, VIEW = "operate-0123456789abcdef", "view-0123456789abcdef0"
ACCESS = Access(OPERATE, VIEW)


def rules(*, is_alive: bool = True, is_secure: bool = False) -> GateRules:
    return GateRules(ACCESS, lambda: is_alive, is_secure=is_secure)


def request(path: str = "/", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: device", *headers, "", ""]).encode()


def status(answer: bytes | None) -> int:
    """Of an answer; 0 is who was let in."""
    return 0 if answer is None else int(answer.split()[1])


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/api/stats", [f"Authorization: Bearer {OPERATE}"], 0),
        ("/api/stats", [f"authorization:bearer   {VIEW} "], 0),
        ("/api/stats", [f"Cookie: a=b; edgeloop={cookie_of(VIEW)}; c=d"], 0),
        (f"/?token={OPERATE}&engine=x", [], 0),
        (f"http://device/?a=1&token={OPERATE}", [], 0),
        ("/api/stats", [], 401),
        ("/api/stats", [f"Authorization: Basic {OPERATE}"], 401),
        ("/api/stats", [f"X-Authorization: Bearer {OPERATE}"], 401),
        ("/api/stats", [f"Cookie: notedgeloop={cookie_of(VIEW)}"], 401),
        ("/api/stats", [f"Cookie: edgeloop={VIEW}"], 401),
        (f"/?nottoken={OPERATE}", [], 401),
        (f"/{OPERATE}", [], 401),
        ("/healthz", [], 200),
    ],
)
def test_a_right_token_opens_the_gate(path: str, headers: list[str], expected: int) -> None:
    assert status(rules().answer_to(request(path, *headers), "10.0.0.9")) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES, 431),
        (request("/healthz", method="POST"), 405),
    ],
)
def test_what_is_no_request_is_told_so(head: bytes, expected: int) -> None:
    assert status(rules().answer_to(head, "10.0.0.9")) == expected


def test_a_server_that_does_not_answer_is_not_healthy() -> None:
    assert status(rules(is_alive=False).answer_to(request("/healthz"), "10.0.0.9")) == 503


def test_answers_of_the_gate_are_closed_to_other_sites_and_end_the_connection() -> None:
    answer = rules(is_secure=True).answer_to(request(), "10.0.0.9")
    assert answer is not None
    for header in (b"content-security-policy: default-src 'none'", b"x-content-type-options: nosniff"):
        assert header in answer
    assert b"connection: close" in answer
    assert b"strict-transport-security: max-age=" in answer
    assert b"strict-transport-security" not in (rules().answer_to(request(), "10.0.0.9") or b"")


@given(st.binary(max_size=300), st.text(max_size=20))
def test_no_bytes_break_the_gate_or_open_it(noise: bytes, address: str) -> None:
    for head in (
        noise,
        b"GET /?token=" + noise + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\ncookie:" + noise + b"\r\n\r\n",
    ):
        assert status(rules().answer_to(head, address)) in (400, 401, 405)


@pytest.mark.parametrize(
    "cookie",
    [
        'edgeloop="' + "\\" * 62_000,
        "; ".join(f"a{n}=1" for n in range(7000)),
        "edgeloop=" * 7000,
        ("edgeloop=" + "a" * 63 + " ") * 900,
        " " * 62_000,
    ],
    ids=["backslashes", "crumbs", "names", "nearly", "blanks"],
)
@pytest.mark.parametrize("where", ["authorization", "query", "cookie"])
def test_no_header_takes_long_to_read(where: str, cookie: str) -> None:
    given_ = {"authorization": "", "query": "", "cookie": "", where: cookie}
    begin_s = time.process_time()
    for _ in range(10):
        assert ACCESS.role_of(Credentials.of(**given_)) is None
    # SimpleCookie took 19.6 s for the first of these, and 25 ms for the second
    assert (time.process_time() - begin_s) / 10 < 0.005


# roles


def test_only_a_token_in_the_header_operates() -> None:
    assert ACCESS.role_of(Credentials(bearer=OPERATE)) == "operate"
    assert ACCESS.role_of(Credentials(bearer=VIEW)) == "view"
    assert ACCESS.role_of(Credentials(in_address=OPERATE)) == "view"
    assert ACCESS.role_of(Credentials(cookie=cookie_of(OPERATE))) == "view"
    assert ACCESS.role_of(Credentials(bearer="x", in_address="y", cookie="0" * 64)) is None
    assert ACCESS.role_of(Credentials(bearer="x", cookie=cookie_of(VIEW))) == "view"


# the limit


def guesses(count: int, addresses: Callable[[int], str], headers: Callable[[int], str]) -> list[int]:
    gate = rules()
    return [status(gate.answer_to(request("/", headers(number)), addresses(number))) for number in range(count)]


def bearer(number: int) -> str:
    return f"Authorization: Bearer wrong-{number}"


@pytest.mark.parametrize(
    "headers", [bearer, lambda number: f"Cookie: edgeloop={number:064x}"], ids=["bearer", "cookie"]
)
def test_wrong_tokens_and_cookies_are_counted_alike(headers: Callable[[int], str]) -> None:
    assert guesses(12, lambda _: "10.0.0.9", headers) == [401] * MAX_FAILURES + [429] * 2


@pytest.mark.parametrize("address", ["2001:db8::{:x}", "2001:db8:0:0:{:x}::1"])
def test_the_addresses_of_one_ipv6_network_are_one(address: str) -> None:
    assert guesses(12, lambda number: address.format(number + 1), bearer)[-2:] == [429, 429]


def test_many_addresses_together_are_limited_too() -> None:
    found = guesses(400, lambda number: f"10.0.{number % 200}.1", bearer)
    assert found.count(401) == MAX_FAILURES_OF_ALL
    assert found[-1] == 429


def test_a_right_token_is_never_locked_out() -> None:
    gate = rules()
    for number in range(400):
        gate.answer_to(request("/", bearer(number)), f"10.0.{number % 200}.9")
    for number in range(200):
        address = f"10.0.{number}.9"
        assert status(gate.answer_to(request("/", bearer(number)), address)) == 429
        assert status(gate.answer_to(request("/", f"Authorization: Bearer {VIEW}"), address)) == 0
        assert status(gate.answer_to(request("/", f"Cookie: edgeloop={cookie_of(VIEW)}"), address)) == 0


def test_who_shows_nothing_is_not_counted() -> None:
    assert set(guesses(50, lambda _: "10.0.0.9", lambda _: "Cookie: other=1")) == {401}


def test_a_limit_ends_and_remembers_few() -> None:
    now_s = [0.0]
    limit = GuessLimit(lambda: now_s[0])
    assert [limit.note("10.0.0.9") for _ in range(MAX_FAILURES)] == [0.0] * MAX_FAILURES
    assert limit.note("10.0.0.9") == FAILURE_WINDOW_S
    assert limit.note("10.0.0.8") == 0
    now_s[0] = FAILURE_WINDOW_S
    assert limit.note("10.0.0.9") == 0
    for number in range(2 * MAX_NETWORKS):
        now_s[0] += FAILURE_WINDOW_S
        limit.note(f"10.{number // 256}.{number % 256}.1")
    assert len(limit._failures) == MAX_NETWORKS


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("2001:db8:1:2:3:4:5:6", network_of("2001:db8:1:2::")),
        ("fe80::1%eth0", network_of("fe80::2")),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("device.local", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_what_is_this_machine_alone(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_a_browser_is_shown_where_to_give_the_token() -> None:
    answer = rules().answer_to(request(), "10.0.0.1")
    assert answer is not None
    head, _, page = answer.partition(b"\r\n\r\n")
    assert status(answer) == 401 and b"content-type: text/html" in head
    assert b'name="token" type="password"' in page and b"This is not" not in page
    assert f"content-length: {len(page)}".encode() in head
    # the form may be sent here and nowhere else; no script runs
    assert b"form-action 'self'" in head and b"default-src 'none'" in head
    wrong = rules().answer_to(request("/?token=<script>alert(1)</script>"), "10.0.0.1")
    assert wrong is not None and b"This is not the token." in wrong and b"<script" not in wrong


@pytest.mark.parametrize(("path", "method"), [("/api/stats", "GET"), ("/", "POST"), ("/app.js", "GET")])
def test_programs_are_told_in_plain_text(path: str, method: str) -> None:
    answer = rules().answer_to(request(path, method=method), "10.0.0.1")
    assert answer is not None and b"content-type: text/plain" in answer and b"<form" not in answer
