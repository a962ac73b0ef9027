"""Keeps what the streams see: the inference thread hands over references, one thread of its own makes blocks of them.

Bounded in memory (frames that do not fit are counted), on disk by days and bytes, the oldest parts going first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.metrics.clock import WallClock
from edge.trackstore.asking import ASKED
from edge.trackstore.block import encode
from edge.trackstore.collect import FrameFacts, block_of
from edge.trackstore.compact import UNFINISHED, compact
from edge.trackstore.parts import Head, PartWriter, Span, parts_in
from edge.trackstore.rounding import TICK_NS, Rounding
from edge.trackstore.steady import KnownBoxes
from edge.types import Detections

if TYPE_CHECKING:
    from edge.config.recording import TrackStoreSettings
    from edge.types import Event, Frame, Label, Prediction, Tracks

log = logging.getLogger(__name__)
POLL_S = 0.25
# frames that wait for the thread: some 20 s at 200 per second
MAX_WAITING = 4096
# a block ends with so many frames, however short it is
MAX_FRAMES = 2048
PART_S = 3600.0
MAX_PART_BYTES = 8 << 20
# so finely it is told when something was dropped
MOMENT_NS = 10_000_000
NS_PER_DAY = 86_400_000_000_000
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Stand:
    """How a stream stood at a moment.

    Attributes:
        counts: its counters. state, reason: of the capture. health: what is wrong with the picture.
        faults: what keeps ``analytics``, ``recording``, ``events`` or a target of events from working, and why.
        loud: the loudest level since the last look (``dbfs``) and what became of it (``came``); empty where nobody
            measures it, or nothing was heard.
    """

    counts: Mapping[str, int]
    state: str
    reason: str
    health: tuple[str, ...]
    faults: Mapping[str, str] = field(default_factory=dict)
    loud: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What the store asks of a stream.

    Attributes:
        head: gives the head for frames of this width and height; asked when a part begins, and once a second.
        stand: how it stands now.
    """

    head: Callable[[int, int], Head]
    stand: Callable[[], Stand]


class FrameLog(Rounding):
    """One stream's way into the store. ``rounded`` and ``add`` are for the inference thread."""

    def __init__(self, name: str, facts: StreamFacts, clock: WallClock) -> None:
        super().__init__()
        self._clock = clock
        self.name = name
        self.facts = facts
        self.num_lost = 0
        self._waiting: deque[tuple[Any, ...]] = deque()

    @property
    def num_waiting(self) -> int:
        """Frames that the store's thread has not taken yet."""
        return len(self._waiting)

    @property
    def offset_ns(self) -> int:
        """Wall clock minus monotonic clock, as it will be stored."""
        return self._clock.offset_ns

    def add(
        self,
        frame: Frame,
        prediction: Prediction,
        tracks: Tracks | None,
        events: tuple[Event, ...] = (),
        labels: Mapping[int, tuple[Label, ...]] | None = None,
        *,
        is_away: bool = False,
    ) -> None:
        """Take one frame; nothing is copied, and nothing waits.

        Args:
            frame: its picture is not kept.
            prediction: what the model said.
            tracks: as ``rounded`` gave them.
            events, labels: what was decided.
            is_away: whether the camera was turned away, and lines and zones rested.
        """
        if len(self._waiting) >= MAX_WAITING:
            self.num_lost += 1
            return
        found = prediction if isinstance(prediction, Detections) else None
        captured_ns = frame.captured_ns // TICK_NS * TICK_NS
        times = self.time_ns(frame), captured_ns, frame.epoch, frame.seq, time.monotonic_ns()
        self._waiting.append((*times, (frame.height, frame.width, 3), found, tracks, events, labels or {}, is_away))

    def take(self) -> list[FrameFacts]:
        """All that waits; the store's thread."""
        return [FrameFacts(*self._waiting.popleft()) for _ in range(len(self._waiting))]


@dataclass(slots=True)
class _Open:
    """What is under way of one stream."""

    frames: list[FrameFacts] = field(default_factory=list)
    moments: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[int, Any] = field(default_factory=dict)
    known: KnownBoxes = field(default_factory=KnownBoxes)
    counts: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    lost: int = 0
    head: Head | None = None
    part: PartWriter | None = None
    begun_s: float = 0.0
    noted_s: float = float("-inf")
    part_s: float = 0.0
    # parts that are complete and not made compact yet; the one at work
    complete: deque[Path] = field(default_factory=deque)
    compacting: Iterator[None] | None = None


