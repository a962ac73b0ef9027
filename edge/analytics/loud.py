"""When a camera's sound is an event: loud enough for long enough, at a time when it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edge.analytics.analytics import CLOCK_RESTART_NS, WallClock, wall_clock
from edge.analytics.schedule import Schedule
from edge.types import Event

if TYPE_CHECKING:
    from edge.config.analytics import LoudSettings

# what became of a moment's level: an event; or why there was none, the nearest to one first
Came = Literal["said", "cool_down", "schedule", "hold", "level"]
ORDER: tuple[Came, ...] = ("said", "cool_down", "schedule", "hold", "level")
NS_PER_S = 1_000_000_000


class LoudRule:
    """Takes one level after the other, in the thread that reads the camera.

    Args:
        settings: what is loud.
        stream: its name.
        clock: the time of day at a ``time_ns``, for the schedules.

    Raises:
        ConfigError: a time zone is not known.
    """

    def __init__(self, settings: LoudSettings, stream: str, clock: WallClock = wall_clock) -> None:
        self._settings = settings
        self._stream = stream
        self._clock = clock
        self._schedule = Schedule(settings.schedules, f"{stream}.loud")
        self._window_ns = round(settings.window_s * NS_PER_S)
        self._since_ns: int | None = None
        self._loudest = settings.dbfs
        self._last_ns: int | None = None
        self._said_ns: int | None = None
        self._heard: tuple[float, Came] | None = None

    def take(self, dbfs: float, time_ns: int) -> Event | None:
        """The event that a level makes. Args: it, and the stream's time at the end of its window."""
        self._watch_clock(time_ns)
        came = self._came(dbfs, time_ns)
        heard = self._heard
        nearest = came if heard is None else min(came, heard[1], key=ORDER.index)
        self._heard = (dbfs if heard is None else max(dbfs, heard[0])), nearest
        if came != "said" or self._since_ns is None:
            return None
        self._said_ns = time_ns
        seconds = round((time_ns - self._since_ns) / NS_PER_S, 1)
        return Event("loud", self._stream, time_ns, data={"dbfs": round(self._loudest, 1), "seconds": seconds})

    def take_heard(self) -> tuple[float, Came] | None:
        """The loudest level since this was asked last, and what became of it; None where nothing was heard."""
        heard, self._heard = self._heard, None
        return heard

    def _came(self, dbfs: float, time_ns: int) -> Came:
        settings = self._settings
        if dbfs < settings.dbfs:
            self._since_ns = None
            return "level"
        if self._since_ns is None:
            self._since_ns, self._loudest = time_ns - self._window_ns, dbfs
        self._loudest = max(self._loudest, dbfs)
        if time_ns - self._since_ns < settings.hold_s * NS_PER_S:
            return "hold"
        if not self._schedule.is_on(self._clock(time_ns)):
            return "schedule"
        is_cooling = self._said_ns is not None and time_ns - self._said_ns < settings.cool_down_s * NS_PER_S
        return "cool_down" if is_cooling else "said"

    def _watch_clock(self, time_ns: int) -> None:
        """A pause ends what was loud; a clock that began again ends all."""
        if self._last_ns is not None and time_ns - self._last_ns > self._window_ns + NS_PER_S:
            self._since_ns = None
        if self._last_ns is not None and time_ns < self._last_ns - CLOCK_RESTART_NS:
            self._since_ns = self._said_ns = None
        self._last_ns = time_ns
