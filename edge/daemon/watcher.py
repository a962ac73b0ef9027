"""Keeps the watch log of every stream, in a thread of its own: a slow disk delays a row, and no frame."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from edge.addresses.secrets import redacted_value
from edge.errors import ConfigError, EdgeError
from edge.metrics.clock import WallClock
from edge.metrics.stages import DROP_CAUSES
from edge.recording.retention import NS_PER_DAY, Keep
from edge.watchlog.chain import LOGS
from edge.watchlog.keys import DeviceKey
from edge.watchlog.log import Ending, Moment, WatchLog
from edge.watchlog.seconds import NS_PER_S, Seconds

if TYPE_CHECKING:
    from edge.config.daemon import WatchLogSettings
    from edge.config.schema import Config, StreamSettings
    from edge.pipeline.stream import Stream

log = logging.getLogger(__name__)
MB = 1 << 20
# a frame that took part in a batch has been noted by then
GRACE_S = 1.0
TRY_AGAIN_S = 30.0
# of a file's frames, which wait for a slow engine as long as they must
LOSSLESS_S = 2.0
# the masks are measured on a picture of this size
GRID_PX = 512


class Clocks(Protocol):
    """The clocks of the machine; a test has its own."""

    def now_ns(self) -> int: ...

    def offset_ns(self) -> int:
        """Wall clock minus monotonic clock."""

    def asleep_ns(self) -> int:
        """How long the machine has slept since it booted, which the monotonic clock leaves out."""

    def boot(self) -> str: ...


class MachineClocks:
    """See ``Clocks``."""

    def __init__(self) -> None:
        self._wall = WallClock()

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def offset_ns(self) -> int:
        return self._wall.offset_ns

    def asleep_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()

    def boot(self) -> str:
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        except OSError:
            return "unknown"


class Watcher:
    """Looks at every stream once a second."""

    def __init__(
        self,
        streams: Callable[[], Mapping[str, Stream]],
        folder: Path,
        settings: WatchLogSettings,
        clocks: Clocks | None = None,
    ) -> None:
        """Args: the streams of now, where the logs of all lie, how much is kept, the clocks."""
        self._streams = streams
        self._folder = folder
        self._settings = settings
        self._clocks = clocks or MachineClocks()
        self._watched: dict[str, _Watched] = {}
        self._key: DeviceKey | None = None
        self._try_at_s = 0.0
        self._flush_at_s = 0.0
        self._slept_ns = self._clocks.asleep_ns()
        self._offset_ns = self._clocks.offset_ns()

    def run(self, stopping: threading.Event) -> None:
        """Write until asked to stop, and then what is left."""
        while not stopping.wait(1 - self._clocks.now_ns() % NS_PER_S / NS_PER_S):
            self.tick()
        self.close()

    def tick(self) -> None:
        """Take note of the second that is over."""
        self._note_clock()
        streams = self._streams()
        for name, watched in list(self._watched.items()):
            if streams.get(name) is not watched.stream:
                watched.close(self._now_s(), "removed")
                del self._watched[name]
        for name, stream in streams.items():
            if name not in self._watched and stream.analysed is not None:
                self._begin(name, stream)
        for watched in self._watched.values():
            watched.tick(self._now_s())
        if time.monotonic() >= self._flush_at_s:
            self._flush_at_s = time.monotonic() + self._settings.flush_s
            for watched in self._watched.values():
                watched.log.flush()

    def close(self) -> None:
        """End every log, with all seconds that are over."""
        self._note_clock()
        for watched in self._watched.values():
            watched.close(self._now_s(), "stopped")
        self._watched.clear()

    def _now_s(self) -> int:
        return self._clocks.now_ns() // NS_PER_S

    def _moment(self) -> Moment:
        return Moment(self._now_s(), self._offset_ns, self._clocks.boot())

    def _note_clock(self) -> None:
        """Tell all logs where the wall clock was set, or the machine slept."""
        offset_ns, slept_ns = self._clocks.offset_ns(), self._clocks.asleep_ns()
        by_s, asleep_s = (offset_ns - self._offset_ns) / NS_PER_S, (slept_ns - self._slept_ns) / NS_PER_S
        # reading two clocks takes a moment
        asleep_s = asleep_s if asleep_s > 0.1 else 0.0
        if offset_ns == self._offset_ns and not asleep_s:
            return
        self._offset_ns, self._slept_ns = offset_ns, slept_ns
        for watched in self._watched.values():
            # the rows before this second keep the time that they had
            watched.write_until(self._now_s())
            watched.log.note_clock(self._moment(), round(by_s, 3), round(asleep_s, 3))

    def _begin(self, name: str, stream: Stream) -> None:
        if time.monotonic() < self._try_at_s:
            return
        try:
            if self._key is None:
                self._key = DeviceKey.made_in(self._folder.parent)
            keep = Keep(round(self._settings.max_age_days * NS_PER_DAY), round(self._settings.max_mb * MB))
            written = WatchLog(self._folder / name, name, self._key, keep)
            watched = _Watched(stream, written, self._moment())
        except (OSError, EdgeError) as error:
            self._try_at_s = time.monotonic() + TRY_AGAIN_S
            log.error("%s: the watch log cannot begin (%s); it is tried again", name, error)
        else:
            self._watched[name] = watched


class _Watched:
    """One stream and its log."""

    def __init__(self, stream: Stream, written: WatchLog, moment: Moment) -> None:
        """Raises: OSError: the log's folder cannot be used."""
        self.stream = stream
        self.log = written
        self._config = stream.config
        self._facts = facts_of(stream.config, stream.manifest.sha256 or "")
        self._seconds = Seconds(moment.second)
        self._drops = _drops_of(stream)
        self._noted_s = moment.second
        age_s = LOSSLESS_S if stream.config.is_lossless else stream.config.max_age_ms / 1e3
        self._settle_s = int(age_s + GRACE_S) + 1
        written.begin(moment, self._facts)

    def tick(self, now_s: int) -> None:
        """Note how the stream stands, and write the seconds of which no frame can come any more."""
        self._note(now_s)
        self._write(now_s - self._settle_s)

    def write_until(self, now_s: int) -> None:
        """Write all seconds before this one, whatever may still come of them."""
        self._note(now_s)
        self._write(now_s)

    def close(self, now_s: int, ending: Ending) -> None:
        self.write_until(now_s)
        self.log.close(ending)

    def _note(self, now_s: int) -> None:
        self._take_frames()
        if self.stream.config is not self._config:
            # other lines and zones, drawn on the page
            self._config = self.stream.config
            self._facts = facts_of(self._config, self._facts["model"])
            self._write(now_s - 1)
            self.log.note_facts(self._facts)
        drops = _drops_of(self.stream)
        if now_s <= self._noted_s:
            return
        changed = {cause: count - self._drops[cause] for cause, count in drops.items()}
        self._seconds.note_state(now_s - 1, self.stream.status.state, self.stream.status.health, changed)
        if now_s - self._noted_s == 2:
            # the thread was a little late: no second was missed
            self._seconds.note_state(now_s - 2, self.stream.status.state, self.stream.status.health, {})
        self._drops, self._noted_s = drops, now_s

    def _take_frames(self) -> None:
        analysed = self.stream.analysed
        while analysed:
            frame = analysed.popleft()
            if frame.model != self._facts["model"]:
                self._facts = {**self._facts, "model": frame.model}
                # what was seen before was seen by the other one
                self._write(frame.captured_ns // NS_PER_S)
                self.log.note_facts(self._facts)
            self._seconds.note_frame(frame)

    def _write(self, until_s: int) -> None:
        for row in self._seconds.close(until_s):
            self.log.add(row)


def facts_of(config: StreamSettings, model: str) -> dict[str, Any]:
    """What a stream is watched with: hashes of the model file, of its settings, of its masks, and what these cover."""
    settings = redacted_value(config.model_dump(mode="json"))
    masks = settings["masks"]
    return {
        "version": importlib.metadata.version("edgeloop"),
        "model": model,
        "config": _digest(settings),
        "masks": _digest(masks) if masks else "",
        "masked_share": masked_share(config.masks),
    }


def masked_share(masks: tuple[tuple[tuple[float, float], ...], ...]) -> float:
    """How much of the camera's picture the masks cover, in [0, 1]."""
    grid = np.zeros((GRID_PX, GRID_PX), np.uint8)
    for mask in masks:
        cv2.fillPoly(grid, [np.rint(np.array(mask) * GRID_PX).astype(np.int32)], 1)
    return round(float(grid.mean()), 4)


def watch_folder(config: Config) -> Path:
    """Where the logs of all streams lie.

    Raises:
        ConfigError: there is no place for them.
    """
    if config.state_dir is None:
        raise ConfigError("watch_log: there is no place for it; set state_dir")
    return config.state_dir / LOGS


def _drops_of(stream: Stream) -> dict[str, int]:
    counts = stream.metrics.counters.snapshot()
    return {cause: counts.get(cause, 0) for cause in DROP_CAUSES}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
