"""The wire between a capture child and its parent: messages on a socket, pictures in shared memory.

The child owns a ring of slots; a slot that it has sent belongs to the parent until the last array over it is gone, so a
picture is never copied on its way into the pipeline. It lies there as its decoder gave it.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import mmap
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edge.errors import SourceError
from edge.pictures.planes import PlaneForm, Planes
from edge.types import UInt8

MESSAGE_BYTES = 1 << 16
# waiting, in inference, two results, in output, being written, and one to spare
NUM_SLOTS = 7
# of large pictures fewer: what does not fit is lost, as where the pipeline is slow
MIN_SLOTS = 3
RING_BYTES = 300_000_000
# three pictures of 8192x8192, the largest that may be asked for
MAX_RING_BYTES = MIN_SLOTS * 8192 * 8192 * 3
# the ring in use, and the one before it, whose last pictures are still on their way
MAX_RINGS = 2


def send(channel: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send one message, with open files next to it.

    Raises:
        OSError: the other side is gone.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([json.dumps(message).encode()], rights)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message of a process that is trusted, and the files that came with it; None when it is gone.

    Raises:
        OSError: nothing came within the socket's timeout.
    """
    received = receive_bytes(channel)
    return received and (json.loads(received[0]), received[1])


def receive_bytes(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """The bytes of the next message and the files that came with it, owned by the caller; None at the end.

    Raises:
        OSError: nothing came within the socket's timeout.
    """
    flags = socket.MSG_CMSG_CLOEXEC
    data, rights, _, _ = channel.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(array.array("i").itemsize), flags)
    fds = array.array("i")
    for _, _, raw in rights:
        fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
    return (data, list(fds)) if data else None


def close_files(fds: Iterable[int]) -> None:
    """Close files that came with a message that needs none."""
    for fd in fds:
        os.close(fd)


class Shared(mmap.mmap):
    """Shared memory that can be watched by weakref."""


def sealed_memory(name: str, size: int) -> int:
    """A file in memory of that size, which nobody can make smaller."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def map_sealed(fd: int, size: int) -> Shared:
    """Map memory that a child has made; the file is closed.

    Raises:
        SourceError: it is smaller, or its maker could make it smaller: reading on would end this process.
    """
    try:
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK or os.fstat(fd).st_size < size:
            raise SourceError("the decoder process sent shared memory that may shrink or is too small")
        return Shared(fd, size)
    except (OSError, ValueError, OverflowError) as error:
        raise SourceError(f"the decoder process sent what is no shared memory of {size} bytes ({error})") from None
    finally:
        os.close(fd)


def num_slots_for(form: PlaneForm) -> int:
    """How many pictures like this a ring holds."""
    return max(MIN_SLOTS, min(NUM_SLOTS, RING_BYTES // max(1, form.num_bytes)))


class RingWriter:
    """The child's side: finds a free slot and copies a picture into it."""

    def __init__(self, form: PlaneForm) -> None:
        self.form = form
        self.num_slots = num_slots_for(form)
        size = form.num_bytes * self.num_slots
        self.fd = sealed_memory("edge-frames", size)
        memory: UInt8 = np.frombuffer(mmap.mmap(self.fd, size), np.uint8)
        self._slots = [form.over(slot) for slot in memory.reshape(self.num_slots, form.num_bytes)]
        self._free = list(range(self.num_slots))

    def put(self, picture: Planes) -> int | None:
        """Copy a picture of the ring's form; its slot, None where none is free."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._slots[slot].take(picture)
        return slot

    def release(self, slot: int) -> None:
        """The parent is done with a slot."""
        self._free.append(slot)

    def close(self) -> None:
        os.close(self.fd)


class RingLimit:
    """Bounds the shared memory of one stream, however often its camera is opened again or changes its size."""

    def __init__(self) -> None:
        self._living: weakref.WeakSet[Shared] = weakref.WeakSet()

    def wait_for_room(self, is_stopping: Callable[[], bool], limit_s: float) -> bool:
        """Wait until one more ring may live; False if pictures of the former ones are held for longer than that."""
        deadline = time.monotonic() + limit_s
        while len(self._living) >= MAX_RINGS and not is_stopping():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def add(self, memory: Shared) -> None:
        self._living.add(memory)

    def __len__(self) -> int:
        return len(self._living)


class RingReader:
    """The parent's side: pictures over the slots, which give themselves back."""

    def __init__(
        self, fd: int, form: PlaneForm, num_slots: int, release: Callable[[int], None], limit: RingLimit
    ) -> None:
        """Map the ring.

        Args:
            fd: shared memory, closed here.
            form: of the pictures.
            num_slots: how many there are.
            release: told of a free one.
            limit: counts rings.

        Raises:
            SourceError: the memory is too small for them, could become so, or they are too large.
        """
        self._form = form
        self._size = form.num_bytes
        self._num_slots = num_slots
        if self._size * num_slots > MAX_RING_BYTES:
            os.close(fd)
            raise SourceError(f"the decoder process wants room for {num_slots} pictures of {form.width}x{form.height}")
        self._memory = map_sealed(fd, self._size * num_slots)
        limit.add(self._memory)
        self._release = release
        # a class of our own, because plain ctypes arrays cannot be watched by weakref
        self._kind: Any = type("Slot", (ctypes.c_uint8 * self._size,), {})

    def picture(self, slot: int) -> Planes:
        """The picture in a slot; the slot is released when its arrays and all their views are gone.

        Raises:
            SourceError: there is no such slot.
        """
        if not 0 <= slot < self._num_slots:
            raise SourceError(f"the decoder process sent picture {slot} of a ring of {self._num_slots}")
        owner = self._kind.from_buffer(self._memory, slot * self._size)
        weakref.finalize(owner, self._release, slot)
        return self._form.over(np.frombuffer(owner, np.uint8))
