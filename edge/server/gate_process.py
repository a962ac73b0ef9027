"""The gate: a process of its own that takes the connections of the port, and lets through who shows a right token or
session. Who has none may log in here.

Started by ``edge.server.gate``. A flood without a token keeps this process busy, which yields to the cameras, and never
the one that has them. A connection of plain HTTP is handed over as it is, with the bytes that were read; one with TLS
is deciphered here and handed over as the end of a pair of sockets.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.addresses.networks import network_of
from edge.server.access import Access
from edge.server.gate_rules import END, MAX_HEAD_BYTES, Form, GateRules
from edge.server.logins import Login, Logins, as_note
from edge.server.proxies import Proxies
from edge.users.file import UsersFile

# the cameras, the engine and the viewers come first
NICENESS = 5
# connections that have not shown a token yet; they end after so long without a whole request
MAX_WAITING = 256
IDLE_S = 15.0
HANDSHAKE_S = 5.0
# how long a body that nobody wants may go on coming, so that its sender reads why
LINGER_S = 1.0
SWEEP_S = 1.0
ACCEPTED_AT_ONCE = 64
# until the next try where no file was left for a connection, or the server had no place for it
PAUSE_S = 0.02
# the server says so often that it lives, and is taken for dead after so long
BEAT = b"."
BEAT_S = 1.0
SILENT_S = 5.0
# what was read of a connection, or the sessions
MAX_MESSAGE_BYTES = 4 * MAX_HEAD_BYTES
# how often the server is asked to note a login where it is too busy to, PAUSE_S apart
NOTED_AFTER = 100
# sessions that are known here; the server, which ends them, knows fewer
MAX_SESSIONS = 1024
# what lies in the pair of sockets of a slow viewer with TLS
PAIR_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class _Visitor:
    """A connection that has not shown a token yet, logs in, or is told why it may not come in."""

    socket: socket.socket
    address: tuple[str, int]
    since_s: float
    head: bytes = b""
    is_refused: bool = False
    is_logging_in: bool = False


class _Gate:
    """Lives in the event loop of the process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, control: socket.socket, listener: socket.socket, setup: dict[str, Any]
    ) -> None:
        self._loop = loop
        self._control = control
        self._listener = listener
        self._tls = _context(setup)
        access = access_in(setup)
        users = None if access.users_file is None else UsersFile(access.users_file)
        # key → user and generation, oldest first
        self._sessions: dict[str, tuple[str, str]] = {key: (user, age) for key, user, age in setup["sessions"]}
        self._num_spoofed = 0
        self._spoof_told_s = float("-inf")
        self._rules = GateRules(
            access,
            self._is_server_alive,
            is_secure=self._tls is not None,
            users=users,
            find=self._sessions.get,
            on_spoof=self._note_spoof,
        )
        self._logins = Logins(access, users, self._note_login)
        if users is not None:
            self._logins.prepare()
        # oldest first
        self._visitors: dict[_Visitor, None] = {}
        self._beat_s = loop.time()
        self._bridges: set[asyncio.Task[None]] = set()
        control.setblocking(False)
        listener.setblocking(False)
        loop.add_reader(control, self._hear)
        loop.add_reader(listener, self._accept)
        self._sweep()

    def _is_server_alive(self) -> bool:
        return self._loop.time() - self._beat_s < SILENT_S

    def _hear(self) -> None:
        """The server lives, tells of a session, or has ended."""
        try:
            told = self._control.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        self._beat_s = self._loop.time()
        if not told:
            self._loop.stop()
        elif told != BEAT:
            facts = json.loads(told)
            self._sessions.pop(facts["over"], None)
            if facts.get("begun"):
                self._keep(*facts["begun"])

    def _keep(self, key: str, user: str, generation: str) -> None:
        self._sessions[key] = (user, generation)
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    async def _note_login(self, login: Login) -> bool:
        """Have the server keep the session, which comes before the first connection that shows it."""
        note = json.dumps({"login": as_note(login)}).encode()
        for _ in range(NOTED_AFTER):
            if self._send(note):
                break
            await asyncio.sleep(PAUSE_S)
        else:
            return False
        if login.key:
            self._keep(login.key, login.user, login.generation)
        if login.old:
            self._sessions.pop(login.old, None)
        return True

    def _note_spoof(self, address: str) -> None:
        """Somebody names a user as only trusted proxies may; the server is told the number, once a second at most."""
        self._num_spoofed += 1
        now_s = self._loop.time()
        if now_s - self._spoof_told_s < SWEEP_S:
            return
        self._spoof_told_s = now_s
        if self._send(json.dumps({"spoofed": self._num_spoofed, "address": address}).encode()):
            self._num_spoofed = 0

    def _send(self, note: bytes) -> bool:
        try:
            self._control.send(note)
        except OSError:
            return False
        return True

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # gone again, or no file is left: one that waits makes room
                self._make_room(0)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(PAUSE_S, self._loop.add_reader, self._listener, self._accept)
                return
            connection.setblocking(False)
            self._make_room(MAX_WAITING - 1)
            visitor = _Visitor(connection, address[:2], self._loop.time())
            self._visitors[visitor] = None
            if self._tls is None:
                self._read(visitor)
            else:
                task = self._loop.create_task(self._decipher(visitor, self._tls))
                self._bridges.add(task)
                task.add_done_callback(self._bridges.discard)

    def _make_room(self, most: int) -> None:
        """End the oldest connection of the network that has the most, where there are more than ``most``."""
        if len(self._visitors) <= most:
            return
        crowds = Counter(network_of(visitor.address[0]) for visitor in self._visitors)
        crowd = max(crowds, key=crowds.__getitem__)
        self._drop(next(visitor for visitor in self._visitors if network_of(visitor.address[0]) == crowd))

    def _sweep(self) -> None:
        now_s = self._loop.time()
        for visitor in list(self._visitors):
            if now_s - visitor.since_s > (LINGER_S if visitor.is_refused else IDLE_S):
                self._drop(visitor)
        self._loop.call_later(SWEEP_S, self._sweep)

    def _drop(self, visitor: _Visitor) -> None:
        """Close the connection; may be called twice."""
        if visitor not in self._visitors:
            return
        del self._visitors[visitor]
        if self._tls is None and not visitor.is_logging_in:
            self._loop.remove_reader(visitor.socket)
            visitor.socket.close()
            return
        # the task that owns it reads its end then
        with suppress(OSError):
            visitor.socket.shutdown(socket.SHUT_RDWR)

    # plain HTTP

    def _read(self, visitor: _Visitor) -> None:
        """More of the request has come, or nothing yet."""
        try:
            data = visitor.socket.recv(MAX_HEAD_BYTES + 1 - len(visitor.head))
        except BlockingIOError:
            # known to the loop only now: most requests have come whole by the time that they are accepted
            self._loop.add_reader(visitor.socket, self._read, visitor)
            return
        except OSError:
            data = b""
        if visitor.is_refused:
            # a body that nobody wants; what has been read does not count
            if not data:
                self._drop(visitor)
            return
        visitor.head += data
        if END in visitor.head or len(visitor.head) > MAX_HEAD_BYTES:
            self._decide(visitor)
        elif not data:
            self._drop(visitor)
        else:
            self._loop.add_reader(visitor.socket, self._read, visitor)

    def _decide(self, visitor: _Visitor) -> None:
        if form := self._rules.form_in(visitor.head, visitor.address[0]):
            self._loop.remove_reader(visitor.socket)
            visitor.is_logging_in = True
            task = self._loop.create_task(self._log_in(visitor, form))
            self._bridges.add(task)
            task.add_done_callback(self._bridges.discard)
            return
        answer = self._rules.answer_to(visitor.head, visitor.address[0])
        if answer is None:
            self._loop.remove_reader(visitor.socket)
            self._let_in(visitor)
            return
        with suppress(OSError):
            visitor.socket.send(answer)
            visitor.socket.shutdown(socket.SHUT_WR)
        if visitor.head.startswith((b"GET ", b"HEAD ")):
            self._drop(visitor)
            return
        # closed at once, it would lose the answer over the body that still comes
        visitor.is_refused, visitor.head, visitor.since_s = True, b"", self._loop.time()
        self._loop.add_reader(visitor.socket, self._read, visitor)

    async def _log_in(self, visitor: _Visitor, form: Form) -> None:
        connection, body = visitor.socket, visitor.head.partition(END)[2]
        try:
            while len(body) < form.num_bytes:
                more = await asyncio.wait_for(self._loop.sock_recv(connection, form.num_bytes - len(body)), IDLE_S)
                if not more:
                    return
                body += more
            answer = await self._answer_to(form, body[: form.num_bytes])
            await asyncio.wait_for(self._loop.sock_sendall(connection, answer), LINGER_S)
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            self._visitors.pop(visitor, None)
            connection.close()

    async def _answer_to(self, form: Form, body: bytes) -> bytes:
        answer = await self._logins.answer(body, form.address, form.headers, is_secure=form.is_secure, old=form.session)
        return self._rules.login_answer(answer)

    def _let_in(self, visitor: _Visitor) -> None:
        """Give the connection to the server; one that is too busy for it is asked again."""
        if visitor not in self._visitors:
            return
        if self._hand_over(visitor, visitor.socket, visitor.head):
            self._drop(visitor)
        else:
            self._loop.call_later(PAUSE_S, self._let_in, visitor)

    def _hand_over(self, visitor: _Visitor, connection: socket.socket, first: bytes) -> bool:
        """Give the server a connection, and what was read of it; False where so many wait there that none is taken."""
        facts = json.dumps({"address": visitor.address, "is_secure": self._tls is not None}).encode()
        try:
            socket.send_fds(self._control, [facts + b"\n" + first], [connection.fileno()])
        except OSError:
            return False
        return True

    # TLS

    async def _decipher(self, visitor: _Visitor, tls: ssl.SSLContext) -> None:
        reader = asyncio.StreamReader(MAX_HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, visitor.socket, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S
            )
        except (OSError, ssl.SSLError):
            self._visitors.pop(visitor, None)
            visitor.socket.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            await self._bridge(visitor, reader, writer)
        except (OSError, ssl.SSLError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._visitors.pop(visitor, None)
            writer.close()

    async def _bridge(self, visitor: _Visitor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(END), IDLE_S)
        except asyncio.LimitOverrunError:
            head = await reader.read(MAX_HEAD_BYTES + 1)
        answer: bytes | None
        if form := self._rules.form_in(head, visitor.address[0]):
            body = await asyncio.wait_for(reader.readexactly(form.num_bytes), IDLE_S)
            answer = await self._answer_to(form, body)
        else:
            answer = self._rules.answer_to(head, visitor.address[0])
        if answer is not None:
            writer.write(answer)
            await asyncio.wait_for(writer.drain(), LINGER_S)
            return
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_BYTES)
            while not self._hand_over(visitor, theirs, head):
                await asyncio.sleep(PAUSE_S)
                if visitor not in self._visitors:
                    ours.close()
                    return
        self._visitors.pop(visitor, None)
        back_reader, back_writer = await asyncio.open_connection(sock=ours)
        try:
            await _both_ways(reader, writer, back_reader, back_writer)
        finally:
            back_writer.close()


