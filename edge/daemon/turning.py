"""Turning cameras to their presets, by hand and by events, and home again after a while.

Lines and zones rest until they are there.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from edge.addresses.uris import host_of, user_info
from edge.errors import ConfigError, EdgeError, UsageError
from edge.onvif.device import service_url
from edge.onvif.ptz import go_to, presets_of
from edge.onvif.soap import Login

if TYPE_CHECKING:
    from edge.config.picture import PtzSettings, TurnSettings
    from edge.config.schema import StreamSettings
    from edge.daemon.run import Run
    from edge.types import Event

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
        # until when no event turns the camera of a stream
        self._cool_until_s: dict[str, float] = {}

    def presets(self, stream: str) -> dict[str, Any]:
        """Where the camera of a stream can turn to, and which of it is home.

        Raises:
            EdgeError: it cannot be turned, or does not answer.
        """
        config, settings = self._turning(stream)
        names = [one.name for one in presets_of(*place_of(config, settings))]
        return {"presets": names, "home": settings.home}

    def go_to(self, stream: str, preset: str) -> None:
        """Turn the camera of a stream.

        Raises:
            EdgeError: it cannot be turned, does not answer, has no such preset, or is being turned.
        """
        config, settings = self._turning(stream)
        with self._lock:
            if stream in self._busy:
                raise UsageError(f"{stream}: the camera is being turned; wait for its answer")
            self._busy.add(stream)
        try:
            self._turn(config, settings, preset)
        finally:
            with self._lock:
                self._busy.discard(stream)

    def note(self, event: Event) -> None:
        """Turn what an event turns; waits for nobody."""
        for running in self._pipeline.streams.values():
            config, settings = running.config, running.config.ptz
            if settings is not None:
                rule = next((rule for rule in settings.on_event if _is_meant(rule, event, config.name)), None)
                if rule is not None:
                    self._turn_by_event(config, settings, rule)

    def _turn_by_event(self, config: StreamSettings, settings: PtzSettings, rule: TurnSettings) -> None:
        now_s, name = time.monotonic(), config.name
        with self._lock:
            is_free = name not in self._busy and now_s >= self._cool_until_s.get(name, now_s)
            if not is_free or self._pipeline.is_away(name):
                return
            self._busy.add(name)
            self._cool_until_s[name] = now_s + settings.cool_down_s
        # nothing of it waits for a camera that does not answer
        threading.Thread(target=self._obey, args=(config, settings, rule), name=f"turn {name}", daemon=True).start()

    def _obey(self, config: StreamSettings, settings: PtzSettings, rule: TurnSettings) -> None:
        try:
            # what cannot be asked has not moved, and its lines and zones need not rest
            presets_of(*place_of(config, settings))
            self._turn(config, settings, rule.preset)
        except EdgeError as error:
            log.warning("%s: %s does not turn the camera to %r (%s)", config.name, rule.event, rule.preset, error)
        finally:
            with self._lock:
                self._busy.discard(config.name)

    def _turn(self, config: StreamSettings, settings: PtzSettings, preset: str) -> None:
        was_away = self._pipeline.is_away(config.name)
        # from before it moves until after it has come to rest; whatever was to follow an order before does not
        self._cancel(config.name)
        self._pipeline.tell_away(config.name, is_away=True)
        url, login = place_of(config, settings)
        try:
            go_to(url, preset, login)
        except UsageError:
            # it has not moved
            self._pipeline.tell_away(config.name, is_away=was_away)
            if was_away:
                self._later(config.name, settings.back_s, self._go_home)
            raise
        except EdgeError:
            self._later(config.name, settings.back_s, self._go_home)
            raise
        log.info("%s: the camera turns to %r", config.name, preset)
        if preset == settings.home:
            self._later(config.name, settings.settle_s, self._arrive)
        else:
            self._later(config.name, settings.back_s, self._go_home)

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
            self._turning(stream)
            self._pipeline.tell_away(stream, is_away=False)
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

    def _turning(self, stream: str) -> tuple[StreamSettings, PtzSettings]:
        """The stream and how its camera is turned. Raises: ConfigError: it is not."""
        running = self._pipeline.streams.get(stream)
        if running is None or running.config.ptz is None:
            raise ConfigError(f"{stream}: no camera that turns; [streams.ptz] in the configuration says that it does")
        return running.config, running.config.ptz


def _is_meant(rule: TurnSettings, event: Event, own: str) -> bool:
    if (rule.event, rule.stream or own) != (event.kind, event.stream):
        return False
    is_there = rule.name is None or rule.name in (event.data.get("line"), event.data.get("zone"))
    return is_there and (not rule.classes or event.data.get("class") in rule.classes)


def place_of(stream: StreamSettings, settings: PtzSettings) -> tuple[str, Login]:
    """The device service of a stream's camera, and its user."""
    source = stream.source
    user, _, password = user_info(source).partition(":")
    return service_url(settings.onvif or host_of(source)), Login(unquote(user), unquote(password))
