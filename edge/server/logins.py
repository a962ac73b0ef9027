"""Logins: a name with its password, or a token, in exchange for a cookie.

A password is compared in one thread of low priority, one after the other, so that no flood of logins takes time or
memory from the cameras; few wait, and fewer of one network. Whether a name is known takes no other time and gives no
other answer than whether the password is right.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

from edge.addresses.networks import network_of
from edge.server.access import COOKIE, SECURE_SESSION, SESSION, Access, GuessLimit, cookie_of
from edge.server.login import LOGIN_HEADERS, login_page, words
from edge.server.proxies import Headers, is_same_origin
from edge.users.file import UsersFile
from edge.users.sessions import key_of

PATH = "/login"
MAX_BODY_BYTES = 4096
# one is compared at a time
MAX_WAITING, MAX_WAITING_OF_NETWORK = 8, 3
BUSY_S = 2
# lower than that of the gate; with the lowest one a login on a busy device took more than 5 s
NICENESS = 10
DEVICE_COOKIE_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """What a login is answered: a page or a redirect, as plain HTTP; ``cookies`` are whole Set-Cookie values."""

    status: int
    words: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Login:
    """What came of a login, for who keeps sessions and the log.

    Attributes:
        key: of the new session, empty where none began.
        old: key of the session that the browser had, which is over.
    """

    is_right: bool
    user: str
    generation: str = ""
    key: str = ""
    old: str = ""
    address: str = ""


class Logins:
    """Lives in one event loop.

    Args:
        access: the tokens and users.
        users: None where there are none.
        on_login: told of every login that was looked at, before it is answered; False: not now.
    """

    def __init__(self, access: Access, users: UsersFile | None, on_login: Callable[[Login], Awaitable[bool]]) -> None:
        self._access = access
        self._users = users
        self._on_login = on_login
        self._limit = GuessLimit()
        self._waiting: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(1, "login", _yield_to_others)

    def prepare(self) -> None:
        """Have the thread ready, so that the first login takes no longer than others."""
        self._threads.submit(_nothing)

    async def answer(self, body: bytes, address: str, headers: Headers, *, is_secure: bool, old: str) -> LoginAnswer:
        """What a form is answered.

        Args:
            body: as a browser sends it.
            address: that it comes from.
            headers: of the request.
            is_secure: whether the browser speaks HTTPS.
            old: the cookie of the session that it has, empty if none.
        """
        if not is_same_origin(headers, is_told=False):
            return LoginAnswer(403, "another site has made this form; open the page itself\n")
        name, secret = _form(body)
        if not secret:
            return _page(400, "login.nothing")
        wait_s = self._limit.note(address)
        if wait_s:
            return _page(429, "login.wait", {"retry-after": f"{wait_s:.0f}"}, seconds=f"{wait_s:.0f}")
        network = network_of(address)
        if name and (self._waiting.total() >= MAX_WAITING or self._waiting[network] >= MAX_WAITING_OF_NETWORK):
            self._limit.forgive(address)
            return _page(503, "login.busy", {"retry-after": str(BUSY_S)})
        self._waiting[network] += 1
        try:
            login, cookies = await self._looked_at(name, secret, address, is_secure=is_secure)
        finally:
            self._waiting[network] -= 1
            self._waiting += Counter()
        if login.is_right:
            self._limit.forgive(address)
        if not await self._on_login(_with_old(login, old)):
            return _page(503, "login.busy", {"retry-after": str(BUSY_S)})
        if not login.is_right:
            return _page(401, "login.wrong")
        return LoginAnswer(303, headers={"location": "/"}, cookies=cookies)

    async def _looked_at(
        self, name: str, secret: str, address: str, *, is_secure: bool
    ) -> tuple[Login, tuple[str, ...]]:
        if not name and (role := self._access.role_of_token(secret)):
            device = _cookie(COOKIE, cookie_of(secret), DEVICE_COOKIE_S, is_secure=is_secure)
            login = Login(True, f"{role} token", address=address)
            return login, (device, gone(is_secure=is_secure))
        users = self._users
        known = {} if users is None else users.users(is_fresh=True)
        user = known.get(name) if name else None if users is None else users.of_token(secret)
        if name:
            from edge.users.passwords import is_right

            loop, hashed = asyncio.get_running_loop(), "" if user is None else user.password
            is_known = await loop.run_in_executor(self._threads, is_right, hashed, secret)
        else:
            is_known = user is not None
        if user is None or not is_known:
            # what was typed for a name may be a password
            return Login(False, name if user is not None else "", address=address), ()
        cookie = secrets.token_hex(32)
        login = Login(True, user.name, user.generation, key_of(cookie), address=address)
        name = SECURE_SESSION if is_secure else SESSION
        begun = _cookie(name, cookie, int(self._access.max_s), is_secure=is_secure)
        return login, (begun, _cookie(COOKIE, "", 0, is_secure=is_secure))


def gone(*, is_secure: bool) -> str:
    """A Set-Cookie that takes the cookie of a session away."""
    return _cookie(SECURE_SESSION if is_secure else SESSION, "", 0, is_secure=is_secure)


def both_gone(*, is_secure: bool) -> tuple[str, str]:
    """The same for the cookie of a token too."""
    return gone(is_secure=is_secure), _cookie(COOKIE, "", 0, is_secure=is_secure)


def _cookie(name: str, value: str, max_age_s: int, *, is_secure: bool) -> str:
    secure = "; Secure" if is_secure else ""
    return f"{name}={value}; Max-Age={max_age_s}; Path=/; HttpOnly; SameSite=Strict{secure}"


def _with_old(login: Login, old: str) -> Login:
    return replace(login, old=key_of(old)) if old and login.is_right else login


def _form(body: bytes) -> tuple[str, str]:
    """The name and the secret of a form; empty where they are not there."""
    try:
        fields = dict(parse_qsl(body.decode(), max_num_fields=8))
    except ValueError:
        return "", ""
    return fields.get("name", "").strip(), fields.get("password", "")


def _page(status: int, word: str, more: Mapping[str, str] | None = None, **values: str) -> LoginAnswer:
    return LoginAnswer(status, login_page(words(word, **values)), {**LOGIN_HEADERS, **(more or {})})


def _yield_to_others() -> None:
    """Give this thread what processor time is left over; argon2 lets go of the interpreter while it runs."""
    from edge.users.passwords import warm_up

    if sys.platform == "linux":
        # a sandbox may forbid it
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    warm_up()


def _nothing() -> None:
    """What a thread is begun for."""


def as_note(login: Login) -> dict[str, Any]:
    """For the way from the gate to the server."""
    return asdict(login)
