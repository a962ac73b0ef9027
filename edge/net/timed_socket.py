"""A TCP or TLS connection whose other end may be silent, slow or endless: every use has a deadline and a byte limit.

A socket's own timeout starts again with every byte, so a peer that sends one now and then holds it for ever.
"""

from __future__ import annotations

import errno
import io
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass


@dataclass(slots=True)
class Limits:
    """What the other end may use up until somebody grants more.

    Attributes:
        deadline_s: by ``time.monotonic()``.
        bytes_left: that it may still send.
    """

    deadline_s: float = 0.0
    bytes_left: int = 0

    def grant(self, deadline_s: float, max_bytes: int) -> None:
        """Begin a use of the connection."""
        self.deadline_s, self.bytes_left = deadline_s, max_bytes

    def left_s(self) -> float:
        """Raises: TimeoutError: nothing."""
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "it took too long")
        return left_s

    def take(self, num_bytes: int) -> None:
        """Count what came. Raises: OSError: it was too much."""
        self.bytes_left -= num_bytes
        if self.bytes_left < 0:
            raise OSError(errno.EMSGSIZE, "it sends too much")


class TimedSocket:
    """Used by one thread. Has what ``http.client`` asks of a socket."""

    def __init__(self, connected: socket.socket, limits: Limits) -> None:
        """Args: an open connection, and its limits, which the owner grants again."""
        self._socket = connected
        self._limits = limits

    @classmethod
    def connect(
        cls,
        host: str,
        port: int,
        limits: Limits,
        tls: ssl.SSLContext | None,
        is_allowed: Callable[[str], bool] = lambda address: True,
    ) -> TimedSocket:
        """Try the host's addresses until one answers; each has its share of the time that is left.

        Args:
            host, port, limits, tls: where, and within which limits.
            is_allowed: whether an address may be connected to; the others of the host are left out.

        Raises:
            OSError: none did, or its certificate is not right.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [one for one in found if is_allowed(str(one[4][0]))]
        failure = OSError(errno.EADDRNOTAVAIL, "no address")
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(limits.left_s() / (len(addresses) - tried))
                plain.connect(address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return cls(plain if tls is None else _wrapped(plain, tls, host, limits), limits)
            except OSError as error:
                plain.close()
                failure = error
        raise failure

    def sendall(self, data: bytes | memoryview) -> None:
        """Raises: OSError: the other end is gone, or takes it too slowly."""
        left = memoryview(data)
        while left:
            self._socket.settimeout(self._limits.left_s())
            left = left[self._socket.send(left) :]

    def recv(self, max_bytes: int) -> bytes:
        """The next bytes, empty at the end. Raises: OSError: none came in time, or too many."""
        self._socket.settimeout(self._limits.left_s())
        data = self._socket.recv(max_bytes)
        self._limits.take(len(data))
        return data

    def recv_ready(self, max_bytes: int) -> bytes | None:
        """What is there already; None: nothing, empty: the end."""
        self._socket.settimeout(0)
        try:
            data = self._socket.recv(max_bytes)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        self._limits.take(len(data))
        return data

    def makefile(self, mode: str) -> io.BufferedReader:
        """What ``http.client`` reads answers from."""
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._socket, self._limits))

    def close(self) -> None:
        """May be called twice; a file of ``makefile`` stays open."""
        self._socket.close()

    def abort(self) -> None:
        """End what another thread waits for."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class _Reader(io.RawIOBase):
    """Reads a socket within its limits."""

    def __init__(self, connected: socket.socket, limits: Limits) -> None:
        self._socket = connected
        self._limits = limits
        self._raw = connected.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        self._socket.settimeout(self._limits.left_s())
        num_bytes = self._raw.readinto(buffer)
        self._limits.take(num_bytes or 0)
        return num_bytes

    def close(self) -> None:
        self._raw.close()
        super().close()


def _wrapped(plain: socket.socket, tls: ssl.SSLContext, host: str, limits: Limits) -> ssl.SSLSocket:
    plain.settimeout(limits.left_s())
    return tls.wrap_socket(plain, server_hostname=host)
