"""Floods a port with requests that have no right token: ``python flood.py PORT KIND RATE SECONDS``.

KIND is ``headers`` (60 KB of cookies, a connection each, the answer not read), ``pipelined`` (small ones, a hundred at
a time on each of 16 connections) or ``single`` (small ones, a connection each). Prints how many it offered a second.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from contextlib import suppress

NUM_CONNECTIONS = 16
BLOB = 100
STEP_S = 0.01
CRUMBS = "; ".join(f"a{n}=1" for n in range(7000))
SMALL = b"GET /api/stats?token=wrong-%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def request(kind: str, number: int) -> bytes:
    """One request of this kind."""
    if kind == "headers":
        return f"GET /api/stats HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {CRUMBS[:60_000]}\r\n\r\n".encode()
    return SMALL % number


class Flood:
    """Offers requests at a rate for some time, and takes what is answered."""

    def __init__(self, port: int, kind: str) -> None:
        self._port = port
        self._kind = kind
        self._open: list[socket.socket] = []
        self.num_offered = 0

    def run(self, rate: float, seconds: float) -> float:
        """The requests a second that were offered."""
        begin_s = time.monotonic()
        while (now_s := time.monotonic() - begin_s) < seconds:
            while self.num_offered < rate * now_s and time.monotonic() - begin_s < seconds:
                with suppress(OSError):
                    self._send()
            self._drain()
            time.sleep(STEP_S)
        return self.num_offered / seconds

    def _send(self) -> None:
        if self._kind == "pipelined":
            self._send_many()
            return
        # counted also where the server no longer takes it: the attacker has sent it
        self.num_offered += 1
        connection = self._connected()
        self._open.append(connection)
        connection.sendall(request(self._kind, self.num_offered))
        if len(self._open) > NUM_CONNECTIONS:
            self._open.pop(0).close()

    def _send_many(self) -> None:
        blob = b"".join(request(self._kind, self.num_offered + n) for n in range(BLOB))
        if len(self._open) < NUM_CONNECTIONS:
            self._open.append(self._connected())
        connection = self._open.pop(0)
        try:
            connection.sendall(blob)
        finally:
            self.num_offered += BLOB
        self._open.append(connection)

    def _drain(self) -> None:
        for connection in select.select(self._open, [], [], 0)[0]:
            try:
                is_open = bool(connection.recv(1 << 20))
            except OSError:
                is_open = False
            if not is_open:
                self._open.remove(connection)
                connection.close()

    def _connected(self) -> socket.socket:
        # another address of this machine than that of whoever has the right token
        return socket.create_connection(("127.0.0.1", self._port), 2, ("127.0.0.3", 0))


if __name__ == "__main__":
    print(Flood(int(sys.argv[1]), sys.argv[2]).run(float(sys.argv[3]), float(sys.argv[4])))
