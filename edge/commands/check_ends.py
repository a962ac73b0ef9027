"""``edge check``'s look at where results go: folders, receivers, brokers, services. Nothing is written there."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge.errors import EdgeError, SinkError

if TYPE_CHECKING:
    from edge.config.events import MqttSettings, NotifySettings
    from edge.config.schema import Config, StreamSettings

Row = dict[str, str]
CONNECT_S = 5.0
PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}


def check_ends(config: Config) -> Iterator[Row]:
    """One row for every place that results are written or sent to."""
    for stream in config.streams:
        for spec in stream.sinks:
            yield _sink_row(stream, spec)
        if stream.record is not None:
            folder = stream.record.folder
            yield tried("recording", f"{stream.name} recording", str(folder), partial(_writable, folder))
    yield from _kept_rows(config)
    for broker in config.mqtt:
        where = f"{broker.host}:{broker.port or 'default port'}"
        yield tried("broker", broker.name, where, partial(_login, broker))
    for hook in config.webhooks:
        from edge.addresses.uris import without_keys

        yield tried("webhook", hook.name, without_keys(hook.url), partial(_reachable, hook.url))
    for notify in config.notify:
        if not notify.push:
            yield tried("message", notify.name, str(notify.url_file), partial(_service, notify))
    if config.rtsp.enabled:
        yield tried("rtsp", "rtsp", f"{config.rtsp.host}:{config.rtsp.port}", lambda: _rtsp(config))
    if config.server.enabled:
        yield tried("page", "server", f"{config.server.host}:{config.server.port}", lambda: _page(config))


def _rtsp(config: Config) -> str:
    from edge.daemon.workers.deal import places_of

    if places_of(config):
        return "/NAME; no /NAME/source: with [workers] a camera's own packets stay in the process that records them"
    return "/NAME, and /NAME/source of network cameras without masks, roi and rotate"


def tried(kind: str, name: str, what: str, attempt: Callable[[], str]) -> Row:
    """The row of an attempt: its answer is the detail, its error the reason of the failure."""
    from edge.addresses.secrets import redacted

    row = {"kind": kind, "name": name, "what": redacted(what)}
    try:
        return {**row, "result": "ok", "detail": attempt()}
    except EdgeError as error:
        return {**row, "result": "failed", "detail": redacted(str(error))}


def _kept_rows(config: Config) -> Iterator[Row]:
    from edge.daemon.state import state_dir, with_state_dir

    if config.state_dir is not None:
        yield tried("state", "state_dir", str(config.state_dir), lambda: _writable(config.state_dir or Path()))
    placed = with_state_dir(config, state_dir(config))
    if config.watch_log is not None:
        from edge.daemon.watcher import watch_folder

        yield tried("watch log", "state_dir", "", lambda: _writable(watch_folder(placed)))
    if config.night is not None:
        yield tried("night", "teachers", ", ".join(map(str, config.night.teachers)), lambda: _night(placed))
    if not (config.events or config.mqtt or config.webhooks or config.notify):
        return
    from edge.pipeline.shared_outputs import outbox_path

    yield tried("events", "outbox", "", lambda: _writable(outbox_path(placed).parent))
    pictures = config.events.snapshots if config.events else None
    if pictures is not None:
        yield tried("events", "snapshots", str(pictures), lambda: _writable(pictures))


def _night(config: Config) -> str:
    """Whether a shift would find what it needs."""
    from importlib.util import find_spec

    from edge.errors import ConfigError, MissingError
    from edge.model import find_manifest
    from edge.packages.installed import add_extra
    from edge.pipeline.shared_outputs import night_folder

    assert config.night is not None
    if find_spec("torch") is None:
        raise MissingError(f"the night shift needs torch; run: {add_extra('train')}")
    for path in (*config.night.teachers, *([config.night.start] if config.night.start else [])):
        if not path.is_file():
            raise ConfigError(f"night: {path}: no such file")
    taught = find_manifest(config.night_model.path)
    if taught.task != "detect" or config.night_model.path.suffix != ".onnx":
        raise ConfigError(f"night.model: {config.night_model.path.name}: expected a detector as an ONNX file")
    if taught.precision == "int8" and config.night.start is None:
        raise ConfigError(
            f"night.start: {config.night_model.path.name} is INT8, from which nothing can learn; name the checkpoint "
            "or the float ONNX file that it was made of"
        )
    return f"window {config.night.window}, {_writable(night_folder(config))}"


def _sink_row(stream: StreamSettings, spec: str) -> Row:
    from edge.addresses.uris import without_keys

    return tried("sink", f"{stream.name} sink", without_keys(spec), lambda: _try_sink(spec, stream.name))


def _try_sink(spec: str, stream: str) -> str:
    from edge.sinks.choose import place_of

    kind, place = place_of(spec, stream)
    match kind:
        case "jsonl":
            return "standard output" if place == "-" else _writable(Path(place).parent, is_made=False)
        case "mp4":
            return _writable(Path(place).parent, is_made=False)
        case "snapshot":
            return _writable(Path(place), is_made=False)
        case "record" | "hls":
            return _writable(Path(place))
        case "whip":
            return _reachable(place)
        case "srt":
            return "srt: not tried, its receiver may call or be called"
        case "window":
            return "needs a display"
        case _:
            return _reachable(f"{kind}:{place}")


def _writable(folder: Path, *, is_made: bool = True) -> str:
    """How much is free where files will lie.

    Args:
        folder: the folder.
        is_made: whether the daemon makes it; else it must be there.
    """
    place = folder.absolute()
    if not is_made and not place.is_dir():
        raise SinkError(f"the folder {folder} does not exist; run: mkdir -p {folder}")
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise SinkError(f"{place} cannot be written by this user; expected a folder of one's own")
    return f"{shutil.disk_usage(place).free / 1e9:.1f} GB free"


def _reachable(address: str) -> str:
    from edge.addresses.uris import without_keys

    parts = urlsplit(address)
    port = parts.port or PORTS.get(parts.scheme, 0)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SinkError(f"{without_keys(address)} cannot be reached ({reason}); is it up?") from None
    return "answers"


def _login(broker: MqttSettings) -> str:
    from edge.sinks.mqtt import MqttTarget

    # the daemon's own name would throw out a daemon that runs
    guest = broker.model_copy(update={"client_id": f"edgeloop-check-{os.getpid()}"})
    MqttTarget(guest, tuple, "check").try_login()
    return "lets us in"


def _service(notify: NotifySettings) -> str:
    from edge.sinks.notify import NotifyTarget

    return NotifyTarget(notify).try_service()


def _page(config: Config) -> str:
    from edge.daemon.serving import checked_tls

    settings = config.server
    checked_tls(settings.tls_cert_file, settings.tls_key_file)
    try:
        socket.create_server((settings.host, settings.port)).close()
    except OSError as error:
        # a daemon that runs has it
        return f"the port is not free now ({error.strerror})"
    return "the port is free"
