"""How packets come from a capture child: their bytes through a ring in shared memory, the rest as messages.

The child never waits for a reader of a live camera: a packet for which there is no room is counted and left out.
"""

from __future__ import annotations

import json
import mmap
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import SourceError
from edge.sources.isolation.ring import map_sealed, sealed_memory, send
from edge.video.packets import PacketForm, PacketTaker, SoundForm, SourcePacket

if TYPE_CHECKING:
    from edge.sources.isolation.messages import CodedPicture, PacketRing

# the largest key pictures of 4K cameras are 2 MB
RING_BYTES = 4 << 20
# in front of the data: how many bytes the parent has taken, uint64
HEAD_BYTES = 4096
POLL_S = 0.002


class PacketSender:
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
        self._taken = self._memory[:8].cast("Q")
        self._at = 0
        self._num_lost = 0

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

    def _has_room(self, size: int) -> bool:
        while self._at + size - self._taken[0] > self._size:
            if self._wait is None or size > self._size:
                return False
            self._wait(POLL_S)
        return True


class PacketReceiver:
    """The parent's side: takes packets out of the ring as their messages come."""

    def __init__(self, taker: PacketTaker) -> None:
        self._taker = taker
        self._memory: memoryview | None = None
        self._size = 0

    def begin(self, message: PacketRing, fd: int) -> None:
        """A ring (closed here) and what its packets are.

        Raises:
            SourceError: it is too small, or could become so.
        """
        self._size = message.size
        self._memory = memoryview(map_sealed(fd, HEAD_BYTES + self._size))
        form = message.form
        sound = None if form.sound is None else SoundForm(form.sound.codec, bytes.fromhex(form.sound.header))
        self._taker.begin(PacketForm(form.codec, form.width, form.height, bytes.fromhex(form.header), sound))

    def take(self, message: CodedPicture) -> None:
        """Copy a packet out of the ring, and give its place back.

        Raises:
            SourceError: it is larger than the ring.
        """
        if self._memory is None:
            return
        start, size = message.at % self._size, message.size
        if size > self._size:
            raise SourceError(f"the decoder process sent a packet of {size} bytes in a ring of {self._size}")
        data = self._memory[HEAD_BYTES:]
        first = min(size, self._size - start)
        copy = bytes(data[start : start + first]) + bytes(data[: size - first])
        self._memory[:8].cast("Q")[0] = message.at + size
        self._taker.take(SourcePacket(copy, *message.facts))
