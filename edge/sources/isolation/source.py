"""Any source in a child process: what hangs or crashes there is killed here, and every wait has a deadline."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from edge.addresses.uris import is_live, kind_of, masked
from edge.errors import MissingError, SourceError
from edge.interfaces import SourceInfo
from edge.metrics.stages import DropCause
from edge.pictures.planes import Planes
from edge.sources.deadlines import DEFAULT_DEADLINES, Deadlines
from edge.sources.isolation.fence import QUESTIONS, Fence
from edge.sources.isolation.messages import (
    Alive,
    Coded,
    CodedPicture,
    End,
    Failure,
    Fenced,
    Group,
    Level,
    Message,
    Opened,
    PacketRing,
    Picture,
    Ring,
    parse_message,
)
from edge.sources.isolation.packet_wire import PacketReceiver
from edge.sources.isolation.process import POLL_S, ChildProcess, SpareChild
from edge.sources.isolation.ring import RingLimit, RingReader, close_files, receive_bytes, send
from edge.types import HealthChange, UInt8
from edge.video.packets import PacketTaker

log = logging.getLogger(__name__)
Wanted = TypeVar("Wanted", Opened, Picture, Coded)
WEIGH_EVERY_S = 1.0
# where packets come in groups, the next of which mostly comes before that
PASSING_POLL_S = 0.25
# of a live source, between two weighings: a camera of 1000 pictures a second sends each twice, coded and decoded
MAX_MESSAGES = 2500
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class IsolatedSource:
    """A source in a process of its own; see ``edge.interfaces.CameraSource``. The pictures lie in shared memory."""

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
        allow_hosts: Sequence[str] = (),
    ) -> None:
        """Start the child and wait until it has opened the source.

        Args:
            uri: the address.
            options: ``decoding``, ``preparation``, ``is_decoded`` as JSON values, see ``edge.sources.isolation.child``.
            deadlines: after which the child is killed.
            is_stopping: asked while waiting; true ends the wait.
            rings: bounds the shared memory over several openings of one stream.
            spare: keeps the child when only the opening failed, for the next attempt; closed by who owns it.
            packets: takes the coded pictures.
            allow_hosts: whom the child may connect to besides the host of the address; ``*`` for everybody.

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
        self._poll_s = POLL_S
        self._weigh_at_s = 0.0
        self._can_ask_again = False
        self._is_live = is_live(uri)
        self._uri = uri
        self._allow_hosts = allow_hosts
        self._num_messages = 0
        self._child = self._started(spare or SpareChild())
        self._channel = self._child.channel
        self._send_lock = threading.Lock()
        with ExitStack() as undo:
            undo.callback(self.close)
            wants: dict[str, Any] = {"deadlines": asdict(deadlines.of_child())}
            # what decodes anything else connects to nobody
            is_fenced = kind_of(uri) in ("network", "file")
            wants |= {} if packets is None else {"packets": kind_of(uri) != "file"}
            try:
                opened = self._ask({"uri": uri, "is_fenced": is_fenced, "options": {**(options or {}), **wants}})
            except SourceError:
                if spare is not None and self._can_ask_again:
                    spare.keep(self._child)
                    undo.pop_all()
                raise
            if opened is None:
                raise SourceError(f"{self._label}: stopped while connecting")
            undo.pop_all()
        self.info = SourceInfo(**opened.info.model_dump())

    def read(self) -> tuple[UInt8, int | None] | None:
        picture = self.read_planes()
        return None if picture is None else (picture[0].bgr, picture[1])

    def read_planes(self) -> tuple[Planes, int | None] | None:
        picture = None if self._is_ended else self._next(Picture, self._deadlines.stall_s)
        if picture is None:
            self._is_ended = True
            return None
        if self._ring is None:
            raise SourceError(f"{self._label}: the decoder process sent a picture without its memory")
        if not self.captured_ns <= picture.captured_ns <= time.monotonic_ns():
            raise SourceError(f"{self._label}: the decoder process sent a picture of another time")
        self.captured_ns = picture.captured_ns
        return self._ring.picture(picture.slot), picture.pts_ns

    def pass_packets(self) -> None:
        """Pass on the packets of a source that is not decoded, until its end or until asked to stop.

        Raises:
            SourceError: it broke, or was silent for too long.
        """
        self._poll_s = PASSING_POLL_S
        while self._next(Coded, self._deadlines.stall_s) is not None:
            pass

    def take_drops(self) -> dict[DropCause, int]:
        taken, self._drops = dict(self._drops), Counter()
        return taken

    def take_changes(self) -> list[HealthChange]:
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

    def _started(self, spare: SpareChild) -> ChildProcess:
        try:
            return spare.take()
        except OSError as error:
            raise SourceError(
                f"{self._label}: no decoder process can be started ({error.strerror}); are there too many files, "
                "processes or too little memory?"
            ) from None

    def _ask(self, request: dict[str, Any]) -> Opened | None:
        """Have the child open the source; its answer, None when stopping."""
        try:
            send(self._channel, request)
        except OSError:
            raise SourceError(f"{self._label}: {self._child.death()}") from None
        return self._next(Opened, self._deadlines.open_s)

    def _next(self, wanted: type[Wanted], limit_s: float) -> Wanted | None:
        """The next message of this kind; None at the source's end, and when stopping."""
        deadline = time.monotonic() + limit_s
        while not self._is_stopping():
            now_s = time.monotonic()
            if now_s > deadline:
                raise SourceError(
                    f"{self._label}: no picture for {limit_s:g} s; the decoder was ended{self._refusal()}"
                )
            if now_s > self._weigh_at_s:
                self._weigh_at_s, self._num_messages = now_s + WEIGH_EVERY_S, 0
                self._refuse_overweight()
            if self._packets is not None:
                self._packets.tell_wanted()
            message = self._receive()
            if isinstance(message, wanted):
                return message
            if isinstance(message, End):
                return None
            if isinstance(message, Alive) and wanted is Picture:
                # pictures come, but none is let through: the camera is not silent
                deadline = time.monotonic() + limit_s
        return None

    def _receive(self) -> Message | None:
        """One message, what it brings noted; None where none came."""
        try:
            if self._child.fence is not None:
                self._child.fence.serve(self._channel, self._poll_s)
            received = receive_bytes(self._channel)
        except (TimeoutError, ConnectionResetError):
            # a child that ends while slots are on their way back resets the connection once; its last words still wait
            return None
        except OSError as error:
            raise SourceError(f"{self._label}: the decoder process cannot be heard ({error.strerror})") from None
        if received is None:
            raise SourceError(f"{self._label}: {self._child.death()}")
        data, fds = received
        try:
            self._refuse_flood()
            message = parse_message(data)
            self._note(message, fds)
        except SourceError as error:
            raise SourceError(f"{self._label}: {error}; it was ended") from None
        finally:
            close_files(fds)
        self._refuse_failure(message)
        return message

    def _note(self, message: Message, fds: list[int]) -> None:
        """Take what a message brings; the files that it needs are taken out of the list.

        Raises:
            SourceError: what it brings cannot be used.
        """
        match message:
            case Fenced():
                self._fence_in(fds)
            case Ring():
                self._ring = self._map(_pop(fds), message)
            case PacketRing() if self._packets is not None:
                self._packets.begin(message, _pop(fds))
            case CodedPicture() if self._packets is not None:
                self._packets.take(message)
            case Group() if self._packets is not None:
                # a flood of packets is one however they come
                self._num_messages += len(message.packets) - 1
                self._packets.take_group(message)
            case Level() if self._packets is not None:
                self._packets.hear(message)
            case Picture():
                if self._packets is not None:
                    for packet in message.packets:
                        self._packets.take(packet)
                self._drops.update(message.drops)
                self._changes += message.health_changes()

    def _refuse_failure(self, message: Message) -> None:
        """Raise what the child says of its source."""
        if isinstance(message, Failure):
            self._can_ask_again = message.can_ask_again
            # what the machine lacks does not come by trying again
            raise MissingError(message.text) if message.is_lacking else SourceError(message.text + self._refusal())

    def _fence_in(self, fds: list[int]) -> None:
        """Answer from now on whom the child may connect to."""
        if not fds:
            log.warning("%s: this kernel or container does not let redirects of cameras be watched", self._label)
        elif str(Path(f"/proc/self/fd/{fds[0]}").readlink()) != QUESTIONS:
            raise SourceError("the decoder process sent another file than the one on which it asks")
        elif self._child.fence is None:
            self._child.fence = Fence(_pop(fds), self._uri, self._allow_hosts)

    def _refusal(self) -> str:
        fence = self._child.fence
        if fence is None or not fence.refused:
            return ""
        return f"; it was sent on to {fence.refused}, which allow_hosts does not name"

    def _refuse_flood(self) -> None:
        self._num_messages += 1
        if self._is_live and self._num_messages > MAX_MESSAGES:
            raise SourceError(f"the decoder process sent {self._num_messages} messages within {WEIGH_EVERY_S:g} s")

    def _refuse_overweight(self) -> None:
        try:
            resident, shared = Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8").split()[1:3]
        except (OSError, ValueError):
            # it has just died: the closed channel says so
            return
        private_mb = (int(resident) - int(shared)) * _PAGE_BYTES / 1e6
        if private_mb > self._deadlines.memory_mb:
            limit = f"{self._deadlines.memory_mb:.0f} MB"
            raise SourceError(f"{self._label}: the decoder grew to {private_mb:.0f} MB, over its {limit}; it was ended")

    def _map(self, fd: int, ring: Ring) -> RingReader:
        self._ring = None
        if not self._rings.wait_for_room(self._is_stopping, self._deadlines.stall_s):
            os.close(fd)
            raise SourceError("pictures of its former openings are still in use, its outputs are stuck")
        generation = ring.generation
        return RingReader(fd, ring.form(), ring.num_slots, lambda slot: self._release(generation, slot), self._rings)

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


def _pop(fds: list[int]) -> int:
    """The file that came with a message.

    Raises:
        SourceError: none came.
    """
    if not fds:
        raise SourceError("the decoder process sent a message without its file")
    return fds.pop(0)
