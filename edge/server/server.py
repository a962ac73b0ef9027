"""The live server: one port with the page, the pictures and the API, in its own thread with its own event loop."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import SinkError
from edge.server.access import Access
from edge.server.board import LiveBoard
from edge.server.gate_rules import MAX_HEAD_BYTES
from edge.server.limits import Connections, Listener, limited_protocol

if TYPE_CHECKING:
    import uvicorn

    from edge.server.accounts import Accounts
    from edge.server.feeds import Feeds
    from edge.server.gate import Gate, Handed
    from edge.server.operate import Operable
    from edge.server.recordings import Archive
    from edge.server.webrtc import Peers
    from edge.types import UInt8

log = logging.getLogger(__name__)
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3
# bounds how many old frames lie in the kernel for a slow viewer
SEND_BUFFER_BYTES = 256 * 1024
# a viewer whose machine is gone is noticed after this time while something is sent to it
DEAD_PEER_MS = 20_000
# and while nothing is, because its stream is silent, by asking: after so long, so often, so many times
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
MAX_PEERS = 16
EVERYWHERE = ("0.0.0.0", "::")
# connections that wait to be accepted: a full queue costs whoever comes next a second
BACKLOG = 1024


class LiveServer:
    """Shows a board. ``start`` it once, ``stop`` it once.

    Args:
        board: its streams are announced before ``start``.
        host: address to listen on; anything but localhost should have a token.
        port: 0 takes any free one.
        token: short for ``access`` with one token that may do everything.
        access: tokens and users; one of them is asked for on every route if there are any.
        tls: certificate and key, PEM files; None speaks plain HTTP.
        operable: what may be changed over the API, None for nothing.
        archive: recordings and past events, None where there are none.
        max_peers: the most WebRTC viewers at once; 0: no WebRTC.
        feeds: encodes the board's pictures for others too; None: for WebRTC alone.
        stats: statistics as JSON values; the page reads ``streams`` by name.
        not_ready: None when results can be expected, else the reason.
        heat: gives the heat map of a stream as (H, W, 4) uint8, None where there is none.
    """

    def __init__(
        self,
        board: LiveBoard,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        access: Access | None = None,
        tls: tuple[Path, Path] | None = None,
        operable: Operable | None = None,
        archive: Archive | None = None,
        max_peers: int = MAX_PEERS,
        feeds: Feeds | None = None,
        stats: Callable[[], dict[str, Any]] = dict,
        not_ready: Callable[[], str | None] = lambda: None,
        heat: Callable[[str], UInt8 | None] = lambda _: None,
    ) -> None:
        self._board = board
        self._host = host
        self._port = port
        self._access = access or Access(token)
        self._tls = tls
        self._operable = operable
        self._archive = archive
        self._max_peers = max_peers
        self._feeds = feeds
        self._stats = stats
        self._not_ready = not_ready
        self._heat = heat
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> tuple[str, int]:
        """Listen and serve in the background.

        Returns:
            The host and the port that is used.

        Raises:
            SinkError: the port is in use or may not be used.
        """
        listener = _listen(self._host, self._port)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="server", daemon=True)
        self._thread.start()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._started.wait(0.05):
            if not self._thread.is_alive() or time.monotonic() > deadline_s:
                raise SinkError(f"http:{self._port}: the server did not start; run with --debug to see why")
        return self._host, int(listener.getsockname()[1])

    def stop(self) -> None:
        """End all requests and free the port. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(STOP_TIMEOUT_S + 1)
        if thread.is_alive():
            log.warning("live server: did not end within %d s", STOP_TIMEOUT_S + 1)

    def _run(self, listener: Listener) -> None:
        with listener:
            asyncio.run(self._serve(listener))

    async def _serve(self, listener: Listener) -> None:
        import uvicorn

        from edge.server.accounts import Accounts
        from edge.server.app import Facts, build_app
        from edge.server.push import Hub

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        hub = Hub(self._board, self._loop)
        peers = self._peers(listener.getsockname()[0])
        accounts = Accounts(self._access)
        facts = Facts(self._board, self._stats, self._not_ready, self._heat, peers, accounts.stats)
        app = build_app(hub, facts, accounts, self._operable, self._archive)
        cert, key = self._tls or (None, None)
        connections = Connections(self._loop)
        config = uvicorn.Config(
            app,
            http=limited_protocol(connections),
            ssl_certfile=cert,
            ssl_keyfile=key,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            # addresses in an access log would carry tokens
            access_log=False,
            log_config=None,
            log_level="critical",
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_TIMEOUT_S - 1,
        )
        server = uvicorn.Server(config)
        listener.on_accept = connections.accepted
        # with a token or users the gate listens instead
        serving = asyncio.ensure_future(server.serve([] if self._access.is_closed else [listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.002)
        gate = self._gate(listener, server, connections, accounts) if self._access.is_closed else None
        self._started.set()
        await asyncio.wait((serving, asyncio.ensure_future(self._stopping.wait())), return_when="FIRST_COMPLETED")
        if gate is not None:
            gate.stop()
        hub.close()
        if peers is not None:
            await peers.close()
        server.should_exit = True
        await serving

    def _gate(self, listener: Listener, server: uvicorn.Server, connections: Connections, accounts: Accounts) -> Gate:
        """The process that lets only those through who have a token or a session."""
        from edge.server.gate import Gate

        def take(handed: Handed) -> None:
            protocol = make(config=server.config, server_state=server.server_state, app_state=server.lifespan.state)
            protocol.handed = handed
            connections.accepted(handed.socket)
            tasks.add(task := loop.create_task(_connect(protocol, handed.socket)))
            task.add_done_callback(tasks.discard)

        make: Any = server.config.http_protocol_class
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        gate = Gate(listener, self._access, self._tls, take, accounts.hear, accounts.for_gate)
        accounts.tell_gate = gate.tell
        return gate

    def _peers(self, address: str) -> Peers | None:
        """Those who watch over WebRTC at the listener's address, where that is wanted and aiortc is installed."""
        if self._max_peers == 0 or importlib.util.find_spec("aiortc") is None:
            return None
        from edge.server.webrtc import Peers

        return Peers(self._board, self._max_peers, None if address in EVERYWHERE else address, self._feeds)


async def _connect(protocol: asyncio.Protocol, connection: socket.socket) -> None:
    # the client may have gone already
    with suppress(OSError):
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)


def _listen(host: str, port: int) -> Listener:
    listener = Listener(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # what is set here, the connections inherit on Linux
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            if hasattr(socket, option):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SinkError(_sentence(host, port, error)) from None
    return listener


def _sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"http:{port}: port {port} of {host} is in use by another program; stop it or use another, or 0 for any"
    if error.errno == errno.EACCES:
        return f"http:{port}: ports below 1024 need special rights; use one from 1024 on, such as 8080"
    return f"http:{port}: cannot listen on {host} ({error.strerror}); expected an address of this machine"
