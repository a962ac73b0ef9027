"""Any source in a child process: what hangs or crashes there is killed here, and every wait has a deadline."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.addresses.uris import kind_of, masked
from edge.errors import MissingError, SourceError
from edge.interfaces import SourceInfo
from edge.metrics.stages import DropCause
from edge.sources.deadlines import DEFAULT_DEADLINES, Deadlines
from edge.sources.health import HealthChange
from edge.sources.isolation.packet_wire import PacketReceiver
from edge.sources.isolation.process import SpareChild
from edge.sources.isolation.ring import RingLimit, RingReader, receive, send
from edge.types import UInt8
from edge.video.packets import PacketTaker

WEIGH_EVERY_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class IsolatedSource:
    """A source in a process of its own; see ``edge.interfaces.Source``. The pictures lie in shared memory."""

    def __init__(
        self,
        uri: str,
        *,
        options: dict[str, Any] | None = None,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        is_stopping: Callable[[], bool] = lambda: False,
        rings: RingLimit | None = None,
        spare: SpareChild | None = None,
        packets: PacketTaker | None = None,
    ) -> None:
        """Start the child and wait until it has opened the source.

        Args:
            uri: the address.
            options: ``decoding`` and ``preparation`` as JSON values, see ``edge.sources.isolation.child``.
            deadlines: after which the child is killed.
            is_stopping: asked while waiting; true ends the wait.
            rings: bounds the shared memory over several openings of one stream.
            spare: keeps the child when only the opening failed, for the next attempt; closed by who owns it.
            packets: takes the coded pictures.

        Raises:
            SourceError: the source cannot be opened, or not in time, or the child died.
            MissingError: the machine lacks what it needs.
        """
        self._label = masked(uri)
        self._deadlines = deadlines
        self._is_stopping = is_stopping
        self._rings = rings or RingLimit()
        self._ring: RingReader | None = None
        self._packets = None if packets is None else PacketReceiver(packets)
        self._drops: Counter[DropCause] = Counter()
        self._changes: list[HealthChange] = []
        self.captured_ns = 0
        self._is_ended = False
        self._weigh_at_s = 0.0
        self._can_ask_again = False
        self._child = spare.take() if spare else SpareChild().take()
        self._channel = self._child.channel
        self._send_lock = threading.Lock()
        try:
            wants: dict[str, Any] = {"deadlines": asdict(deadlines.of_child())}
            wants |= {} if packets is None else {"packets": kind_of(uri) != "file"}
            opened = self._ask({"uri": uri, "options": {**(options or {}), **wants}})
        except (SourceError, MissingError):
            if spare is not None and self._can_ask_again:
                spare.keep(self._child)
            else:
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
        self.captured_ns = message["captured_ns"]
        return self._ring.picture(message["slot"]), message["pts_ns"]

    def take_drops(self) -> dict[DropCause, int]:
        """Cause → pictures that the child took but did not give, since the last call."""
        taken, self._drops = dict(self._drops), Counter()
        return taken

    def take_changes(self) -> list[HealthChange]:
        """What changed in the camera's health since the last call."""
        taken, self._changes = self._changes, []
        return taken

    def close(self) -> None:
        """Kill the child and reap it; pictures that are still in use stay valid."""
        self._child.kill()
        self._ring = None
        with self._send_lock:
            self._channel.close()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Have the child open the source; its answer, None when stopping."""
        try:
            send(self._channel, request)
        except OSError:
            raise SourceError(f"{self._label}: {self._child.death()}") from None
        return self._next({"opened"}, self._deadlines.open_s)

    def _next(self, kinds: set[str], limit_s: float) -> dict[str, Any] | None:
        """The next message of these kinds; None when stopping."""
        deadline = time.monotonic() + limit_s
        while not self._is_stopping():
            now_s = time.monotonic()
            if now_s > deadline:
                raise SourceError(f"{self._label}: no picture for {limit_s:g} s; the decoder was ended")
            if now_s > self._weigh_at_s:
                self._weigh_at_s = now_s + WEIGH_EVERY_S
                self._refuse_overweight()
            message = self._receive()
            if message["kind"] in kinds:
                return message
            if message["kind"] == "alive":
                # pictures come, but none is let through: the camera is not silent
                deadline = time.monotonic() + limit_s
        return None

    def _receive(self) -> dict[str, Any]:
        """One message, its ring, drops and changes noted; of the kind ``nothing`` where none came."""
        try:
            received = receive(self._channel)
        except (TimeoutError, ConnectionResetError):
            # a child that ends while slots are on their way back resets the connection once; its last words still wait
            return {"kind": "nothing"}
        if received is None:
            raise SourceError(f"{self._label}: {self._child.death()}")
        message, fds = received
        if message["kind"] == "error":
            self._can_ask_again = message.get("can_ask_again", False)
            # what the machine lacks does not come by trying again
            raise MissingError(message["text"]) if message.get("is_lacking") else SourceError(message["text"])
        if message["kind"] == "ring":
            self._ring = self._map(fds[0], message)
        elif message["kind"] == "packets" and self._packets is not None:
            self._packets.begin(message, fds[0])
        elif message["kind"] == "packet" and self._packets is not None:
            self._packets.take(message)
        self._drops.update(message.get("drops", {}))
        self._changes += [HealthChange(kind, data) for kind, data in message.get("changes", ())]
        return message

    def _refuse_overweight(self) -> None:
        try:
            resident, shared = Path(f"/proc/{self.pid}/statm").read_text().split()[1:3]
        except (OSError, ValueError):
            # it has just died: the closed channel says so
            return
        private_mb = (int(resident) - int(shared)) * _PAGE_BYTES / 1e6
        if private_mb > self._deadlines.memory_mb:
            limit = f"{self._deadlines.memory_mb:.0f} MB"
            raise SourceError(f"{self._label}: the decoder grew to {private_mb:.0f} MB, over its {limit}; it was ended")

    def _map(self, fd: int, message: dict[str, Any]) -> RingReader:
        self._ring = None
        if not self._rings.wait_for_room(self._is_stopping, self._deadlines.stall_s):
            os.close(fd)
            raise SourceError(f"{self._label}: pictures of its former openings are still in use; its outputs are stuck")
        generation, size = message["generation"], (message["height"], message["width"])
        return RingReader(fd, *size, message["num_slots"], lambda slot: self._release(generation, slot), self._rings)

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
