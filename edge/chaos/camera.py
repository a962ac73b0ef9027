"""A camera on a real socket whose faults are scripted: HTTP with MJPEG, or with a transport stream."""

from __future__ import annotations

import random
import socket
import threading
import time
from itertools import cycle
from typing import Literal, get_args

from edge.chaos.pictures import OTHER_SIZE_PX, SIZE_PX, jpegs, transport_stream

Fault = Literal[
    "none",
    "refuse",
    "unauthorised",
    "silent",
    "half_open",
    "drip",
    "stall_mid_frame",
    "wrong_fps",
    "clock_jump",
    "size_change",
    "corrupt",
    "flood",
    "disconnect",
    "frozen",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)[1:]
FPS = 10.0
BOUNDARY = b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=picture\r\n\r\n"
TS_HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"
DENIED = b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"


class ChaosCamera:
    """Serves pictures on 127.0.0.1; ``set_fault`` changes how, for connections that exist too."""

    def __init__(self, size_px: tuple[int, int] = SIZE_PX) -> None:
        """Args: width and height of its pictures."""
        self.fault: Fault = "none"
        self._size_px = size_px
        self._stopping = threading.Event()
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._acceptor = self._listen(self._listener)

    @property
    def url(self) -> str:
        """With a password that must be found in no output."""
        return f"http://viewer:canarysecret@127.0.0.1:{self.port}/cam.mjpg"

    def set_fault(self, fault: Fault) -> None:
        """Behave like this from now on; who is connected notices at the next picture."""
        was_closed, self.fault = self._listener is None, fault
        if fault == "refuse":
            self._close_listener()
            self._drop_clients()
        elif was_closed:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._acceptor = self._listen(self._listener)
        if fault in ("unauthorised", "silent", "clock_jump"):
            # these begin with the connection
            self._drop_clients()

    def close(self) -> None:
        """End all connections and threads."""
        self._stopping.set()
        self._close_listener()
        self._drop_clients()

    def _listen(self, listener: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=self._accept, args=(listener,), name="chaos camera", daemon=True)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                # closed: the camera refuses connections now
                return
            with self._lock:
                self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), name="chaos client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            client.recv(4096)
            self._answer(client)
        except OSError:
            # the reader has gone, or the script closed the connection
            pass
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()

    def _answer(self, client: socket.socket) -> None:
        if self._while_fault("silent"):
            return
        match self.fault:
            case "unauthorised":
                client.sendall(DENIED)
            case "clock_jump":
                client.sendall(TS_HEADER)
                self._send_transport_stream(client)
            case _:
                client.sendall(HEADER)
                self._send_pictures(client)

    def _send_transport_stream(self, client: socket.socket) -> None:
        for piece in cycle(transport_stream(FPS, jump_every=15, jump_s=3600.0)):
            if self.fault != "clock_jump" or self._stopping.wait(1 / FPS):
                return
            client.sendall(piece)

    def _send_pictures(self, client: socket.socket) -> None:
        started, index, chance = time.monotonic(), 0, random.Random(5)
        while not self._stopping.is_set() and self.fault != "clock_jump":
            fault = self.fault
            if fault == "disconnect" and time.monotonic() - started > 1.0:
                return
            picture = _picture(fault, index, chance, self._size_px)
            self._deliver(client, fault, BOUNDARY % len(picture) + picture + b"\r\n")
            index += 1
            self._stopping.wait(_period_s(fault))

    def _deliver(self, client: socket.socket, fault: Fault, data: bytes) -> None:
        match fault:
            case "half_open":
                self._while_fault(fault)
            case "stall_mid_frame":
                client.sendall(data[: len(data) // 2])
                self._while_fault(fault)
                client.sendall(data[len(data) // 2 :])
            case "drip":
                for start in range(0, len(data), 16):
                    client.sendall(data[start : start + 16])
                    if self.fault == fault and self._stopping.wait(0.2):
                        return
            case _:
                client.sendall(data)

    def _while_fault(self, fault: Fault) -> bool:
        """Do nothing until the fault has gone; whether it was there."""
        was_there = self.fault == fault
        while self.fault == fault and not self._stopping.wait(0.02):
            pass
        return was_there

    def _close_listener(self) -> None:
        if self._listener is not None:
            # only a shutdown wakes the thread that waits in accept
            _shut(self._listener)
            self._listener.close()
            self._listener = None
            self._acceptor.join(2.0)

    def _drop_clients(self) -> None:
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            _shut(client)


def _picture(fault: Fault, index: int, chance: random.Random, size_px: tuple[int, int]) -> bytes:
    """The JPEG of this number under this fault."""
    files = jpegs(OTHER_SIZE_PX if fault == "size_change" and (index // 5) % 2 else size_px)
    data = files[0 if fault == "frozen" else index % len(files)]
    if fault != "corrupt" or index % 2:
        return data
    broken = bytearray(data)
    for _ in range(40):
        broken[chance.randrange(100, len(broken))] = chance.randrange(256)
    return bytes(broken)


def _period_s(fault: Fault) -> float:
    match fault:
        case "flood":
            return 0.1 / FPS
        case "wrong_fps":
            return 3 / FPS
        case _:
            return 1 / FPS


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # it was closed by the other side already
        return
