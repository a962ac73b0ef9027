"""The server's side of the gate: its process, started again if it ends, and the connections that it lets in."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.server.access import Access
from edge.server.gate_process import BEAT, BEAT_S, MAX_MESSAGE_BYTES, facts_of
from edge.threads.python_process import child_environment, python_command

log = logging.getLogger(__name__)
RESTART_S = 0.5
# where the machine has no process or file left, or the last one ended at once
RETRY_S = 2.0
STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class Handed:
    """A connection that was let through.

    Attributes:
        socket: to the client, or to the gate that deciphers.
        address: host and port of the client.
        is_secure: whether the client speaks HTTPS.
        first: the bytes that were read already.
    """

    socket: socket.socket
    address: tuple[str, int]
    is_secure: bool
    first: bytes


class Gate:
    """The process before one listening socket. Used in the server's event loop.

    Args:
        listener: stays open here as well, so that no connection is lost while a new process starts.
        access: at least one token, or users.
        tls: certificate and key.
        take: called with every connection that shows a right token or session.
        hear: called with what the gate tells of logins, as JSON values.
        sessions: those that a new process must know: key, user, generation.
    """

    def __init__(
        self,
        listener: socket.socket,
        access: Access,
        tls: tuple[Path, Path] | None,
        take: Callable[[Handed], None],
        hear: Callable[[dict[str, Any]], None] = lambda told: None,
        sessions: Callable[[], list[tuple[str, str, str]]] = list,
    ) -> None:
        self._listener = listener
        # its current folder is another
        cert, key = (str(path.absolute()) for path in tls) if tls else ("", "")
        self._facts = {**facts_of(access), "cert": cert, "key": key}
        self._take = take
        self._hear = hear
        self._sessions = sessions
        self._loop = asyncio.get_running_loop()
        self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    python_command("edge.server.gate_process", str(theirs.fileno())),
                    env=child_environment(),
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
                # the tokens go this way because others can read command lines and environments
                setup = json.dumps({**self._facts, "sessions": self._sessions()}).encode()
                socket.send_fds(self._control, [setup], [self._listener.fileno()])
            except OSError:
                self._control.close()
                raise
        self._started_s = self._loop.time()
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._receive)
        self._beat()

    def _start_anew(self) -> None:
        try:
            self._start()
        except OSError as error:
            log.warning("live server: its gate cannot be begun (%s); it is tried again", error.strerror)
            self._timer = self._loop.call_later(RETRY_S, self._start_anew)

    def stop(self) -> None:
        """End the process, and the connections that it deciphers; waits for it. May be called twice."""
        self._disconnect()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _disconnect(self) -> None:
        self._timer.cancel()
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()

    def tell(self, *, over: str = "", begun: tuple[str, str, str] | None = None) -> None:
        """A session has ended, or begun: its key, user and generation. What is lost here, the server refuses."""
        with suppress(OSError):
            self._control.send(json.dumps({"over": over, "begun": begun}).encode())

    def _beat(self) -> None:
        # where the gate is too busy to take it there is one already
        with suppress(OSError):
            self._control.send(BEAT)
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    def _receive(self) -> None:
        try:
            data, files, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            data, files = b"", []
        if not data:
            log.warning("live server: its gate ended; it is started again")
            self._disconnect()
            self._process.kill()
            self._process.wait()
            lived_s = self._loop.time() - self._started_s
            self._timer = self._loop.call_later(RESTART_S if lived_s > RETRY_S else RETRY_S, self._start_anew)
            return
        facts, _, first = data.partition(b"\n")
        if not files:
            self._hear(json.loads(facts))
        for number in files:
            given = json.loads(facts)
            connection = socket.socket(fileno=number)
            connection.setblocking(False)
            self._take(Handed(connection, tuple(given["address"]), given["is_secure"], first))
