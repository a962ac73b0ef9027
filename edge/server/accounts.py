"""The server's side of logins: sessions, what still holds of who is served, and the audit log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from typing import Any

from edge.errors import DataError
from edge.server.access import Access
from edge.server.known import Known
from edge.server.logins import Login, Logins
from edge.users.audit import AuditLog
from edge.users.file import UsersFile
from edge.users.rights import Who
from edge.users.sessions import Session, Sessions

log = logging.getLogger(__name__)
CHECK_S = 0.5
# a player asks for many parts of a recording: one line of the audit log tells of all within this time
LOOK_S = 60.0
MAX_LOOKS = 2048
TOLD_EVERY_S = 60.0


class Accounts:
    """Lives in the server's event loop.

    Args:
        access: as it is configured.

    Attributes:
        known: tells who a request comes from.
        logins: for those that come in over a connection that was let through before.
        tell_gate: of sessions that have ended or begun here.
        num_spoofed: requests that named a user as only trusted proxies may.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self.users = None if access.users_file is None else UsersFile(access.users_file)
        self.sessions = Sessions(access.idle_s, access.max_s, on_end=lambda key: self.tell_gate(over=key))
        self.known = Known(access, self.users, self._find)
        self.logins = Logins(access, self.users, self._login_here)
        self.audit = None if access.audit_file is None else AuditLog(access.audit_file, access.audit_bytes)
        self.tell_gate: Callable[..., None] = lambda **facts: None
        self.num_spoofed = 0
        self._spoof_told_s = float("-inf")
        self._looks: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._served: dict[asyncio.Task[None], Who] = {}
        self._checker: asyncio.TimerHandle | None = None
        self._notes: set[asyncio.Task[None]] = set()

    def _find(self, key: str) -> tuple[str, str] | None:
        session = self.sessions.get(key)
        return None if session is None else (session.user, session.generation)

    # what the gate tells

    def hear(self, told: dict[str, Any]) -> None:
        """A login, or a number of requests that named a user as only trusted proxies may."""
        if "login" in told:
            login = Login(**{field.name: told["login"][field.name] for field in fields(Login)})
            self._keep(login)
            task = asyncio.get_running_loop().create_task(self._note_login(login))
            self._notes.add(task)
            task.add_done_callback(self._notes.discard)
        else:
            self.note_spoof(told["address"], told["spoofed"])

    async def _login_here(self, login: Login) -> bool:
        self._keep(login)
        if login.key:
            self.tell_gate(begun=(login.key, login.user, login.generation))
        await self._note_login(login)
        return True

    def _keep(self, login: Login) -> None:
        if login.old:
            self.sessions.end(login.old)
        if login.key:
            self.sessions.begin(login.key, login.user, login.generation, login.address)

    async def _note_login(self, login: Login) -> None:
        # who cannot log in where the disk is full cannot see why
        with suppress(DataError):
            await self.note("login" if login.is_right else "wrong login", login.user or "unknown", login.address)

    def note_spoof(self, address: str, count: int = 1) -> None:
        """Somebody who is no trusted proxy named a user."""
        self.num_spoofed += count
        if time.monotonic() - self._spoof_told_s > TOLD_EVERY_S:
            self._spoof_told_s = time.monotonic()
            header = self.access.proxies.header
            log.warning("server: %s sends %s and is no trusted proxy: it is ignored", address, header)

    # what still holds

    def again(self, who: Who) -> Who | None:
        """The same with its rights as they are now; None where it is let in no more."""
        if who.kind != "user" or self.users is None:
            return who
        user = self.users.users().get(who.name)
        if user is None or user.generation != who.generation:
            return None
        if who.session and self.sessions.get(who.session) is None:
            return None
        return who if user.rights == who.rights else Who(who.name, "user", user.rights, who.session, who.generation)

    def still_sees(self, who: Who, camera: str) -> bool:
        """Whether this camera may be shown to it on."""
        now = self.again(who)
        return now is not None and now.rights.may("view", camera)

    async def serve(self, who: Who, act: Callable[[], Any]) -> None:
        """Answer a request; it breaks off within ``CHECK_S`` of a change of what it may do."""
        if who.kind != "user":
            await act()
            return
        task = asyncio.ensure_future(act())
        self._served[task] = who
        if self._checker is None:
            self._checker = asyncio.get_running_loop().call_later(CHECK_S, self._check)
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise
        finally:
            self._served.pop(task, None)
        # one that broke off leaves its answer unfinished, which ends the connection
        with suppress(asyncio.CancelledError):
            task.result()

    def _check(self) -> None:
        self._checker = None
        for task, who in list(self._served.items()):
            # a stream that is watched is in use
            if self.again(who) is not who:
                task.cancel()
        if self._served:
            self._checker = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def for_gate(self) -> list[tuple[str, str, str]]:
        """What a gate that begins must know of sessions: key, user, generation."""
        return [(one.key, one.user, one.generation) for one in self.live_sessions()]

    def live_sessions(self) -> list[Session]:
        """Those of users that are still there, oldest first."""
        users = {} if self.users is None else self.users.users()
        for session in self.sessions.all():
            user = users.get(session.user)
            if user is None or user.generation != session.generation:
                self.sessions.end(session.key)
        return self.sessions.all()

    # the audit log

    async def note(self, what: str, who: str, address: str, **more: Any) -> None:
        """Write a line, where there is a log. Raises: DataError: it cannot be written."""
        if self.audit is not None:
            await asyncio.to_thread(self.audit.note, what, who, address, **more)

    def is_new_look(self, who: str, address: str, path: str) -> bool:
        """Whether no line tells yet that this is looked at; a minute later it is new again."""
        key, now_s = (who, address, path), time.monotonic()
        is_new = now_s - self._looks.get(key, float("-inf")) > LOOK_S
        if is_new:
            self._looks[key] = now_s
            self._looks.move_to_end(key)
            if len(self._looks) > MAX_LOOKS:
                self._looks.popitem(last=False)
        return is_new

    def forget_look(self, who: str, address: str, path: str) -> None:
        """No line tells of it after all."""
        self._looks.pop((who, address, path), None)

    def stats(self) -> dict[str, Any]:
        """For those that see all cameras."""
        told: dict[str, Any] = {}
        if self.users is not None:
            told |= {"sessions": len(self.sessions.all()), "users": self.users.problem or "good"}
        if self.access.proxies.header:
            told["spoofed"] = self.num_spoofed
        if self.audit is not None:
            told["audit_lost"] = self.audit.num_lost
        return told
