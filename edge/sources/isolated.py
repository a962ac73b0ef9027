"""Any source in a child process: what hangs or crashes there is killed here, and every wait has a deadline."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.errors import SourceError
from edge.interfaces import SourceInfo
from edge.ring import RingReader, receive, send
from edge.types import UInt8
from edge.uris import masked

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a source may stay silent. Seconds: until it is opened, and between two pictures."""

    open_s: float = 10.0
    stall_s: float = 5.0


DEFAULT_DEADLINES = Deadlines()


class IsolatedSource:
    """A source in a process of its own; see ``edge.interfaces.Source``. The pictures lie in shared memory."""

    def __init__(
        self,
        uri: str,
        *,
        options: dict[str, Any] | None = None,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        is_stopping: Callable[[], bool] = lambda: False,
        on_drop: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Start the child and wait until it has opened the source.

        Args:
            uri: the address.
            options: keyword arguments of ``edge.sources.choose.open_direct``.
            deadlines: after which the child is killed.
            is_stopping: asked while waiting; true ends the wait.
            on_drop: told how many pictures the child had to drop because all slots were in use.

        Raises:
            SourceError: the source cannot be opened, or not in time, or the child died.
        """
        self._label = masked(uri)
        self._deadlines = deadlines
        self._is_stopping = is_stopping
        self._on_drop = on_drop
        self._ring: RingReader | None = None
        self.captured_ns = 0
        self._is_ended = False
        self._channel, self._process = _start_child()
        self._send_lock = threading.Lock()
        try:
            send(self._channel, {"uri": uri, "options": options or {}})
            opened = self._next({"opened"}, deadlines.open_s)
        except (SourceError, OSError):
            self.close()
            raise
        if opened is None:
            self.close()
            raise SourceError(f"{self._label}: stopped while connecting")
        self.info = SourceInfo(**opened["info"])

    def read(self) -> tuple[UInt8, int | None] | None:
        message = None if self._is_ended else self._next({"frame", "end"}, self._deadlines.stall_s)
        if message is None or message["kind"] == "end" or self._ring is None:
            self._is_ended = True
            return None
        if message["dropped"]:
            self._on_drop(message["dropped"])
        self.captured_ns = message["captured_ns"]
        return self._ring.picture(message["slot"]), message["pts_ns"]

    def close(self) -> None:
        """Kill the child and reap it; pictures that are still in use stay valid."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        with self._send_lock:
            self._channel.close()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def _next(self, kinds: set[str], limit_s: float) -> dict[str, Any] | None:
        """The next message of these kinds; None when stopping."""
        deadline = time.monotonic() + limit_s
        while not self._is_stopping():
            if time.monotonic() > deadline:
                raise SourceError(f"{self._label}: no picture for {limit_s:g} s; the decoder was ended")
            try:
                received = receive(self._channel)
            except TimeoutError:
                continue
            except ConnectionResetError:
                received = None
            if received is None:
                raise SourceError(f"{self._label}: {self._death()}")
            message, fds = received
            if message["kind"] == "error":
                raise SourceError(message["text"])
            if message["kind"] == "ring":
                self._ring = self._map(fds[0], message)
            elif message["kind"] in kinds:
                return message
        return None

    def _map(self, fd: int, message: dict[str, Any]) -> RingReader:
        generation = message["generation"]
        return RingReader(
            fd, message["height"], message["width"], message["num_slots"], lambda slot: self._release(generation, slot)
        )

    def _release(self, generation: int, slot: int) -> None:
        """Give a slot back; runs in whichever thread drops the last reference to a picture."""
        with self._send_lock:
            if self._channel.fileno() < 0:
                return
            try:
                self._channel.sendmsg([b'{"generation":%d,"release":%d}' % (generation, slot)], (), socket.MSG_DONTWAIT)
            except OSError:
                # the child is gone or hangs; the capture thread notices by itself and replaces it
                return

    def _death(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "the decoder process closed its end"
        if code < 0:
            return f"the decoder process was ended by {signal.Signals(-code).name}"
        return f"the decoder process ended with code {code}"


def _start_child() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.capture_child", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # FFmpeg prints addresses with their passwords
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    ours.settimeout(POLL_S)
    return ours, process