async def _both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    back_reader: asyncio.StreamReader,
    back_writer: asyncio.StreamWriter,
) -> None:
    """Carry bytes until one side ends."""
    pumps = [asyncio.ensure_future(_pump(reader, back_writer)), asyncio.ensure_future(_pump(back_reader, writer))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PAIR_BYTES):
        writer.write(data)
        await writer.drain()


def facts_of(access: Access) -> dict[str, Any]:
    """What the gate must know of the access, as JSON values."""
    return {
        "operate": access.operate,
        "view": access.view,
        "users_file": None if access.users_file is None else str(access.users_file.absolute()),
        "header": access.proxies.header,
        "trusted": access.proxies.trusted,
        "max_s": access.max_s,
        "snooze_key": access.snooze_key.hex(),
    }


def access_in(setup: dict[str, Any]) -> Access:
    """The inverse of ``facts_of``."""
    users_file = None if setup["users_file"] is None else Path(setup["users_file"])
    proxies = Proxies(setup["header"], tuple(setup["trusted"]))
    return Access(
        setup["operate"],
        setup["view"],
        snooze_key=bytes.fromhex(setup["snooze_key"]),
        users_file=users_file,
        proxies=proxies,
        max_s=setup["max_s"],
    )


def _context(setup: dict[str, Any]) -> ssl.SSLContext | None:
    if not setup["cert"]:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(setup["cert"], setup["key"])
    return context


def main() -> None:
    """Serve until the other end of the control socket closes, whose number is the argument."""
    # the terminal's Ctrl-C and systemd's SIGTERM are the server's to answer, which ends us
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # a sandbox may forbid it
    with suppress(OSError):
        os.nice(NICENESS)
    control = socket.socket(fileno=int(sys.argv[1]))
    setup, files, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
    if not files:
        return
    loop = asyncio.new_event_loop()
    _Gate(loop, control, socket.socket(fileno=files[0]), json.loads(setup))
    loop.run_forever()
    # connections that are open end with the process: there is nothing to close in order
    os._exit(0)


if __name__ == "__main__":
    main()
