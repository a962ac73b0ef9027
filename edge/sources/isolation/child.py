"""The capture child: opens one source in a process of its own and passes its pictures on through shared memory.

Run by ``IsolatedSource`` as ``python -m edge.sources.isolation.child FD PARENT``, the parent's process number. A
decoder that hangs, leaks or crashes takes only this process with it. The address comes over the socket, so that no
password stands in the process list.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2

from edge.addresses.uris import masked
from edge.errors import EdgeError, MissingError
from edge.pictures.planes import PlaneForm, Planes
from edge.sources.deadlines import Deadlines
from edge.sources.direct import Decoding, open_direct
from edge.sources.isolation.fence import raise_fence
from edge.sources.isolation.packet_wire import PacketSender
from edge.sources.isolation.ring import RingWriter, receive, send
from edge.sources.prepared import Preparation, PreparedSource

if TYPE_CHECKING:
    from edge.sources.av import AvSource

PR_SET_PDEATHSIG = 1
# how often the parent hears of a camera whose pictures are all held back
ALIVE_EVERY_S = 0.5


class Child:
    """Reads one source until its end, or until the parent is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._ring: RingWriter | None = None
        self._generation = 0
        self._drops: Counter[str] = Counter()
        self._changes: list[tuple[str, dict[str, Any]]] = []
        self._last_sent_s = 0.0
        self._packets: PacketSender | None = None
        self._is_fenced = False

    def run(self) -> None:
        """Open what the parent asks for until it can be opened; then read and send until the source ends or breaks."""
        while (request := receive(self._channel)) is not None:
            self._raise_fence(is_wanted=request[0].get("is_fenced", False))
            try:
                source = self._open(request[0]["uri"], request[0]["options"])
            except MissingError as error:
                # what was installed meanwhile is found by a fresh process only
                send(self._channel, {"kind": "error", "text": str(error), "is_lacking": True})
                return
            except EdgeError as error:
                send(self._channel, {"kind": "error", "text": str(error), "can_ask_again": True})
                continue
            self._serve(source)
            return

    def _raise_fence(self, *, is_wanted: bool) -> None:
        """Let the parent decide whom this process connects to; once, and before anything is opened."""
        if self._is_fenced or not is_wanted:
            return
        self._is_fenced = True
        fd = raise_fence()
        send(self._channel, {"kind": "fence"}, () if fd is None else (fd,))
        if fd is not None:
            os.close(fd)

    def _serve(self, source: PreparedSource | AvSource) -> None:
        """Read and send until the source ends or breaks; the last message says which."""
        try:
            self._pass_on(source)
            send(self._channel, {"kind": "end"})
        except EdgeError as error:
            send(self._channel, {"kind": "error", "text": str(error)})
        finally:
            if self._packets is not None:
                self._packets.flush()
            source.close()

    def _open(self, uri: str, options: dict[str, Any]) -> PreparedSource | AvSource:
        if options.get("is_decoded") is False:
            return self._open_packets(uri, options)
        preparation = Preparation.from_json(options["preparation"]) if "preparation" in options else Preparation()
        packets = self._packet_sender(options["packets"], can_ride=True) if "packets" in options else None
        deadlines = Deadlines(**options.get("deadlines", {}))
        source = open_direct(uri, Decoding(**options.get("decoding", {})), packets, deadlines)
        return PreparedSource(source, preparation, lambda: self._say_alive(source.info.is_live))

    def _open_packets(self, uri: str, options: dict[str, Any]) -> AvSource:
        """A source whose packets are passed on and whose pictures nobody wants."""
        from edge.sources.av import AvSource

        decoding = Decoding(**options["decoding"])
        return AvSource(
            uri,
            transport=decoding.transport,
            packets=self._packet_sender(may_lose=True),
            deadlines=Deadlines(**options["deadlines"]),
            is_decoded=False,
            has_sound=decoding.sound,
            level_s=decoding.level_s,
            group_s=decoding.group_s,
        )

    def _packet_sender(self, may_lose: bool, *, can_ride: bool = False) -> PacketSender:
        """What passes the coded pictures on; those of a file wait for room, unless the parent is gone."""
        if self._packets is None:
            self._packets = PacketSender(self._channel, None if may_lose else self._take_back, can_ride=can_ride)
        return self._packets

    def _pass_on(self, source: PreparedSource | AvSource) -> None:
        send(self._channel, {"kind": "opened", "info": asdict(source.info)})
        if not isinstance(source, PreparedSource):
            source.read()
            return
        while (picture := source.read_planes()) is not None:
            facts = {"captured_ns": source.captured_ns, "pts_ns": picture[1], "drops": source.take_drops()}
            changes = [(change.kind, dict(change.data)) for change in source.take_changes()]
            self._send_picture(picture[0], source.info.is_live, facts | {"changes": changes})
            # after the picture is on its way: nothing that can wait delays it
            self._take_back(0.0)

    def _say_alive(self, is_live: bool) -> None:
        """A picture was held back: tell the parent that the camera is there, now and then."""
        if self._packets is not None:
            self._packets.flush()
        if is_live and time.monotonic() - self._last_sent_s > ALIVE_EVERY_S:
            self._last_sent_s = time.monotonic()
            send(self._channel, {"kind": "alive"})

    def _send_picture(self, picture: Planes, is_live: bool, facts: dict[str, Any]) -> None:
        ring = self._ring_for(picture.form)
        slot = ring.put(picture)
        if slot is None:
            self._take_back(0.0)
        while slot is None and (slot := ring.put(picture)) is None and not is_live:
            self._take_back(None)
        if slot is None:
            # the pipeline holds every slot: this picture is lost, and the next message says so
            self._drops.update({"drop_ring_full": 1, **facts["drops"]})
            self._changes += facts["changes"]
            if self._packets is not None:
                self._packets.flush()
            return
        if self._drops or self._changes:
            facts["drops"] = self._drops + Counter(facts["drops"])
            facts["changes"] = self._changes + facts["changes"]
            self._drops, self._changes = Counter(), []
        self._last_sent_s = time.monotonic()
        if self._packets is not None and (riding := self._packets.riding()):
            facts["packets"] = riding
        send(self._channel, {"kind": "frame", "slot": slot, **facts})

    def _ring_for(self, form: PlaneForm) -> RingWriter:
        """The ring for pictures like this; a new one where the camera changed its size or its colours."""
        if self._ring is None or self._ring.form != form:
            if self._ring is not None:
                self._ring.close()
            self._generation += 1
            self._ring = RingWriter(form)
            facts = {"format": form.format, "height": form.height, "width": form.width, **asdict(form.colour)}
            facts["num_slots"] = self._ring.num_slots
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


def _tell_mistake(
    channel: socket.socket, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    place = traceback.extract_tb(trace)[-1]
    text = f"the capture child failed at {place.filename}:{place.lineno}: {kind.__name__}: {masked(str(error))}"
    with contextlib.suppress(OSError):
        send(channel, {"kind": "error", "text": text})


def main() -> None:
    """Serve the parent on the inherited socket."""
    # if the parent is killed, nobody is left to end a decoder that hangs
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # if memory runs out, this process goes before the daemon: it is replaced
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="utf-8")
    # it may have been killed before that; its own number may be 1, in a container
    if os.getppid() != int(sys.argv[2]):
        sys.exit(0)
    # a thread of OpenCV's own costs more than it gives, and another camera its core
    cv2.setNumThreads(1)
    channel = socket.socket(fileno=int(sys.argv[1]))
    # standard error is closed, because FFmpeg prints passwords there: what is our own mistake is told over the socket
    sys.excepthook = lambda kind, error, trace: _tell_mistake(channel, kind, error, trace)
    try:
        Child(channel).run()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)


if __name__ == "__main__":
    main()
