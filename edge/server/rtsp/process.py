"""The RTSP process: whoever shows a token sees streams, each packed once however many look.

Started by ``edge.server.rtsp.server``, with the numbers of a control socket and of the listener. Hostile clients and
what cameras send keep this process busy, or end it, and never the one that has the cameras.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import av

from edge.server.rtsp.connection import Connection, Hub
from edge.server.rtsp.protocol import Doors
from edge.server.rtsp.viewers import Served, UdpPorts
from edge.server.rtsp.wire import FORM, PACKET, SETUP, SOUND, Message, Reader

# the cameras and the engine come first
NICENESS = 5
MAX_CONNECTIONS = 128
SWEEP_S = 1.0
REPORT_EVERY_S = 5.0


class _Process(Hub):
    """Lives in the event loop of the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, control: socket.socket, listener: socket.socket) -> None:
        super().__init__(loop)
        self._control = control
        self._listener = listener
        self._reader = Reader()
        self._said: list[str] = []
        self._reported_s = loop.time()
        for connection in (control, listener):
            connection.setblocking(False)
        loop.add_reader(control, self._hear)

    # what the daemon says

    def _hear(self) -> None:
        try:
            data = self._control.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.loop.stop()
            return
        for message in self._reader.feed(data):
            self._take(message)

    def _take(self, message: Message) -> None:
        if message.kind == SETUP:
            self._set_up(message.facts)
            return
        served = self.streams.get(message.path)
        if served is None:
            return
        if message.kind == FORM:
            facts = message.facts
            served.begin(facts["codec"], bytes.fromhex(facts["header"]))
            with suppress(av.error.FFmpegError, OSError, IndexError):
                sound = facts.get("sound")
                served.begin_sound(sound["codec"], bytes.fromhex(sound["header"])) if sound else None
        elif message.kind == SOUND:
            served.deliver_sound(message.data, message.pts)
        elif message.kind == PACKET:
            with suppress(av.error.FFmpegError, OSError):
                served.deliver(message.packet, message.wall_ns)

    def _set_up(self, facts: dict[str, Any]) -> None:
        """At the start, and whenever a stream comes or goes."""
        is_first = not self.is_set_up
        self.is_set_up = True
        self.doors, self.max_clients = Doors(tuple(facts["tokens"])), facts["max_clients"]
        self.refusals = facts["refused"]
        for path in set(self.streams) - set(facts["paths"]):
            self.streams.pop(path).end()
        for path in facts["paths"]:
            self.streams.setdefault(path, Served(path, self.loop, self.ask_key))
        if is_first:
            host = self._listener.getsockname()[0]
            self.ports = UdpPorts.open(self.loop, self._listener.family, host)
            self.loop.add_reader(self._listener, self._accept)
            self._sweep()

    # clients

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        if len(self.connections) >= MAX_CONNECTIONS:
            self._make_room()
        self.start_task(self._connect(connection))

    async def _connect(self, connection: socket.socket) -> None:
        with suppress(OSError):
            await self.loop.connect_accepted_socket(lambda: Connection(self), connection)

    def _make_room(self) -> None:
        """End the oldest connection that plays nothing, of the host that has the most of them."""
        idle = [one for one in self.connections if not one.is_playing]
        if idle:
            crowd = Counter(one.host for one in idle).most_common(1)[0][0]
            next(one for one in idle if one.host == crowd).end()

    def _sweep(self) -> None:
        now_s = self.loop.time()
        for connection in list(self.connections):
            connection.look_after(now_s)
        is_due = now_s - self._reported_s >= REPORT_EVERY_S
        for served in self.streams.values():
            if is_due:
                served.report()
        self._reported_s = now_s if is_due else self._reported_s
        self.tell_watched()
        self.say({"kind": "counts", "clients": self.num_playing, **self.counters})
        self.loop.call_later(SWEEP_S, self._sweep)

    # what the daemon hears

    def ask_key(self, path: str) -> None:
        self.say({"kind": "key", "path": path})

    def tell_watched(self) -> None:
        now_s = self.loop.time()
        watched = sorted(path for path, served in self.streams.items() if served.is_wanted(now_s))
        if watched != self._said:
            self._said = watched
            self.say({"kind": "watch", "paths": watched})

    def say(self, facts: dict[str, Any]) -> None:
        # a daemon that does not listen is ending
        with suppress(OSError):
            self._control.send(json.dumps(facts).encode() + b"\n")


def _sockets(numbers: Iterable[str]) -> list[socket.socket]:
    return [socket.socket(fileno=int(number)) for number in numbers]


def main() -> None:
    """Serve until the other end of the control socket closes."""
    # the terminal's Ctrl-C and systemd's SIGTERM are the daemon's to answer, which ends us
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(NICENESS)
    control, listener = _sockets(sys.argv[1:3])
    loop = asyncio.new_event_loop()
    _process = _Process(loop, control, listener)
    loop.run_forever()
    os._exit(0)


if __name__ == "__main__":
    main()
