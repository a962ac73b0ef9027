"""The daemon's side of RTSP: the process, started again if it ends, and the packets of the streams that are watched."""

from __future__ import annotations

import json
import logging
import select
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edge.errors import MissingError, SinkError
from edge.metrics.clock import measured_offset_ns
from edge.server.feeds import Feeds, Subscription
from edge.server.rtsp.wire import FORM, SETUP, Message
from edge.threads.python_process import child_environment, python_command
from edge.threads.worker import Worker
from edge.video.encoder import TICKS_PER_S, Packet, find_encoder
from edge.video.packets import PacketForm, PacketTaker, PacketTap, SoundForm, SourcePacket, Wanted
from edge.video.sound_feed import SteadyTimes

if TYPE_CHECKING:
    from edge.server.access import Access
    from edge.server.board import LiveBoard

log = logging.getLogger(__name__)
RESTART_S = 0.5
RETRY_S = 5.0
POLL_S = 0.25
STOP_S = 2.0
BACKLOG = 128
# of packets that wait for the process; a few seconds of a 4K camera
MAX_WAITING_BYTES = 16 << 20
MAX_LINE_BYTES = 1 << 16
SOURCE = "/source"
CODECS = ("h264", "hevc")


@dataclass(frozen=True, slots=True)
class Offered:
    """What one stream offers.

    Attributes:
        tap: gives the camera's own packets; None where they are not served.
        reason: why they are not, empty where they are.
        need: told every second that they are wanted, where they come from a source that is opened on demand.
    """

    tap: PacketTap | None = None
    reason: str = ""
    need: Callable[[], None] = lambda: None


