"""How packets come from a capture child: their bytes through a ring in shared memory, the rest as messages.

The child never waits for a reader of a live camera: a packet for which there is no room is counted and left out.
"""

from __future__ import annotations

import json
import mmap
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from edge.errors import SourceError
from edge.sources.isolation.ring import map_sealed, sealed_memory, send
from edge.video.packets import EVERYTHING, PacketForm, PacketTaker, SoundForm, SoundLevel, SourcePacket, Wanted

if TYPE_CHECKING:
    from edge.sources.isolation.messages import CodedPicture, Level, PacketRing

# the largest key pictures of 4K cameras are 2 MB
RING_BYTES = 4 << 20
# in front of the data, uint64 each, written by the parent: how many bytes it has taken; what is not wanted
HEAD_BYTES, TAKEN, UNWANTED = 4096, 0, 1
POLL_S = 0.002


class PacketSender(PacketTaker):
    """The child's side; a ``PacketTaker`` that passes on to its parent.

    Args:
        channel: to the parent.
        wait: called between two looks for room where none may be lost (files); None: what does not fit is lost.
        ring_bytes: size of the ring.
    """

    def __init__(
        self, channel: socket.socket, wait: Callable[[float], None] | None = None, ring_bytes: int = RING_BYTES
    ) -> None:
        self._channel = channel
        self._wait = wait
        self._size = ring_bytes
        self._fd = sealed_memory("edge-packets", HEAD_BYTES + ring_bytes)
        self._memory = memoryview(mmap.mmap(self._fd, HEAD_BYTES + ring_bytes))
        self._head = self._memory[:16].cast("Q")
        self._at = 0
        self._num_lost = 0

    @property
    def wanted(self) -> Wanted:
        return EVERYTHING & ~Wanted(self._head[UNWANTED] & EVERYTHING.value)

    def begin(self, form: PacketForm) -> None:
        sound = None if form.sound is None else {"codec": form.sound.codec, "header": form.sound.header.hex()}
        size = {"width": form.width, "height": form.height}
        facts = {"codec": form.codec, **size, "header": form.header.hex(), "sound": sound}
        send(self._channel, {"kind": "packets", "form": facts, "bytes": self._size}, (self._fd,))

    def take(self, packet: SourcePacket) -> None:
        size = len(packet.data)
        if not self._has_room(size):
            self._num_lost += 1
            return
        start = self._at % self._size
        first = min(size, self._size - start)
        data = self._memory[HEAD_BYTES:]
        data[start : start + first] = packet.data[:first]
        data[: size - first] = packet.data[first:]
        times = packet.pts, packet.dts, packet.is_key, packet.time_ns, packet.arrived_ns
        facts = (*times, self._num_lost, packet.camera_ns, packet.is_sound)
        message = json.dumps({"kind": "packet", "at": self._at, "size": size, "facts": facts}).encode()
        try:
            self._channel.sendmsg([message], (), 0 if self._wait is not None else socket.MSG_DONTWAIT)
        except BlockingIOError:
            # the parent has not even read its pictures
            self._num_lost += 1
            return
        self._at += size
        self._num_lost = 0

    def hear(self, level: SoundLevel) -> None:
        message = {"kind": "level", "dbfs": level.dbfs, "time_ns": level.time_ns}
        # the next one is as good
        with suppress(BlockingIOError):
            self._channel.sendmsg([json.dumps(message).encode()], (), socket.MSG_DONTWAIT)

    def _has_room(self, size: int) -> bool:
        while self._at + size - self._head[TAKEN] > self._size:
            if self._wait is None or size > self._size:
                return False
            self._wait(POLL_S)
        return True


class PacketReceiver:
    """The parent's side: takes packets out of the ring as their messages come."""

    def __init__(self, taker: PacketTaker) -> None:
        self._taker = taker
        self._memory: memoryview | None = None
        self._head: memoryview | None = None
        self._size = 0

    def begin(self, message: PacketRing, fd: int) -> None:
        """A ring (closed here) and what its packets are.

        Raises:
            SourceError: it is too small, or could become so.
        """
        self._size = message.size
        self._memory = memoryview(map_sealed(fd, HEAD_BYTES + self._size))
        self._head = self._memory[:16].cast("Q")
        self.tell_wanted()
        form = message.form
        sound = None if form.sound is None else SoundForm(form.sound.codec, bytes.fromhex(form.sound.header))
        self._taker.begin(PacketForm(form.codec, form.width, form.height, bytes.fromhex(form.header), sound))

    def take(self, message: CodedPicture) -> None:
        """Copy a packet out of the ring, and give its place back.

        Raises:
            SourceError: it is larger than the ring.
        """
        if self._memory is None or self._head is None:
            return
        start, size = message.at % self._size, message.size
        if size > self._size:
            raise SourceError(f"the decoder process sent a packet of {size} bytes in a ring of {self._size}")
        data = self._memory[HEAD_BYTES:]
        first = min(size, self._size - start)
        copy = bytes(data[start : start + first]) + bytes(data[: size - first])
        self._head[TAKEN] = message.at + size
        self._taker.take(SourcePacket(copy, *message.facts))

    def hear(self, message: Level) -> None:
        """How loud it is."""
        self._taker.hear(SoundLevel(message.dbfs, message.time_ns))

    def tell_wanted(self) -> None:
        """Let the child know what the taker wants now."""
        if self._head is not None:
            self._head[UNWANTED] = (EVERYTHING & ~self._taker.wanted).value
