"""The capture child: opens one source in a process of its own and passes its pictures on through shared memory.

Run by ``edge.sources.isolated`` as ``python -m edge.capture_child FD``. A decoder that hangs, leaks or crashes takes
only this process with it. The address comes over the socket, so that no password stands in the process list.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict
from typing import Any

from edge.errors import EdgeError
from edge.interfaces import Source
from edge.ring import RingWriter, receive, send
from edge.sources.choose import open_direct
from edge.types import UInt8

PR_SET_PDEATHSIG = 1


class Child:
    """Reads one source until its end, or until the parent is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._ring: RingWriter | None = None
        self._generation = 0
        self._num_dropped = 0

    def run(self) -> None:
        """Open, read and send until the source ends or breaks; the last message says which."""
        request = receive(self._channel)
        if request is None:
            return
        try:
            source = open_direct(request[0]["uri"], **request[0]["options"])
        except EdgeError as error:
            send(self._channel, {"kind": "error", "text": str(error)})
            return
        try:
            self._pass_on(source)
            send(self._channel, {"kind": "end"})
        except EdgeError as error:
            send(self._channel, {"kind": "error", "text": str(error)})
        finally:
            source.close()

    def _pass_on(self, source: Source) -> None:
        send(self._channel, {"kind": "opened", "info": asdict(source.info)})
        while (picture := source.read()) is not None:
            captured_ns = time.monotonic_ns()
            self._take_back(0.0)
            self._send_picture(picture[0], source.info.is_live, {"captured_ns": captured_ns, "pts_ns": picture[1]})

    def _send_picture(self, image: UInt8, is_live: bool, facts: dict[str, Any]) -> None:
        ring = self._ring_for(image)
        while (slot := ring.put(image)) is None and not is_live:
            self._take_back(None)
        if slot is None:
            # the pipeline holds every slot: this picture is lost, and the next message says so
            self._num_dropped += 1
            return
        send(self._channel, {"kind": "frame", "slot": slot, "dropped": self._num_dropped, **facts})
        self._num_dropped = 0

    def _ring_for(self, image: UInt8) -> RingWriter:
        """The ring for pictures of this size; a new one where the camera changed its size."""
        if self._ring is None or self._ring.shape != image.shape:
            if self._ring is not None:
                self._ring.close()
            self._generation += 1
            self._ring = RingWriter(image.shape[0], image.shape[1])
            facts = {"height": image.shape[0], "width": image.shape[1], "num_slots": self._ring.num_slots}
            send(self._channel, {"kind": "ring", "generation": self._generation, **facts}, (self._ring.fd,))
        return self._ring

    def _take_back(self, wait_s: float | None) -> None:
        """Note the slots that the parent has released; None waits for the first."""
        while select.select([self._channel], [], [], wait_s)[0]:
            wait_s = 0.0
            message = receive(self._channel)
            if message is None:
                sys.exit(0)
            if self._ring is not None and message[0]["generation"] == self._generation:
                self._ring.release(message[0]["release"])


def main() -> None:
    """Serve the parent on the inherited socket."""
    # if the parent is killed, nobody is left to end a decoder that hangs
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() == 1:
        sys.exit(0)
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        Child(channel).run()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)


if __name__ == "__main__":
    main()
