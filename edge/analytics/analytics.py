"""What the tracks of one stream mean: counts, events, speeds and heat, from one object per stream with bounded memory.

N tracks of a frame, T remembered tracks, L lines, Z zones, C classes. The same frames give the same events.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.checks import check_settings
from edge.analytics.classes import ClassFilters
from edge.analytics.facts import EventMaker
from edge.analytics.heatmap import Heatmap
from edge.analytics.lines import LineCounter
from edge.analytics.schedule import Schedule
from edge.analytics.speed import Ground, Motion, motion_of
from edge.analytics.state import MAX_TRACKS, NEVER, TrackTable, usable, vote
from edge.analytics.zones import ZoneWatcher
from edge.errors import DataError
from edge.types import Bool, Event, Int32, Int64, Shape, Tracks, UInt8

if TYPE_CHECKING:
    from edge.config.analytics import AnalyticsSettings

SCHEMA = 1
# a step back by more than this is a clock that began again; by less, a frame out of order
CLOCK_RESTART_NS = 2_000_000_000
# what is measured in seconds (lost, loitering, stopped) is looked at ten times a second
SWEEP_NS = 100_000_000
SCHEDULE_NS = 1_000_000_000

WallClock = Callable[[int], datetime]


def wall_clock(time_ns: int) -> datetime:
    """The time of day now; a replay passes a clock that follows ``time_ns`` instead."""
    del time_ns
    return datetime.now(timezone.utc)


class StreamAnalytics:
    """Lines, zones, speeds and heat of one stream. Used by one thread, which gives it every frame in order.

    Attributes:
        lines, zones, filters, schedules, maker: its parts, for who reads stored tracks by the same rules; the filters
            and schedules are those of the lines, then of the zones.
        has_schedules: whether there are any.
    """

    def __init__(
        self,
        settings: AnalyticsSettings,
        *,
        stream: str,
        classes: Sequence[str],
        width: int,
        height: int,
        model_anchors: Sequence[str] = (),
        state: Mapping[str, Any] | None = None,
        clock: WallClock = wall_clock,
    ) -> None:
        """Build everything for frames of this size.

        Args:
            settings: what to watch.
            stream: name of the stream, for events and messages.
            classes: class names of the detector, in the order of their ids.
            width, height: pixels of the frame.
            model_anchors: points of an object that the model gives, see ``Manifest.anchors``.
            state: what ``state()`` gave before a restart.
            clock: the time of day at a ``time_ns``, for the schedules.

        Raises:
            ConfigError: impossible geometry, or an unknown class or time zone.
            DataError: the state is not one of ours.
        """
        check_settings(
            settings, stream=stream, classes=classes, width=width, height=height, model_anchors=model_anchors
        )
        self._stream, self._classes, self._clock = stream, tuple(classes), clock
        self.lines = LineCounter(settings.lines, classes, width, height, model_anchors)
        self.zones = ZoneWatcher(settings.zones, classes, width, height, model_anchors)
        kept = (self.lines.anchors, self.zones.anchors)
        points = [anchors.field for anchors in kept if anchors.has_own]
        self._table = TrackTable(len(settings.lines), len(settings.zones), points)
        self._ground = Ground(settings.ground, f"{stream}: ground", width, height) if settings.ground else None
        self._heatmap = Heatmap(settings.heatmap, width, height) if settings.heatmap else None
        self.maker = EventMaker(stream, self._classes, self.lines, self.zones, self._ground)
        drawn = (*settings.lines, *settings.zones)
        self.filters = ClassFilters([part.classes for part in drawn], self._classes)
        self._heat_filter = ClassFilters([settings.heatmap.classes if settings.heatmap else ()], self._classes)
        self.schedules = [Schedule(part.schedules, f"{stream}.{part.name}") for part in drawn]
        self.has_schedules = any(part.schedules for part in drawn)
        self._active = np.ones(len(drawn), np.bool_)
        self.lost_ns, self.forget_ns = round(settings.lost_s * 1e9), round(settings.forget_s * 1e9)
        self._last_ns = self._next_sweep_ns = self._next_schedule_ns = NEVER
        self._print = zlib.crc32(repr((settings.lines, settings.zones, width, height)).encode())
        if state is not None:
            self._load(state)

    def update(self, tracks: Tracks, time_ns: int) -> tuple[Event, ...]:
        """Take the tracks of the next frame.

        Args:
            tracks: those of this stream's tracker. Negative ids, predicted positions and boxes that are not finite
                or inverted are ignored.
            time_ns: the frame's ``time_ns``. A frame that is not later than the last one is ignored; one that is
                more than two seconds earlier starts a new clock, and all earlier tracks are lost.

        Returns:
            What became certain in this frame.
        """
        events: list[Event] = []
        if self._last_ns != NEVER and time_ns <= self._last_ns:
            if time_ns >= self._last_ns - CLOCK_RESTART_NS:
                return ()
            events += self._restart_clock(time_ns)
        step_s = 0.0 if self._last_ns == NEVER else (time_ns - self._last_ns) / 1e9
        self._last_ns = time_ns
        events += self._watch_schedules(time_ns)
        is_sweep = self._next_sweep_ns == NEVER or time_ns >= self._next_sweep_ns
        if is_sweep:
            self._next_sweep_ns = time_ns + SWEEP_NS
            events += self._sweep(time_ns)
        events += self._take(usable(tracks), time_ns, step_s, is_sweep)
        events += self.maker.changed(self._table.rows, self.zones.watch_crowds(time_ns), time_ns)
        return tuple(events)

    def counts(self) -> dict[str, Any]:
        """All counts, JSON values only: ``lines`` and ``zones`` by name."""
        return {"lines": self.lines.counts(), "zones": self.zones.counts(self._table.rows)}

    def shapes(self) -> tuple[Shape, ...]:
        """Lines and zones with their counts, for the overlay."""
        lines, occupancy = self.lines.counts(), self.zones.occupancy.tolist()
        return tuple(
            Shape("line", name, points.astype(np.float32), f"in {lines[name]['in']}  out {lines[name]['out']}")
            for name, points in zip(self.lines.names, self.lines.points, strict=True)
        ) + tuple(
            Shape("zone", name, points.astype(np.float32), f"{inside} inside")
            for name, points, inside in zip(self.zones.names, self.zones.points, occupancy, strict=True)
        )

    def heat(self) -> UInt8 | None:
        """See ``Heatmap.draw``; None where no heat map is wanted."""
        return None if self._heatmap is None else self._heatmap.draw()

    def motion(self, tracks: Tracks) -> Motion:
        """Speeds and, with a calibrated ground, positions in metres of these tracks."""
        return motion_of(tracks, self._ground)

    def state(self) -> dict[str, Any]:
        """All that is remembered, JSON values only, for ``state`` of the next start."""
        return {
            "schema": SCHEMA,
            "geometry": self._print,
            "times_ns": [self._last_ns, self._next_sweep_ns, self._next_schedule_ns],
            "active": self._active.tolist(),
            "lines": self.lines.counts(),
            "zones": self.zones.state(),
            "tracks": self._table.to_json(),
            "heatmap": self._heatmap.state() if self._heatmap else None,
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        """Take over counts and, where lines and zones are drawn as before, the tracks."""
        try:
            if state["schema"] != SCHEMA:
                raise ValueError(f"schema {state['schema']!r}")
            is_same = state["geometry"] == self._print
            self.lines.load_counts(state["lines"])
            self.zones.load(state["zones"], with_tracks=is_same)
            if is_same:
                self._table.load_json(state["tracks"])
                self._last_ns, self._next_sweep_ns, self._next_schedule_ns = map(int, state["times_ns"])
                self._active = np.array(state["active"], np.bool_).reshape(len(self._active))
            if self._heatmap and state["heatmap"]:
                self._heatmap.load(state["heatmap"])
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, zlib.error) as error:
            raise DataError(
                f"{self._stream}: the stored analytics state is not usable ({error!r}); remove it to start from zero"
            ) from None

    def _take(self, tracks: Tracks, time_ns: int, step_s: float, is_sweep: bool) -> list[Event]:
        events: list[Event] = []
        rows = self._table.rows
        if len(rows) and rows["is_restored"].any():
            strangers = self._table.strangers(tracks, time_ns)
            events += self._lose(strangers, time_ns)
            self._table.keep(~np.isin(np.arange(len(self._table)), strangers))
        slot = self._table.admit(tracks)
        rows = self._table.rows
        vote(rows, slot, tracks.class_id)
        wanted = self._wants(rows["class_id"][slot])
        num_lines = len(self.lines.names)
        crossings = self.lines.update(rows, slot, tracks, wanted[:, :num_lines], time_ns)
        changes = self.zones.update(rows, slot, tracks, wanted[:, num_lines:], time_ns)
        if is_sweep:
            changes += self.zones.linger(rows, slot, tracks.xyxy, time_ns)
        rows["seen_ns"][slot], rows["xyxy"][slot] = time_ns, tracks.xyxy
        rows["velocity"][slot], rows["is_lost"][slot] = tracks.velocity, False
        if self._heatmap:
            self._heatmap.update(tracks.xyxy, self._heat_filter.passes(tracks.class_id)[:, 0], step_s)
        events += self.maker.crossed(rows, crossings, time_ns)
        return events + self.maker.changed(rows, changes, time_ns)

    def _wants(self, class_id: Int32) -> Bool:
        """(N, L + Z) whether the class and the schedule let a track count."""
        wanted: Bool = self.filters.passes(class_id) & self._active
        return wanted

    def _watch_schedules(self, time_ns: int) -> list[Event]:
        if not self.has_schedules or (self._next_schedule_ns != NEVER and time_ns < self._next_schedule_ns):
            return []
        self._next_schedule_ns = time_ns + SCHEDULE_NS
        now = self._clock(time_ns)
        active = np.array([schedule.is_on(now) for schedule in self.schedules], np.bool_)
        if (active == self._active).all():
            return []
        self._active = active
        rows = self._table.rows
        wanted = self._wants(rows["class_id"])[:, len(self.lines.names) :]
        return self.maker.changed(rows, self.zones.refresh(rows, wanted, time_ns), time_ns)

    def _sweep(self, time_ns: int) -> list[Event]:
        """Let go of tracks that were not seen for a while."""
        rows = self._table.rows
        if len(rows) == 0:
            return []
        unseen_ns = time_ns - rows["seen_ns"]
        is_late = unseen_ns > self.lost_ns
        if len(rows) > MAX_TRACKS:
            is_late |= unseen_ns > max(0, int(np.sort(unseen_ns)[MAX_TRACKS]))
        events = self._lose(np.flatnonzero(is_late & ~rows["is_lost"]), time_ns)
        keep = unseen_ns <= self.forget_ns
        if len(rows) > MAX_TRACKS:
            keep &= ~is_late
        if not keep.all():
            self._table.keep(keep)
        return events

    def _lose(self, slot: Int64, time_ns: int) -> list[Event]:
        """Decide what is open about tracks that are gone, before their rows may be dropped."""
        if len(slot) == 0:
            return []
        rows = self._table.rows
        wanted = self._wants(rows["class_id"][slot])[:, : len(self.lines.names)]
        events = self.maker.crossed(rows, self.lines.lose(rows, slot, wanted), time_ns)
        events += self.maker.changed(rows, self.zones.lose(rows, slot), time_ns)
        rows["is_lost"][slot] = True
        return events

    def _restart_clock(self, time_ns: int) -> list[Event]:
        """Forget all times of a clock that has started again, and with them the tracks."""
        events = self._lose(np.flatnonzero(~self._table.rows["is_lost"]), time_ns)
        self._table.keep(np.zeros(len(self._table), np.bool_))
        self.zones.forget_crowds()
        self._last_ns = self._next_sweep_ns = self._next_schedule_ns = NEVER
        return events
