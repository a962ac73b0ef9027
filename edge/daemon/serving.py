"""Putting the live page before a pipeline: board, server, tokens and certificates."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.addresses.networks import is_loopback
from edge.addresses.secrets import read_secret
from edge.addresses.uris import masked
from edge.daemon.credentials import MIN_TOKEN_CHARS
from edge.errors import ConfigError
from edge.models.keypoints import limbs_of
from edge.server.access import Access
from edge.server.proxies import Proxies
from edge.users.file import read_users

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.daemon.operations import Operations
    from edge.daemon.run import Run
    from edge.daemon.turning import Turner
    from edge.models.manifest import Manifest
    from edge.server import LiveServer
    from edge.server.board import LiveBoard
    from edge.server.feeds import Feeds
    from edge.server.night import Night
    from edge.server.operate import Operable
    from edge.server.rtsp.server import RtspServer

AUDIT_NAME = "audit.jsonl"
log = logging.getLogger(__name__)


def live_page(config: Config) -> LiveBoard | None:
    """The board, where the configuration wants a live page or RTSP."""
    if not (config.server.enabled or config.rtsp.enabled):
        return None
    from edge.server.board import LiveBoard

    return LiveBoard()


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves, and where: ``address`` of the page; both servers are None where they are not wanted."""

    page: LiveServer | None
    rtsp: RtspServer | None
    feeds: Feeds
    address: str | None

    def stop(self) -> None:
        """End all of it. May be called twice."""
        for server in (self.page, self.rtsp):
            if server is not None:
                server.stop()
        self.feeds.close()


def serve(
    config: Config,
    board: LiveBoard,
    pipeline: Run,
    stats: Callable[[], dict[str, Any]],
    operations: Operations,
    turner: Turner,
) -> Serving:
    """Start the live page and RTSP, where they are wanted.

    Raises:
        EdgeError: a token or certificate cannot be read, or a port is in use.
    """
    from edge.server.feeds import Feeds

    for stream in pipeline.streams.values():
        announce(board, pipeline, stream.config)
    settings, feeds = config.server, Feeds(board)
    access = _access(config, b"" if (messages := pipeline.outputs.archive().messages) is None else messages.snooze_key)
    with ExitStack() as undo:
        undo.callback(feeds.close)
        rtsp = _rtsp(config, access, feeds, pipeline) if config.rtsp.enabled else None
        if rtsp is not None:
            undo.callback(rtsp.stop)
            told = stats
            stats = lambda: {**told(), "rtsp": rtsp.stats()}  # noqa: E731
        page, address = None, None
        if settings.enabled:
            page, address = _page(config, access, board, feeds, pipeline, stats, operations, turner)
        undo.pop_all()
    return Serving(page, rtsp, feeds, address)


def _page(
    config: Config,
    access: Access,
    board: LiveBoard,
    feeds: Feeds,
    pipeline: Run,
    stats: Callable[[], dict[str, Any]],
    operations: Operations,
    turner: Turner,
) -> tuple[LiveServer, str]:
    """The live page, started; the server and the address to open."""
    from edge.server import LiveServer

    settings = config.server
    tls = checked_tls(settings.tls_cert_file, settings.tls_key_file)
    server = LiveServer(
        board,
        host=settings.host,
        port=settings.port,
        access=access,
        tls=tls,
        max_peers=settings.max_peers,
        feeds=feeds,
        stats=stats,
        not_ready=pipeline.not_ready,
        heat=pipeline.heat,
        operable=_operable(config, operations, turner),
        archive=pipeline.outputs.archive(),
    )
    if access.is_closed and tls is None and not is_loopback(settings.host):
        what = "tokens" if settings.users_file is None else "tokens and passwords"
        log.warning("server: %s cross the network as plain text; tls_cert_file and tls_key_file encrypt them", what)
    host, port = server.start()
    return server, f"{'https' if tls else 'http'}://{_shown(host)}:{port}/"


def _operable(config: Config, operations: Operations, turner: Turner) -> Operable:
    """What the page may do."""
    settings = config.server
    from edge.daemon.cameras import CameraAdder
    from edge.server.operate import Operable

    editor = operations.editor() if settings.can_edit else None
    adder = None if editor is None else CameraAdder(editor)
    turning = turner if any(stream.ptz for stream in config.streams) else None
    return Operable(
        operations, settings.can_reload, settings.can_swap, editor, adder, operations.questions, _night(config), turning
    )


