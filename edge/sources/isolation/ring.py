"""The wire between a capture child and its parent: messages on a socket, pictures in shared memory.

The child owns a ring of slots; a slot that it has sent belongs to the parent until the last array over it is gone, so a
picture is never copied on its way into the pipeline. H W frame pixels.
"""

from __future__ import annotations

import array
import ctypes
import json
import mmap
import os
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.types import UInt8

MESSAGE_BYTES = 1 << 16
# waiting, in inference, two results, in output, being written, and one to spare
NUM_SLOTS = 7
# the ring in use, and the one before it, whose last pictures are still on their way
MAX_RINGS = 2


def send(channel: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one message, with open files beside it.

    Raises:
        OSError: the other side is gone.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([json.dumps(message).encode()], rights)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and the files that came with it; None when the other side is gone.

    Raises:
        OSError: nothing came within the socket's timeout.
    """
    data, rights, _, _ = channel.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(4))
    fds = array.array("i")
    for _, _, raw in rights:
        fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
    return (json.loads(data), list(fds)) if data else None


class RingWriter:
    """The child's side: finds a free slot and copies a picture into it."""

    def __init__(self, height: int, width: int, num_slots: int = NUM_SLOTS) -> None:
        self.shape = (height, width, 3)
        self.num_slots = num_slots
        self.fd = os.memfd_create("edge-frames", os.MFD_CLOEXEC)
        size = height * width * 3
        os.ftruncate(self.fd, size * num_slots)
        memory = mmap.mmap(self.fd, size * num_slots)
        self._slots: UInt8 = np.frombuffer(memory, np.uint8).reshape(num_slots, *self.shape)
        self._free = list(range(num_slots))

    def room(self) -> UInt8 | None:
        """A free slot to decode into, the same until ``put`` takes it; None where all slots are in use."""
        return self._slots[self._free[-1]] if self._free else None

    def put(self, image: UInt8) -> int | None:
        """Take a picture of the ring's shape, copied unless it lies in ``room``; its slot, None where none is free."""
        if not self._free:
            return None
        slot = self._free.pop()
        if image.ctypes.data != self._slots[slot].ctypes.data:
            self._slots[slot] = image
        return slot

    def release(self, slot: int) -> None:
        """The parent is done with a slot."""
        # the slot at the end may be decoded into now: it stays there
        self._free.insert(max(0, len(self._free) - 1), slot)

    def close(self) -> None:
        os.close(self.fd)


class _Memory(mmap.mmap):
    """Shared memory that can be watched by weakref."""


class RingLimit:
    """Bounds the shared memory of one stream, however often its camera is opened anew or changes its size."""

    def __init__(self) -> None:
        self._living: weakref.WeakSet[_Memory] = weakref.WeakSet()

    def wait_for_room(self, is_stopping: Callable[[], bool], limit_s: float) -> bool:
        """Wait until one more ring may live; False if pictures of the former ones are held for longer than that."""
        deadline = time.monotonic() + limit_s
        while len(self._living) >= MAX_RINGS and not is_stopping():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def add(self, memory: _Memory) -> None:
        self._living.add(memory)

    def __len__(self) -> int:
        return len(self._living)


class RingReader:
    """The parent's side: arrays over the slots, which give themselves back."""

    def __init__(
        self, fd: int, height: int, width: int, num_slots: int, release: Callable[[int], None], limit: RingLimit
    ) -> None:
        """Args: shared memory (closed here), the pictures' size, slots, who is told of a free one, who counts rings."""
        self._shape = (height, width, 3)
        self._size = height * width * 3
        self._memory = _Memory(fd, self._size * num_slots)
        os.close(fd)
        limit.add(self._memory)
        self._release = release
        # a class of our own, because plain ctypes arrays cannot be watched by weakref
        self._kind: Any = type("Slot", (ctypes.c_uint8 * self._size,), {})

    def picture(self, slot: int) -> UInt8:
        """(H, W, 3) uint8 over a slot; the slot is released when this array and all its views are gone."""
        owner = self._kind.from_buffer(self._memory, slot * self._size)
        weakref.finalize(owner, self._release, slot)
        image: UInt8 = np.frombuffer(owner, np.uint8).reshape(self._shape)
        return image
