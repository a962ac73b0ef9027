"""One stream: its configuration, what its threads share, and what is known about it now.

Each field has one writer: capture writes ``status``, inference ``num_in_engine``, the governor ``held_fps``, the
pipeline the rest. Anybody may read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edge.addresses.secrets import redacted, redacted_value
from edge.addresses.uris import kind_of
from edge.analytics.loud import LoudRule
from edge.metrics.counters import Counters, Rate, StageTimes, Window
from edge.metrics.stages import Count
from edge.models.tiles import TileGrid
from edge.pipeline.record_source import RecordSource
from edge.pipeline.tally import FrameBudget, Tally
from edge.sources.direct import uses_av
from edge.threads.drop_queue import DropQueue
from edge.threads.guard import Guarded
from edge.threads.worker import LATE_S
from edge.video.event_clock import AnalysedTimes, EventClock
from edge.video.packets import NOTHING, PacketQueue, PacketTaker, PacketTap, SoundLevel

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.interfaces import SourceInfo, SwitchPart
    from edge.models.manifest import Manifest
    from edge.pipeline.analysis import StreamAnalysis
    from edge.pipeline.latest_frames import LatestFrames, StreamSlot
    from edge.pipeline.live_source import LiveSource
    from edge.threads.guard import Guard
    from edge.threads.worker import Worker
    from edge.types import Event, Frame, HealthChange, Result
    from edge.watchlog.seconds import Analysed

log = logging.getLogger(__name__)
CaptureState = Literal["connecting", "streaming", "frozen", "backing_off", "ended", "failed"]
# two results may wait for a slow output; more would only be older
OUTPUT_CAPACITY = 2
# of a file, whose frames do not age: as many again may be in the engine, so that it never waits for the output
LOSSLESS_CAPACITY = 4


@dataclass(slots=True)
class CaptureStatus:
    """How the capture of a stream stands; written by its capture thread alone.

    Attributes:
        reason: why it is in this state, empty where all is well.
        info: of the source, None before it was first opened.
        health: what is wrong with the camera's picture now: ``frozen``, ``dark``, …
        opened: set when the source was opened for the first time, or can never be.
    """

    state: CaptureState = "connecting"
    reason: str = ""
    info: SourceInfo | None = None
    health: tuple[str, ...] = ()
    opened: threading.Event = field(default_factory=threading.Event)

    def note_health(self, change: HealthChange) -> None:
        """Remember what is wrong with the picture."""
        name = change.data["from"] if change.kind == "camera_recovered" else change.kind.removeprefix("camera_")
        others = tuple(other for other in self.health if other != name)
        self.health = others if change.kind == "camera_recovered" else (*others, name)


@dataclass(slots=True)
class StreamMetrics:
    """What is counted and timed of one stream.

    Attributes:
        counters: frames by what became of them, see ``edge.metrics.stages.Count``.
        age_ms: of the frames that came out.
    """

    counters: Counters[Count] = field(default_factory=Counters[Count])
    stages: StageTimes = field(default_factory=StageTimes)
    age_ms: Window = field(default_factory=lambda: Window(4096))
    captured_rate: Rate = field(default_factory=Rate)
    emitted_rate: Rate = field(default_factory=Rate)


def _drawn(config: StreamSettings) -> tuple[list[str], list[str]]:
    """The names of the lines and of the zones."""
    return [line.name for line in config.analytics.lines], [zone.name for zone in config.analytics.zones]


class Stream:
    """A camera, a file or a scene on its way through the pipeline; made and opened by ``edge.pipeline.build``.

    Attributes:
        config: of the stream.
        model: name of its model.
        manifest: of its model; the pipeline replaces it after a swap.
        analysis: its tracker and analytics; used by the inference thread.
        status: how its capture stands.
        metrics: what is counted.
        results: from inference to output.
        packets: the camera's own packets, on their way to the recording; None where they are not recorded.
        capture_packets: what takes those of ``source``.
        tap: gives the camera's own packets to whoever asks; None where they are not served.
        sound: gives its sound to whoever listens; None where nobody may.
        loud: says when its sound is an event; None where nobody asks.
        event_clock: the one time of both pictures, where another one is recorded than the one that is analysed.
        record_source: what brings those of the large picture, where another one is analysed.
        live_source: what brings the large picture for who looks; set before the stream is opened.
        on_event: told of an event that belongs to no frame: the camera is gone.
        num_in_engine: frames that were started and have no result yet; written by inference.
        held_fps: the governor's limit, None while the device is cool.
        pending_events: of the camera, on their way to the output, each with the epoch and number of the frame that it
            belongs to.
        is_leaving: the stream is being removed: its end is not the end of the pipeline.
        server: how the server of its model is; see ``Pipeline.server``.
        tally: what came out in all; written by output.
        budget: how many frames may still come out; None for all.
        analysed: what inference has seen, for the watch log to take; None where none is kept.
    """

    def __init__(
        self,
        config: StreamSettings,
        model: str,
        manifest: Manifest,
        analysis: StreamAnalysis,
        *,
        on_event: Callable[[Event], None] = lambda event: None,
        on_lost: Callable[[Stream, Result], None] = lambda stream, result: None,
        is_served: bool = False,
        off: Callable[[], frozenset[SwitchPart]] = frozenset,
        is_heard: bool = False,
    ) -> None:
        """Prepare; nothing is open yet.

        Args:
            config, model, manifest, analysis, on_event: see the attributes.
            on_lost: told of a result that was dropped before it came out.
            is_served: whether others may want the camera's own packets, where nothing forbids it.
            off: gives what is switched off now.
            is_heard: whether they may want its sound, where nothing forbids it.

        Raises:
            ConfigError: a time zone of its schedules is not known.
        """
        self.config = config
        self.model = model
        self.manifest = manifest
        self.analysis = analysis
        self.status = CaptureStatus()
        self.metrics = StreamMetrics()
        self.on_event = on_event
        self._on_lost = on_lost
        self.off = off
        capacity = LOSSLESS_CAPACITY if config.is_lossless else OUTPUT_CAPACITY
        self.results: DropQueue[Result] = DropQueue(
            capacity, is_lossless=config.is_lossless, on_drop=self._on_output_full
        )
        has_packets = config.record is not None and config.record.content == "source"
        self.packets = PacketQueue(is_lossless=config.is_lossless) if has_packets else None
        self.loud = None if config.loud is None else LoudRule(config.loud, config.name)
        self.record_source: RecordSource | None = None
        self.event_clock: EventClock | None = None
        of_source: PacketTaker | None = self.packets
        large: PacketTap | None = None
        if config.record_source is not None or config.live_source is not None:
            self.event_clock = EventClock()
        if config.record_source is not None and self.packets is not None and self.event_clock is not None:
            large = PacketTap(self.packets, self._hear)
            level_s = self._level_s if config.hears_large else 0.0
            self.record_source = RecordSource(config, large, self.event_clock, level_s)
            of_source = None
        small = PacketTap(of_source, self._hear)
        if self.event_clock is not None and kind_of(config.source) == "network" and config.decoder != "opencv":
            # of what is analysed the times are needed, where PyAV reads it
            small.listen(AnalysedTimes(self.event_clock))
        self.tap = (large or small) if is_served and config.why_no_packets is None else None
        can_hear = config.hears_large or (
            kind_of(config.source) == "network" and uses_av(config.source, config.decoder)
        )
        self.sound: PacketTap | None = None
        if is_heard and can_hear and config.has_sound:
            self.sound = large if config.hears_large else small
        self.live_source: LiveSource | None = None
        is_tapped = small.wanted != NOTHING or small in (self.tap, self.sound) or bool(self.level_s)
        self.capture_packets: PacketTaker | None = small if is_tapped else None
        self.num_in_engine = 0
        self.held_fps: float | None = None
        self.is_leaving = False
        self._next_ns = 0
        self.tally = Tally(manifest.classes, *_drawn(config))
        self.budget: FrameBudget | None = None
        self.pending_events: deque[tuple[int, int, Event]] = deque(maxlen=256)
        self.analysed: deque[Analysed] | None = None
        self._threads: StreamThreads | None = None
        self._guards: list[Guard] = []
        self._model_guards: Callable[[], Sequence[Guard]] = tuple
        self.server: Callable[[], Mapping[str, object] | None] = lambda: None

    @property
    def name(self) -> str:
        return self.config.name

    def watch(self, config: StreamSettings) -> None:
        """Take other lines, zones and what else is in ``analytics``, from the next frame on.

        Raises:
            ConfigError: an unknown class, key point or time zone: nothing was changed.
        """
        self.analysis.change(config.analytics)
        self.config = config
        self.tally.watch(*_drawn(config))

    @property
    def reads_sound(self) -> bool:
        """Whether capture reads the sound of ``source``: for a recording of its packets, or for who listens."""
        is_kept = self.packets is not None or self.tap is not None
        is_heard = self.sound is not None and self.sound is self.capture_packets
        return self.config.has_sound and (is_heard or bool(self.level_s) or (is_kept and self.record_source is None))

    @property
    def level_s(self) -> float:
        """Over how long the loudness of ``source`` is measured; 0: it is not."""
        return 0.0 if self.config.hears_large else self._level_s

    @property
    def _level_s(self) -> float:
        return 0.0 if self.config.loud is None else self.config.loud.window_s

    def _hear(self, level: SoundLevel) -> None:
        """How loud it is; in the thread that reads the camera."""
        event = None if self.loud is None else self.loud.take(level.dbfs, level.time_ns)
        if event is not None:
            log.info("%s: loud %s", self.name, dict(event.data))
            # with the next frame that comes out
            self.queue_event(event, 0, 0)

    @property
    def score(self) -> float:
        """The least score of an object that is shown: the stream's, else the model's."""
        return self.manifest.thresholds.score if self.config.score is None else self.config.score

    @property
    def tiles(self) -> TileGrid | None:
        """How its pictures are cut before the model sees them; None for whole pictures."""
        if self.config.tiles is None:
            return None
        return TileGrid(*self.config.tiles, overlap=self.config.tile_overlap)

    @property
    def is_analysed(self) -> bool:
        """Whether frames go to the model; they are shown and recorded in any case."""
        return "analysis" not in self.off()

    @property
    def is_recorded(self) -> bool:
        """Whether what the configuration records is recorded now."""
        return "recording" not in self.off()

    @property
    def has_room(self) -> bool:
        """Whether inference may work for this stream: a lossless one waits for its output."""
        return not self.config.is_lossless or len(self.results) + self.num_in_engine < LOSSLESS_CAPACITY

    def is_too_old(self, frame: Frame, now_ns: int) -> bool:
        """Whether a frame is beyond the age that may still come out; lossless streams have no such age."""
        return not self.config.is_lossless and now_ns - frame.captured_ns > self.config.max_age_ms * 1e6

    def is_held_back(self, frame: Frame) -> bool:
        """Whether the governor lets this frame pass no more; inference's thread."""
        if self.held_fps is None:
            return False
        if frame.captured_ns < self._next_ns:
            return True
        period_ns = int(1e9 / self.held_fps)
        # keeps the rate where frames do not come at exact times, and does not make up for a pause
        self._next_ns = max(self._next_ns + period_ns, frame.captured_ns + period_ns // 2)
        return False

    @property
    def has_sound(self) -> bool:
        """Whether there is sound to listen to now."""
        form = None if self.sound is None else self.sound.form
        return form is not None and form.sound is not None

    def queue_event(self, event: Event, epoch: int, seq: int) -> None:
        """Send an event with the frame of this number, or with the first one after it that comes out."""
        self.pending_events.append((epoch, seq, event))

    def take_events(self, frame: Frame) -> list[Event]:
        """The camera events that go out with this frame; output's thread."""
        events: list[Event] = []
        while self.pending_events and self.pending_events[0][:2] <= (frame.epoch, frame.seq):
            events.append(self.pending_events.popleft()[2])
        return events

    def note_guards(self, parts: Sequence[object], of_model: Callable[[], Sequence[Guard]] | None = None) -> None:
        """Remember what guards these parts, for ``stats``; and what gives the guards of its model's parts."""
        self._guards += [part.guard for part in parts if isinstance(part, Guarded)]
        self._model_guards = of_model or self._model_guards

    def report_lost(self, result: Result) -> None:
        """Report the events of a result that never comes out."""
        self._on_lost(self, result)

    def run(self, threads: StreamThreads) -> None:
        """Take over the threads that work for it; once."""
        assert self._threads is None
        self._threads = threads

    @property
    def threads(self) -> StreamThreads:
        """Capture and output; only of a stream that was opened."""
        assert self._threads is not None
        return self._threads

    @property
    def is_open(self) -> bool:
        return self._threads is not None

    @property
    def is_running(self) -> bool:
        """Whether results may still come out."""
        return self._threads is not None and self._threads.output.is_alive

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is under way and end capture and output; nothing is left of a stream that ended by itself."""
        self.is_leaving = True
        if self._threads is not None:
            self._threads.close(self.results)
        self.end_guards()

    def end_guards(self) -> None:
        """End the threads of its parts that nobody closes; after its last frame."""
        for guard in self._guards:
            guard.end()

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        now_ns = time.monotonic_ns()
        status, metrics = self.status, self.metrics
        median, high = metrics.age_ms.percentiles()
        return {
            "state": status.state,
            "reason": redacted(status.reason),
            "health": list(status.health),
            "switched_off": sorted(self.off()),
            "width": status.info.width if status.info else 0,
            "height": status.info.height if status.info else 0,
            "decoder": status.info.decoder if status.info else "",
            "sound": self.has_sound,
            "fps_in": round(metrics.captured_rate.per_second(now_ns), 2),
            "fps_out": round(metrics.emitted_rate.per_second(now_ns), 2),
            "age_median_ms": round(median, 1),
            "age_p99_ms": round(high, 1),
            "counts": metrics.counters.snapshot(),
            "analytics": self.analysis.counts(),
            "analytics_fault": self.analysis.fault,
            **({} if self.config.ptz is None else {"is_away": self.analysis.is_away}),
            "server": redacted_value(self.server()),
            "stages": metrics.stages.snapshot(),
            **({} if self.record_source is None else {"record_source": self.record_source.stats()}),
            **({} if self.live_source is None else {"live_source": self.live_source.stats()}),
            "parts": {guard.name: redacted_value(guard.stats()) for guard in (*self._guards, *self._model_guards())},
        }

    def summary(self) -> dict[str, Any]:
        """What came out in all, as JSON values: ``counts``, ``tally``, ``fault``, ``age_median_ms``, ``age_p99_ms``."""
        median, high = self.metrics.age_ms.percentiles()
        return {
            "counts": self.metrics.counters.snapshot(),
            "tally": self.tally.as_dict(),
            "fault": self.analysis.fault,
            "age_median_ms": median,
            "age_p99_ms": high,
        }

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures; zeros before they are known."""
        return (0, 0) if self.status.info is None else (self.status.info.width, self.status.info.height)

    @property
    def num_emitted(self) -> int:
        """Frames that came out so far."""
        return self.metrics.counters["emitted"]

    @property
    def num_frames(self) -> int | None:
        """Of a file; None where no end is known."""
        return None if self.status.info is None else self.status.info.num_frames

    def _on_output_full(self, result: Result) -> None:
        self.metrics.counters.add("drop_output_full")
        self.report_lost(result)


@dataclass(frozen=True, slots=True)
class StreamThreads:
    """The threads of an open stream, and its place in the hand-over between them and inference.

    ``others`` bring further pictures of its camera.
    """

    latest: LatestFrames[Frame]
    slot: StreamSlot[Frame]
    capture: Worker
    output: Worker
    others: Sequence[Worker] = ()

    def end_capture(self) -> None:
        """No new frame; what is under way still comes out."""
        self.capture.stop()
        for other in self.others:
            other.stop()
        self.latest.end(self.slot)

    def join(self, deadline_s: float) -> bool:
        """Wait for all of them until a moment of ``time.monotonic()``; whether they have ended."""
        workers = (self.capture, *self.others, self.output)
        for worker in workers:
            worker.join(max(0.0, deadline_s - time.monotonic()))
        return not any(worker.is_alive for worker in workers)

    def close(self, results: DropQueue[Result]) -> None:
        """End all at once, whatever waits."""
        self.end_capture()
        self.latest.remove(self.slot)
        results.close()
        self.output.stop()
        self.join(time.monotonic() + LATE_S)