def _night(config: Config) -> Night | None:
    """What tells of the night shift; None where there is none."""
    if config.night is None:
        return None
    from edge.night.report import page, told
    from edge.pipeline.shared_outputs import night_folder
    from edge.server.night import Night

    folder = night_folder(config)
    return Night(partial(told, folder), partial(page, folder))


def _rtsp(config: Config, access: Access, feeds: Feeds, pipeline: Run) -> RtspServer:
    """The RTSP server, started."""
    from edge.pipeline.stream import Stream
    from edge.server.rtsp.server import Offered, RtspServer

    def offered() -> dict[str, Offered]:
        found = {}
        for name, stream in pipeline.streams.items():
            if not isinstance(stream, Stream):
                found[name] = Offered(reason=stream.config.why_no_packets or "a worker has them ([workers])")
                continue
            large = stream.record_source
            need = (lambda: None) if large is None else partial(large.need, 1.0)
            found[name] = Offered(stream.tap, stream.config.why_no_packets or "", need)
        return found

    settings = config.rtsp
    server = RtspServer(settings.host, settings.port, access, feeds, offered, max_clients=settings.max_clients)
    host, port = server.start()
    log.info("rtsp: rtsp://%s:%d/NAME, and /NAME/source", _shown(host), port)
    return server


def _shown(host: str) -> str:
    return "localhost" if host in ("0.0.0.0", "::") else host


def announce(board: LiveBoard, pipeline: Run, stream: StreamSettings) -> None:
    """Show a stream on the page before its first frame, and what has changed of one that is known."""
    model = pipeline.models.get(pipeline.config.model_of(stream).name)
    card = None if model is None else _card(stream, model.manifest)
    if card is not None and (stream.name not in board.streams or board.info(stream.name) != card):
        board.add_stream(stream.name, card)


def bring_up_to_date(board: LiveBoard, pipeline: Run) -> None:
    """Show what runs now: streams that went are gone, and models that were swapped are the new ones."""
    streams = pipeline.streams
    for name in board.streams:
        if name not in streams:
            board.remove_stream(name)
    for stream in streams.values():
        announce(board, pipeline, stream.config)


def _card(stream: StreamSettings, manifest: Manifest) -> dict[str, object]:
    spec = manifest.input
    return {
        "source": masked(stream.source),
        # masks drawn on the page are shares of the camera's picture before these
        "roi": stream.roi,
        "rotate": stream.rotate,
        # its video has other pictures than those that are analysed
        "has_live_source": stream.live_source is not None,
        "heatmap": stream.analytics.heatmap is not None,
        "can_turn": stream.ptz is not None,
        "model": {
            "name": manifest.name,
            "task": manifest.task,
            "input": f"{spec.width}x{spec.height}",
            "precision": manifest.precision,
            "classes": list(manifest.classes[:100]),
            "accuracy": manifest.accuracy,
        },
        # pairs of key points that the page joins
        "limbs": limbs_of(manifest.keypoint_names),
        "is_file": stream.is_lossless,
    }


def _access(config: Config, snooze_key: bytes) -> Access:
    """Who is let in.

    Raises:
        ConfigError: a token or the file of users cannot be read, or makes no sense.
    """
    settings = config.server
    if settings.users_file is not None:
        read_users(settings.users_file)
    return Access(
        _token(settings.token_file, "server.token_file"),
        _token(settings.view_token_file, "server.view_token_file"),
        settings.allow_anyone,
        snooze_key,
        settings.users_file,
        Proxies(settings.user_header.lower(), settings.trusted_proxies),
        settings.session_idle_h * 3600,
        settings.session_max_days * 86_400,
        audit_file_of(config),
        int(settings.audit_mb * 1e6),
    )


def audit_file_of(config: Config) -> Path | None:
    """Where the audit log is; None where none is kept."""
    settings = config.server
    if settings.audit_file is not None or settings.users_file is None or config.state_dir is None:
        return settings.audit_file
    return config.state_dir / AUDIT_NAME


def _token(path: Path | None, key: str) -> str | None:
    return None if path is None else read_secret(path, key, min_chars=MIN_TOKEN_CHARS)


def checked_tls(cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Certificate and key, if they belong together.

    Raises:
        ConfigError: they do not, or cannot be read.
    """
    if cert is None or key is None:
        return None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or getattr(error, "reason", "") or "not readable"
        raise ConfigError(
            f"server.tls_cert_file, server.tls_key_file: {cert} and {key} are no certificate with its key ({reason})"
        ) from None
    return cert, key
