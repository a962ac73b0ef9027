"""Does less before the device throttles: fewer frames of every live camera while it is too hot or draws too much.

It steps down at once and up only after a while below the lower limit, so that it does not swing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge.diagnose.gpu_stats import DeviceFacts, read_device

if TYPE_CHECKING:
    from edge.config.daemon import GovernorSettings
    from edge.pipeline.stream import Stream

log = logging.getLogger(__name__)
# share of a camera's frames that is inferred, per level
SHARES = (1.0, 0.75, 0.5, 0.33, 0.25, 0.15)
# so many cool looks in a row allow a step up
CALM_LOOKS = 3
POWER_MARGIN = 0.9


class Governor:
    """Looks at the device now and then. ``run`` it in a thread of its own."""

    def __init__(
        self,
        settings: GovernorSettings,
        streams: Callable[[], Mapping[str, Stream]],
        read: Callable[[], DeviceFacts] = read_device,
    ) -> None:
        """Args: the limits, the streams of now, what asks the device."""
        self._settings = settings
        self._streams = streams
        self._read = read
        self._level = 0
        self._num_calm = 0
        self._last = DeviceFacts()

    @property
    def share(self) -> float:
        """Share of the frames that is inferred now."""
        return SHARES[self._level]

    def run(self, stopping: threading.Event) -> None:
        """Look until asked to stop."""
        while not stopping.wait(self._settings.period_s):
            self.look()

    def look(self) -> None:
        """Look once: change the level where need be, and hold the streams to it."""
        self._last = self._read()
        before = self._level
        if self._is_hot(self._last):
            self._num_calm = 0
            self._level = min(self._level + 1, len(SHARES) - 1)
        elif self._is_cool(self._last):
            self._num_calm += 1
            if self._num_calm >= CALM_LOOKS and self._level:
                self._num_calm = 0
                self._level -= 1
        else:
            self._num_calm = 0
        if self._level != before:
            words = f"{self._last.temperature_c} C, {self._last.power_w} W"
            log.warning("governor: %s: %.0f %% of the frames from now on", words, 100 * self.share)
        self._hold()

    def facts(self) -> dict[str, Any]:
        """What it does now, as JSON values."""
        return {"level": self._level, "share": self.share}

    def _hold(self) -> None:
        for stream in self._streams().values():
            if stream.config.is_lossless:
                continue
            rate = stream.status.info.fps if stream.status.info is not None and stream.status.info.fps else 30.0
            wanted = max(self._settings.min_fps, rate * self.share)
            stream.held_fps = wanted if self._level else None

    def _is_hot(self, facts: DeviceFacts) -> bool:
        settings = self._settings
        is_over = settings.max_power_w is not None and (facts.power_w or 0.0) > settings.max_power_w
        return bool(facts.is_throttled) or (facts.temperature_c or 0.0) >= settings.hot_c or is_over

    def _is_cool(self, facts: DeviceFacts) -> bool:
        settings = self._settings
        is_low = settings.max_power_w is None or (facts.power_w or 0.0) < settings.max_power_w * POWER_MARGIN
        return not facts.is_throttled and (facts.temperature_c or 0.0) <= settings.cool_c and is_low
