"""Turning cameras to their presets, and home again after a while; lines and zones rest until they are there."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from edge.addresses.uris import host_of, user_info
from edge.errors import ConfigError, EdgeError, UsageError
from edge.onvif.device import service_url
from edge.onvif.ptz import go_to, presets_of
from edge.onvif.soap import Login
from edge.pipeline.stream import Stream

if TYPE_CHECKING:
    from edge.config.picture import PtzSettings
    from edge.daemon.run import Run

log = logging.getLogger(__name__)


class Turner:
    """Any thread; one order for a camera at a time.

    Args:
        pipeline: that runs the streams.
    """

    def __init__(self, pipeline: Run) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._timers: dict[str, threading.Timer] = {}

    def presets(self, stream: str) -> dict[str, Any]:
        """Where the camera of a stream can turn to, and which of it is home.

        Raises:
            EdgeError: it cannot be turned, or does not answer.
        """
        running, settings = self._turning(stream)
        names = [one.name for one in presets_of(*_place(running, settings))]
        return {"presets": names, "home": settings.home}

    def go_to(self, stream: str, preset: str) -> None:
        """Turn the camera of a stream.

        Raises:
            EdgeError: it cannot be turned, does not answer, has no such preset, or is being turned.
        """
        running, settings = self._turning(stream)
        with self._lock:
            if stream in self._busy:
                raise UsageError(f"{stream}: the camera is being turned; wait for its answer")
            self._busy.add(stream)
        try:
            self._turn(running, settings, preset)
        finally:
            with self._lock:
                self._busy.discard(stream)

    def _turn(self, running: Stream, settings: PtzSettings, preset: str) -> None:
        was_away = running.analysis.is_away
        # from before it moves until after it has come to rest; whatever was to follow an order before does not
        self._cancel(running.name)
        running.analysis.is_away = True
        url, login = _place(running, settings)
        try:
            go_to(url, preset, login)
        except UsageError:
            # it has not moved
            running.analysis.is_away = was_away
            if was_away:
                self._later(running.name, settings.back_s, self._go_home)
            raise
        except EdgeError:
            self._later(running.name, settings.back_s, self._go_home)
            raise
        log.info("%s: the camera turns to %r", running.name, preset)
        if preset == settings.home:
            self._later(running.name, settings.settle_s, self._arrive)
        else:
            self._later(running.name, settings.back_s, self._go_home)

    def _go_home(self, stream: str) -> None:
        try:
            _, settings = self._turning(stream)
        except ConfigError:
            # the stream is gone
            return
        try:
            self.go_to(stream, settings.home)
        except EdgeError as error:
            log.warning("%s: the camera does not go home (%s); lines and zones rest", stream, error)
            self._later(stream, settings.back_s, self._go_home)

    def _arrive(self, stream: str) -> None:
        with suppress(ConfigError):
            self._turning(stream)[0].analysis.is_away = False
            log.info("%s: the camera is home; lines and zones go on", stream)

    def _later(self, stream: str, delay_s: float, act: Any) -> None:
        """Do this in a while, in place of what was to be done."""
        timer = threading.Timer(delay_s, act, (stream,))
        timer.daemon = True
        self._cancel(stream)
        with self._lock:
            self._timers[stream] = timer
        timer.start()

    def _cancel(self, stream: str) -> None:
        with self._lock:
            if (timer := self._timers.pop(stream, None)) is not None:
                timer.cancel()

    def _turning(self, stream: str) -> tuple[Stream, PtzSettings]:
        """The stream and how its camera is turned. Raises: ConfigError: it is not."""
        running = self._pipeline.streams.get(stream)
        if running is None or running.config.ptz is None:
            raise ConfigError(f"{stream}: no camera that turns; [streams.ptz] in the configuration says that it does")
        if not isinstance(running, Stream):
            raise ConfigError(f"{stream}: with several workers no camera is turned; set workers.count = 1")
        return running, running.config.ptz


def _place(running: Stream, settings: PtzSettings) -> tuple[str, Login]:
    """The device service of a stream's camera, and its user."""
    source = running.config.source
    user, _, password = user_info(source).partition(":")
    return service_url(settings.onvif or host_of(source)), Login(unquote(user), unquote(password))
