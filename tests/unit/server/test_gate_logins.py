"""Users at the gate: which sessions and tokens it lets through, and which requests are logins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from e2e.users_show import PASSWORD, USER_TOKEN, write_users
from hypothesis import given
from hypothesis import strategies as st

from edge.server.access import SECURE_SESSION, SESSION, Access
from edge.server.gate_rules import GateRules
from edge.server.logins import MAX_BODY_BYTES, Login, Logins
from edge.server.proxies import Proxies
from edge.users.file import UsersFile
from edge.users.sessions import key_of

COOKIE = "ab" * 32


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> UsersFile:
    return UsersFile(write_users(tmp_path_factory.mktemp("users") / "users.json"))


@pytest.fixture
def rules(users: UsersFile) -> Iterator[GateRules]:
    generation = users.users()["vera"].generation
    sessions = {key_of(COOKIE): ("vera", generation), key_of("cd" * 32): ("vera", "of before")}
    access = Access(users_file=users.path, proxies=Proxies("x-user", ("10.0.0.1",)))
    yield GateRules(access, lambda: True, is_secure=False, users=users, find=sessions.get)


def request(path: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: box", *headers, "", body]).encode()


@pytest.mark.parametrize(
    ("headers", "address", "is_in"),
    [
        ([f"Cookie: {SESSION}={COOKIE}"], "10.0.0.9", True),
        ([f"Cookie: a=b; {SESSION}={COOKIE}"], "10.0.0.9", True),
        ([f"Authorization: Bearer {USER_TOKEN}"], "10.0.0.9", True),
        (["X-User: vera"], "10.0.0.1", True),
        ([f"Cookie: {SESSION}={'cd' * 32}"], "10.0.0.9", False),
        ([f"Cookie: {SESSION}={'ef' * 32}"], "10.0.0.9", False),
        ([f"Cookie: {SESSION}={key_of(COOKIE)}"], "10.0.0.9", False),
        ([f"Cookie: {SECURE_SESSION}={COOKIE}"], "10.0.0.9", False),
        (["X-User: vera"], "10.0.0.9", False),
        (["X-User: vera", "x-user: anna"], "10.0.0.1", False),
        (["X-User: nobody"], "10.0.0.1", False),
        (["XX-User: vera"], "10.0.0.1", False),
        ([], "10.0.0.9", False),
    ],
)
def test_who_is_let_through(rules: GateRules, headers: list[str], address: str, is_in: bool) -> None:
    answer = rules.answer_to(request("/api/stats", *headers), address)
    assert (answer is None) is is_in
    assert answer is None or answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("headers", "num_bytes"),
    [
        (["Content-Length: 20"], 20),
        ([f"Content-Length: {MAX_BODY_BYTES}"], MAX_BODY_BYTES),
        ([f"Content-Length: {MAX_BODY_BYTES + 1}"], None),
        (["Content-Length: -1"], None),
        (["Content-Length: 20", "Content-Length: 10"], None),
        (["Content-Length: 9" * 500], None),
        (["Transfer-Encoding: chunked"], None),
        ([], None),
    ],
)
def test_a_login_is_a_form_of_known_and_bounded_length(
    rules: GateRules, headers: list[str], num_bytes: int | None
) -> None:
    head = request("/login", *headers, method="POST")
    form = rules.form_in(head, "10.0.0.9")
    assert (None if form is None else form.num_bytes) == num_bytes
    if form is None:
        assert (rules.answer_to(head, "10.0.0.9") or b"").startswith(b"HTTP/1.1 413 ")
    assert rules.form_in(request("/login", *headers), "10.0.0.9") is None


@given(st.binary(max_size=300), st.text(max_size=20))
def test_no_bytes_break_the_gate_or_open_it(users: UsersFile, noise: bytes, address: str) -> None:
    access = Access(users_file=users.path, proxies=Proxies("x-user", ("10.0.0.1",)))
    rules = GateRules(access, lambda: True, is_secure=False, users=users)
    for begin in (b"", b"POST /login HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nx-user:", b"GET / HTTP/1.1\r\ncookie:"):
        head = begin + noise + b"\r\n\r\n"
        if rules.form_in(head, address) is None:
            assert (rules.answer_to(head, address) or b"").split()[1] in (b"400", b"401", b"405", b"413")


def answered(users: UsersFile, *bodies: bytes) -> tuple[list[int], list[Login]]:
    """The states of the answers to these forms, and what was told of them."""
    told: list[Login] = []

    async def note(login: Login) -> bool:
        told.append(login)
        return True

    async def ask() -> list[int]:
        logins = Logins(Access(users_file=users.path), users, note)
        return [
            (await logins.answer(body, "10.0.0.9", lambda name: [], is_secure=False, old="")).status for body in bodies
        ]

    return asyncio.run(ask()), told


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_no_form_breaks_the_login_or_opens_it(users: UsersFile, bodies: list[bytes]) -> None:
    assert set(answered(users, *bodies)[0]) <= {400, 401}


@pytest.mark.parametrize(
    "form",
    [
        [("name", "vera"), ("password", PASSWORD + "x")],
        [("name", "vera"), ("password", PASSWORD[:-1])],
        [("name", "VERA"), ("password", PASSWORD)],
        [("name", "vera\0"), ("password", PASSWORD)],
        [("name", "__class__"), ("password", "x")],
        [("name", ""), ("password", PASSWORD)],
        [("name", "vera"), ("password", USER_TOKEN)],
        [("name", "vera"), ("password", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"))],
    ],
)
def test_nearly_right_is_wrong(users: UsersFile, form: list[tuple[str, str]]) -> None:
    states, told = answered(users, urlencode(form).encode())
    assert states == [401] and not told[0].is_right and not told[0].key


def test_a_right_one_begins_a_session_of_its_user(users: UsersFile) -> None:
    states, told = answered(users, urlencode({"name": "vera", "password": PASSWORD}).encode())
    assert states == [303] and told[0].is_right and told[0].user == "vera" and len(told[0].key) == 64
