"""A bad network in front of a real camera: a TCP proxy that delays, damages, swallows or cuts what passes."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from typing import Literal

NetworkFault = Literal["none", "refuse", "silent", "half_open", "drip", "corrupt", "disconnect"]
CHUNK_BYTES = 65_536
# a handshake must get through before a stream can be damaged
SPARED_BYTES = 6_000


class ChaosProxy:
    """Listens on 127.0.0.1 and passes everything on to one server; ``set_fault`` changes how, at once."""

    def __init__(self, host: str, port: int) -> None:
        """Args: where the real camera is."""
        self.fault: NetworkFault = "none"
        self._target = (host, port)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="chaos proxy", daemon=True).start()

    def set_fault(self, fault: NetworkFault) -> None:
        """Behave like this from now on; what is refused or silent begins with a cut."""
        self.fault = fault
        if fault in ("refuse", "silent"):
            self._cut()

    def close(self) -> None:
        """End all connections and threads."""
        self._stopping.set()
        _shut(self._listener)
        self._listener.close()
        self._cut()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                # closed
                return
            threading.Thread(target=self._serve, args=(client,), name="chaos link", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.fault == "refuse":
            client.close()
            return
        try:
            with client, socket.create_connection(self._target, 5.0) as server:
                with self._lock:
                    self._open |= {client, server}
                self._pass_on(client, server)
        except OSError:
            # one of the two has gone: the other one sees it too
            pass
        finally:
            with self._lock:
                self._open -= {sock for sock in self._open if sock.fileno() < 0}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        started, num_bytes, chance = time.monotonic(), 0, random.Random(3)
        while not self._stopping.is_set():
            if self.fault == "disconnect" and time.monotonic() - started > 1.0:
                return
            if self.fault in ("silent", "half_open"):
                self._stopping.wait(0.02)
                continue
            for ready in select.select([client, server], [], [], 0.05)[0]:
                data = ready.recv(CHUNK_BYTES)
                if not data:
                    return
                num_bytes += len(data)
                if ready is server and self.fault == "corrupt" and num_bytes > SPARED_BYTES:
                    data = _damaged(data, chance)
                self._send(client if ready is server else server, data)

    def _send(self, to: socket.socket, data: bytes) -> None:
        if self.fault != "drip":
            to.sendall(data)
            return
        for start in range(0, len(data), 16):
            to.sendall(data[start : start + 16])
            if self.fault == "drip" and self._stopping.wait(0.2):
                return

    def _cut(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """The data with some bytes changed in its payload; frames of the transport keep their lengths."""
    broken = bytearray(data)
    for _ in range(1 + len(broken) // 400):
        place = chance.randrange(len(broken))
        # never a dollar sign: it begins an interleaved packet, and its loss only tests the server's framing
        if broken[place] != ord("$"):
            broken[place] = chance.randrange(256)
    return bytes(broken)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # it was closed by the other side already
        return
