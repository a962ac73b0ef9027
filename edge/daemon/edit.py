"""Saving what is drawn on the page: the file is edited, its last versions are kept, and it is read again."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.analytics.checks import check_settings
from edge.config.camera import Camera, streams_in, with_cameras
from edge.config.edit import drawn_in, parse_drawn, with_drawn
from edge.config.load import parse_text
from edge.errors import ConfigError, EdgeError, SinkError
from edge.files import write_atomic

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.daemon.run import Run

log = logging.getLogger(__name__)
FOLDER = "config-versions"
MAX_VERSIONS = 10
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-[0-9a-f]{12}")


class ConfigEditor:
    """Changes the file of a running daemon. Any thread; one change at a time.

    Args:
        path: the configuration file.
        folder: where state is kept, and so the last versions; None: none are kept.
        pipeline: that runs; what its pictures and models are decides whether a line can work.
        order_reload: makes the daemon read the file again.
    """

    def __init__(self, path: Path, folder: Path | None, pipeline: Run, order_reload: Callable[[], None]) -> None:
        self._path = path.resolve()
        self._folder = None if folder is None else folder / FOLDER
        self._pipeline = pipeline
        self._order_reload = order_reload
        self._lock = threading.Lock()

    def drawn(self, stream: str) -> dict[str, Any]:
        """What is drawn on a stream in the file now, and the ``version`` of the file that says so.

        Raises:
            ConfigError: the file cannot be read, or has no such stream.
        """
        text = self._read()
        return {"version": _version(text), **drawn_in(text, stream)}

    def save(self, stream: str, drawn: Any, version: str) -> dict[str, Any]:
        """Write lines, zones and masks into the file and have it read again.

        Args:
            stream: its name.
            drawn: JSON values, see ``edge.config.edit.Drawn``.
            version: of the file that was changed; who changed an older one is refused.

        Raises:
            ConfigError: it would not work, and why; nothing was written.
            SinkError: the file cannot be written.
        """
        with self._lock:
            text = self._read()
            if version != _version(text):
                raise ConfigError("the file was changed meanwhile; open the page again to see it, then draw again")
            return self._write(text, with_drawn(text, stream, parse_drawn(drawn)))

    def names(self) -> list[str]:
        """Of the streams in the file now. Raises: ConfigError: it cannot be read."""
        return [str(one.get("name")) for one in streams_in(self._read())]

    def add(self, camera: Camera) -> dict[str, Any]:
        """Write another stream into the file, its password into a file of its own, and have it read again.

        Args:
            camera: under a name of which there is no stream yet.

        Raises:
            ConfigError: it would not work, and why; nothing was written.
            SinkError: a file cannot be written.
        """
        with self._lock:
            text, folder = self._read(), self._path.parent
            edited = with_cameras(text, [camera], folder)
            # before a file is named after it
            parse_text(edited, self._path.name)
            place = camera.password_file(folder)
            if camera.password and place.exists():
                raise ConfigError(f"{place.name} is there already; choose another name")
            try:
                written = camera.write_password(folder)
            except OSError as error:
                raise SinkError(f"{place}: cannot be written ({error.strerror}); see docs/live.md") from None
            try:
                return {"name": camera.name, **self._write(text, edited)}
            except EdgeError:
                if written is not None:
                    written.unlink(missing_ok=True)
                raise

    def drafted(self, stream: str, drawn: Any) -> StreamSettings:
        """The stream's settings as they would be with this drawn on it; nothing is written.

        Raises:
            ConfigError: it would not work, and why.
        """
        text = with_drawn(self._read(), stream, parse_drawn(drawn))
        config = parse_text(text, self._path.name)
        self._refuse_unfit(config)
        return next(one for one in config.streams if one.name == stream)

    def versions(self) -> list[dict[str, str]]:
        """The versions before the last changes, newest first: ``id`` and ``saved_at``, in UTC."""
        return [{"id": name, "saved_at": _time_of(name).isoformat()} for name in sorted(self._kept(), reverse=True)]

    def restore(self, version: str) -> dict[str, Any]:
        """Put an earlier version in place of the file; what stands there becomes a version itself.

        Raises:
            ConfigError: there is no such version, or it is not valid any more.
            SinkError: the file cannot be written.
        """
        with self._lock:
            kept = self._kept()
            if version not in kept:
                raise ConfigError(f"no version is called {version!r}; known: {', '.join(sorted(kept)) or 'none'}")
            return self._write(self._read(), kept[version].read_text(encoding="utf-8"))

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._path.name}: cannot be read ({error})") from None

    def _write(self, before: str, after: str) -> dict[str, Any]:
        """Put another text in place of the file, if it is a configuration that can work."""
        if after != before:
            config = parse_text(after, self._path.name)
            self._refuse_unfit(config)
            self._keep(before)
            try:
                write_atomic(self._path, after, self._path.stat().st_mode & 0o777)
            except OSError as error:
                raise SinkError(
                    f"{self._path}: cannot be written ({error.strerror}); the daemon's user needs to own the file and "
                    "to write into its folder: see docs/live.md"
                ) from None
            log.info("%s: was changed from the page", self._path)
        self._order_reload()
        return {"version": _version(after)}

    def _refuse_unfit(self, config: Config) -> None:
        """Refuse lines and zones that cannot work in the pictures that come now."""
        for stream in config.streams:
            running = self._pipeline.streams.get(stream.name)
            width, height = (0, 0) if running is None else running.size
            if running is not None and width and height:
                check_settings(
                    stream.analytics,
                    stream=stream.name,
                    classes=running.manifest.classes,
                    width=width,
                    height=height,
                    model_anchors=running.manifest.anchors,
                )

    def _kept(self) -> dict[str, Path]:
        folder = self._folder
        if folder is None or not folder.is_dir():
            return {}
        return {path.stem: path for path in folder.glob("*.toml") if _NAME.fullmatch(path.stem)}

    def _keep(self, text: str) -> None:
        """Keep a version, and no more than the last few."""
        if self._folder is None:
            return
        name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}-{_version(text)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # it may hold what the file holds, passwords too
            write_atomic(self._folder / f"{name}.toml", text, mode=0o600)
            for old in sorted(self._kept().values())[:-MAX_VERSIONS]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise SinkError(
                f"{self._folder}: the version before cannot be kept there ({error.strerror}); nothing was changed"
            ) from None


def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _time_of(name: str) -> datetime:
    found = _NAME.fullmatch(name)
    assert found is not None
    return datetime.strptime(found[1], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=timezone.utc)