class RtspServer:
    """Serves the streams of a board. ``start`` it once, ``stop`` it once.

    Args:
        host, port: where it listens; port 0 takes any free one.
        access: the tokens.
        feeds: encodes the annotated pictures.
        offered: the streams that run now; any thread may ask.
        max_clients: the most that are sent pictures at once.
    """

    def __init__(
        self,
        host: str,
        port: int,
        access: Access,
        feeds: Feeds,
        offered: Callable[[], Mapping[str, Offered]],
        *,
        max_clients: int,
    ) -> None:
        self._host = host
        self._port = port
        self._tokens = [token for token in (access.operate, access.view) if token]
        self._feeds = feeds
        self._offered = offered
        self._max_clients = max_clients
        self._listener: socket.socket | None = None
        self._worker = Worker("rtsp", self._run)
        self._counts: dict[str, int] = {}
        self._encoder = ""

    def start(self) -> tuple[str, int]:
        """Listen and serve in the background; the host and port.

        Raises:
            SinkError: the port is in use or may not be used.
        """
        listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind((self._host, self._port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise SinkError(f"rtsp: cannot listen on {self._host}, port {self._port} ({error.strerror})") from None
        self._listener = listener
        self._worker.start()
        return self._host, int(listener.getsockname()[1])

    def stop(self) -> None:
        """End it and free the port. May be called twice."""
        self._worker.stop()
        self._worker.join(STOP_S + 1)
        if self._listener is not None:
            self._listener.close()

    def stats(self) -> dict[str, int]:
        """What is known now: ``clients``, ``refused``, ``missed``, ``bad``."""
        return dict(self._counts)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            started_s = time.monotonic()
            try:
                self._serve(stopping)
            except OSError as error:
                log.warning("rtsp: %s", error.strerror or error)
            if not stopping.is_set():
                log.warning("rtsp: its process ended; it is started again")
                stopping.wait(RESTART_S if time.monotonic() - started_s > RETRY_S else RETRY_S)

    def _serve(self, stopping: threading.Event) -> None:
        """One process, until it ends or we do.

        Raises:
            OSError: it cannot be started.
        """
        assert self._listener is not None
        control, theirs = socket.socketpair()
        with control:
            with theirs:
                numbers = theirs.fileno(), self._listener.fileno()
                process = subprocess.Popen(
                    python_command("edge.server.rtsp.process", *map(str, numbers)),
                    env=child_environment(),
                    pass_fds=numbers,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            link = _Link(control)
            watching = _Watching(self, link)
            try:
                while not stopping.is_set() and watching.hear(POLL_S):
                    pass
            finally:
                watching.end()
                link.close()
                control.close()
                _end(process)

    def set_up(self, offered: Mapping[str, Offered]) -> Message:
        """What the process must know."""
        paths = [*offered, *(f"{name}{SOURCE}" for name, one in offered.items() if one.tap is not None)]
        refused = {f"{name}{SOURCE}": one.reason for name, one in offered.items() if one.tap is None}
        facts = {"tokens": self._tokens, "max_clients": self._max_clients, "paths": paths, "refused": refused}
        return Message.of_facts(SETUP, "", facts)

    def offered(self) -> Mapping[str, Offered]:
        """The streams that run now."""
        return self._offered()

    def note_counts(self, counts: dict[str, int]) -> None:
        """What the process has counted."""
        self._counts = counts

    @property
    def board(self) -> LiveBoard:
        """Whose streams are served."""
        return self._feeds.board

    def join_feed(self, name: str, deliver: Callable[[Packet], None]) -> Subscription:
        """Have the annotated pictures of a stream encoded.

        Raises:
            MissingError: there is no encoder.
        """
        self._encoder = self._encoder or find_encoder(is_hardware_wanted=True)
        return self._feeds.join(name, self._encoder, deliver)

    def leave_feed(self, subscription: Subscription) -> None:
        """The annotated pictures are not needed any more."""
        self._feeds.leave(subscription)

    def ask_key(self, name: str) -> None:
        """A client waits for a key picture of the annotated pictures; a camera sends its own when it likes."""
        self._feeds.ask_key(name)


class _Link:
    """Packets on their way to the process: what it does not take in time is dropped, up to the next key picture."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._changed = threading.Condition()
        self._waiting: deque[Message] = deque()
        self._num_bytes = 0
        self._broken: set[str] = set()
        self._is_closed = False
        self._thread = Worker("rtsp sender", self._run)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Send this; any thread may."""
        with self._changed:
            is_packet = message.kind not in (SETUP, FORM)
            if is_packet and message.is_key:
                self._broken.discard(message.path)
            if is_packet and (self._num_bytes > MAX_WAITING_BYTES or message.path in self._broken):
                self._broken.add(message.path)
                return
            self._waiting.append(message)
            self._num_bytes += len(message.data)
            self._changed.notify_all()

    def close(self) -> None:
        """Send nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        # a process that takes nothing holds the thread up until its end of the socket is closed
        self._control.shutdown(socket.SHUT_RDWR)
        self._thread.join(STOP_S)

    def _run(self, stopping: threading.Event) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                message = self._waiting.popleft()
                self._num_bytes -= len(message.data)
            try:
                self._control.sendall(message.pack())
            except OSError:
                # it has ended, which the other thread sees
                return


class _Watching:
    """What one process has asked for. Used by one thread."""

    def __init__(self, server: RtspServer, link: _Link) -> None:
        self._server = server
        self._link = link
        self._control = link._control
        self._known: Mapping[str, Offered] = {}
        self._stops: dict[str, Callable[[], None]] = {}
        self._text = b""
        self._offer()

    def hear(self, wait_s: float) -> bool:
        """Wait for what it says, and do that; False at its end."""
        self._offer()
        for path in self._stops:
            self._known.get(path.removesuffix(SOURCE), Offered()).need()
        if not select.select([self._control], [], [], wait_s)[0]:
            return True
        try:
            said = self._control.recv(1 << 16)
        except OSError:
            return False
        *lines, self._text = (self._text + said).split(b"\n")
        if not said or len(self._text) > MAX_LINE_BYTES:
            return False
        for line in lines:
            self._do(json.loads(line))
        return True

    def end(self) -> None:
        """It is gone: nothing is watched."""
        self._watch([])

    def _do(self, said: dict[str, object]) -> None:
        match said:
            case {"kind": "watch", "paths": list(paths)}:
                self._watch(paths)
            case {"kind": "key", "path": str(path)} if path in self._known:
                self._server.ask_key(path)
            case {"kind": "counts", **counts}:
                self._server.note_counts({name: count for name, count in counts.items() if isinstance(count, int)})

    def _offer(self) -> None:
        """Tell it the streams, where they have changed."""
        offered = self._server.offered()
        if offered.keys() != self._known.keys() or any(
            offered[name].tap is not one.tap for name, one in self._known.items()
        ):
            gone = [path for path in self._stops if path.removesuffix(SOURCE) not in offered]
            self._watch([path for path in self._stops if path not in gone])
            self._known = offered
            self._link.put(self._server.set_up(offered))

    def _watch(self, paths: list[str]) -> None:
        for path in [path for path in self._stops if path not in paths]:
            self._stops.pop(path)()
        for path in paths:
            name = path.removesuffix(SOURCE)
            if path in self._stops or name not in self._known:
                continue
            stop = self._watch_source(path, name) if path.endswith(SOURCE) else self._watch_feed(name)
            if stop is not None:
                self._stops[path] = stop

    def _watch_feed(self, name: str) -> Callable[[], None] | None:
        sound = self._server.board.sound(name) if name in self._server.board.streams else None
        facts: dict[str, object] = {"codec": "h264", "header": ""}
        self._link.put(Message.of_facts(FORM, name, facts | _sound_facts(None if sound is None else sound.form)))

        def deliver(packet: Packet) -> None:
            self._link.put(Message.of_packet(name, packet, time.time_ns()))

        try:
            subscription = self._server.join_feed(name, deliver)
        except MissingError as error:
            log.error("rtsp: %s", error)
            return None
        if sound is None:
            return partial(self._server.leave_feed, subscription)
        heard = _FeedSound(name, self._link, self._server.board, subscription)
        sound.listen(heard)

        def stop() -> None:
            sound.leave(heard)
            self._server.leave_feed(subscription)

        return stop

    def _watch_source(self, path: str, name: str) -> Callable[[], None] | None:
        offered = self._known[name]
        if offered.tap is None:
            return None
        offered.need()
        feed = _SourceFeed(path, self._link)
        offered.tap.listen(feed)
        return partial(offered.tap.leave, feed)


class _SourceFeed(PacketTaker):
    """Passes the camera's own packets on."""

    def __init__(self, path: str, link: _Link) -> None:
        self._path = path
        self._link = link
        self._is_known = False

    def begin(self, form: PacketForm) -> None:
        self._is_known = form.codec in CODECS and form.has_start_codes
        if self._is_known:
            facts: dict[str, object] = {"codec": form.codec, "header": form.header.hex()}
            self._link.put(Message.of_facts(FORM, self._path, facts | _sound_facts(form)))

    def take(self, packet: SourcePacket) -> None:
        if not self._is_known:
            return
        wall_ns = packet.arrived_ns + measured_offset_ns()
        if packet.is_sound:
            self._link.put(Message.of_sound(self._path, packet.data, packet.pts, wall_ns))
        else:
            coded = Packet(packet.data, packet.pts, packet.is_key, packet.pts - packet.dts)
            self._link.put(Message.of_packet(self._path, coded, wall_ns))


class _FeedSound(PacketTaker):
    """Passes the camera's sound on, next to the annotated picture that was taken with it."""

    def __init__(self, path: str, link: _Link, board: LiveBoard, subscription: Subscription) -> None:
        self._path = path
        self._link = link
        self._board = board
        self._subscription = subscription
        self._times = SteadyTimes(TICKS_PER_S)
        self._form: SoundForm | None = None
        self._is_known = False

    @property
    def wanted(self) -> Wanted:
        return Wanted.SOUND

    def begin(self, form: PacketForm) -> None:
        # who was told of one sound cannot be given another
        self._form = self._form or form.sound
        self._is_known = form.sound is not None and form.sound == self._form

    def take(self, packet: SourcePacket) -> None:
        feed = self._subscription.feed
        if feed is None or not feed.begin_ns or not self._is_known:
            return
        shown_ns = packet.time_ns + self._board.delay_ns(self._path) - feed.begin_ns
        if shown_ns > 0:
            at = self._times.place(packet.pts, shown_ns)
            self._link.put(Message.of_sound(self._path, packet.data, at, time.time_ns()))


def _sound_facts(form: PacketForm | None) -> dict[str, object]:
    if form is None or form.sound is None:
        return {}
    return {"sound": {"codec": form.sound.codec, "header": form.sound.header.hex()}}


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