class TrackStore:
    """``run`` is the one writer; any thread may add a stream, remove it, or ask for what waits to be written.

    Attributes:
        folder: one folder per stream lies in it.
    """

    def __init__(self, settings: TrackStoreSettings, folder: Path, clock: WallClock | None = None) -> None:
        """Args: how much is kept, where, and by which clocks."""
        self.folder = folder
        self._settings = settings
        self._clock = clock or WallClock()
        self._logs: dict[str, FrameLog] = {}
        self._ended: list[FrameLog] = []
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._flush = threading.Event()
        self._flushed = threading.Event()
        self._is_failing = False
        self.num_blocks = self.num_bytes = self.num_frames = self.num_lost = 0
        self.error = ""

    def log_of(self, name: str, facts: StreamFacts) -> FrameLog:
        """The way into the store of a stream; one of this name that was there before has ended."""
        new = FrameLog(name, facts, self._clock)
        with self._lock:
            if name in self._logs:
                self._ended.append(self._logs.pop(name))
            self._logs[name] = new
        return new

    def end(self, name: str) -> None:
        """A stream is gone: what waits of it is written."""
        with self._lock:
            if name in self._logs:
                self._ended.append(self._logs.pop(name))

    def run(self, stopping: threading.Event) -> None:
        """Write until ``close`` was called and everything is written."""
        while not stopping.is_set():
            is_last = self._closing.is_set()
            is_flush = self._flush.is_set() or is_last
            self._round(is_flush)
            if self._flush.is_set():
                self._flush.clear()
                self._flushed.set()
            if is_last:
                break
            self._closing.wait(POLL_S)
        for opened in self._open.values():
            self._end_part(opened)

    def close(self) -> None:
        """Nothing more will be added."""
        self._closing.set()

    def flush(self, timeout_s: float) -> bool:
        """Have what waits written, for a question about what has just happened; False if it was not in time."""
        self._flushed.clear()
        self._flush.set()
        return self._flushed.wait(timeout_s)

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        counts = {"frames": self.num_frames, "blocks": self.num_blocks, "bytes": self.num_bytes}
        return {**counts, "lost": self.num_lost, "error": self.error}

    def _round(self, is_flush: bool) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
            logs = list(self._logs.values())
        for one in ended:
            self._collect(one, is_flush=True)
            self._end_part(self._open.pop(one.name))
        for one in logs:
            asked = self.folder / one.name / ASKED
            is_asked = asked.exists()
            self._collect(one, is_flush or is_asked)
            if is_asked:
                with suppress(OSError):
                    asked.unlink()
        if not is_flush:
            self._compact()

    def _compact(self) -> None:
        """Make a part that is complete smaller, one step of one part: frames come meanwhile."""
        for opened in self._open.values():
            if opened.compacting is None and opened.complete:
                opened.compacting = compact(opened.complete.popleft())
            if opened.compacting is None:
                continue
            try:
                next(opened.compacting)
            except StopIteration:
                opened.compacting = None
            except OSError as error:
                opened.compacting = None
                log.warning("track_store: a part in %s stays as large as it is (%s)", self.folder, error.strerror)
            return

    def _collect(self, one: FrameLog, is_flush: bool) -> None:
        opened = self._open.setdefault(one.name, _Open())
        now_s = time.monotonic()
        for frame in one.take():
            if opened.frames and opened.frames[-1].size != frame.size:
                self._write(one, opened)
            if not opened.frames:
                opened.begun_s = now_s
            opened.frames.append(frame.compact())
            if len(opened.frames) >= MAX_FRAMES:
                self._write(one, opened)
        if now_s - opened.noted_s >= 1.0 or is_flush:
            opened.noted_s = now_s
            self._note(one, opened)
        opened.begun_s = opened.begun_s or now_s
        is_due = now_s - opened.begun_s >= self._settings.block_s
        if (opened.frames or opened.moments) and (is_due or is_flush):
            self._write(one, opened)

    def _note(self, one: FrameLog, opened: _Open) -> None:
        """Note what was captured and dropped since the last look, and how the camera stands where that is new."""
        stand = one.facts.stand()
        moment: dict[str, Any] = {}
        grown = {name: count - opened.counts.get(name, 0) for name, count in stand.counts.items()}
        if counts := {name: count for name, count in grown.items() if count > 0 and _is_noted(name)}:
            moment["counts"] = counts
        if stand.loud:
            moment["loud"] = dict(stand.loud)
        shown: dict[str, Any] = {"state": stand.state, "reason": stand.reason, "health": list(stand.health)}
        if stand.faults or opened.shown.get("faults"):
            shown["faults"] = dict(stand.faults)
        if shown != opened.shown or not opened.moments:
            # each block tells how things stand, so that none depends on another
            moment |= shown
        opened.counts, opened.shown = stand.counts, shown
        if moment:
            opened.moments.append({"ns": self._clock.now_ns() // MOMENT_NS * MOMENT_NS, **moment})

    def _write(self, one: FrameLog, opened: _Open) -> None:
        """Make a block of what is there, and append it; what cannot be written is counted."""
        frames, moments = opened.frames, opened.moments
        opened.frames, opened.moments, opened.begun_s = [], [], time.monotonic()
        lost, one.num_lost = one.num_lost, 0
        opened.lost += lost
        self.num_lost += lost
        offset_ns = self._clock.offset_ns
        size = frames[-1].size if frames else None
        head = self._head(one, opened, size)
        how = (head.model_anchors, head.steps, offset_ns)
        block = block_of(frames, moments, opened.labels, head.anchors, how, opened.known)
        block = replace(block, notes={**block.notes, "lost": opened.lost})
        times = [frame.captured_ns for frame in frames] + [moment["ns"] for moment in moments]
        span = Span(min(times) + offset_ns, max(times) + offset_ns)
        try:
            self._append(opened, head, span, encode(block, head.steps))
        except OSError as error:
            self.num_lost += len(frames)
            opened.lost += len(frames)
            self._end_part(opened)
            self._note_error(error)
        else:
            opened.lost = 0
            self.num_frames += len(frames)
            self.error, self._is_failing = "", False

    def _head(self, one: FrameLog, opened: _Open, size: tuple[int, int] | None) -> Head:
        """The head of frames of this size; another one than before ends the part."""
        known = opened.head
        if size is None:
            size = (known.width, known.height) if known is not None else (1, 1)
        head = one.facts.head(*size)
        if head != known:
            self._end_part(opened)
            opened.head, opened.known = head, KnownBoxes()
        return head

    def _append(self, opened: _Open, head: Head, span: Span, data: bytes) -> None:
        part = opened.part
        if part is not None and (
            part.num_bytes + len(data) > MAX_PART_BYTES or time.monotonic() - opened.part_s > PART_S
        ):
            self._end_part(opened)
        if opened.part is None:
            folder = self.folder / head.stream
            self._make_room(folder)
            if opened.part_s == 0.0:
                # a program before this one left them
                opened.complete.extend(parts_in(folder))
                for unfinished in folder.glob(f"*{UNFINISHED}"):
                    unfinished.unlink(missing_ok=True)
            opened.part = PartWriter(self.folder / head.stream, head.as_json(), span.start_ns)
            opened.part_s = time.monotonic()
        opened.part.append(span, data)
        self.num_blocks += 1
        self.num_bytes += len(data)

    def _end_part(self, opened: _Open) -> None:
        if opened.part is not None:
            opened.part.close()
            opened.complete.append(opened.part.path)
        opened.part = None

    def _make_room(self, folder: Path) -> None:
        """Remove the oldest parts where a stream has too much of them, or they are too old."""
        files = [(path, path.stat()) for path in parts_in(folder)]
        total = sum(facts.st_size for _, facts in files)
        # a part is written for an hour: it must fit as well
        most = self._settings.max_mb * MB - MAX_PART_BYTES
        oldest_ns = time.time_ns() - round(self._settings.max_days * NS_PER_DAY)
        for path, facts in files:
            if total <= most and facts.st_mtime_ns >= oldest_ns:
                break
            path.unlink(missing_ok=True)
            total -= facts.st_size

    def _note_error(self, error: OSError) -> None:
        self.error = f"{self.folder}: {error.strerror or error}"
        if not self._is_failing:
            log.error("track_store: %s; what happens now is not kept, and it is tried again", self.error)
        self._is_failing = True


def head_of(stream: str, run: str, model: Mapping[str, str], config: Mapping[str, Any], **rest: Any) -> Head:
    """A head with the hash of its configuration."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return Head(stream, run, model, config=config, config_sha256=hashlib.sha256(text.encode()).hexdigest(), **rest)


def _is_noted(name: str) -> bool:
    return name.startswith("drop_") or name in ("captured", "inferred", "emitted", "reconnects", "sink_errors")
