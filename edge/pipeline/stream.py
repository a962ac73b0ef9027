"""What one stream owns on its way through the pipeline: its settings, counts, tracker, hand-over and state."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from edge.addresses.secrets import redacted
from edge.config.schema import StreamConfig
from edge.interfaces import SourceInfo
from edge.metrics.counters import Counters, Rate, StageTimes, Window
from edge.metrics.stages import Count
from edge.models.manifest import Manifest
from edge.models.tiles import TileGrid
from edge.pipeline.analysis import Follower
from edge.sources.health import Change
from edge.threads.drop_queue import DropQueue
from edge.types import Event, Frame, Result
from edge.video.packets import PacketQueue

CaptureState = Literal["connecting", "streaming", "frozen", "backing_off", "ended", "failed"]
# two results may wait for a slow output; more would only be older
OUTPUT_CAPACITY = 2
# of a file, whose frames do not age: as many again may be in the engine, so that it never waits for the output
LOSSLESS_CAPACITY = 4


@dataclass(slots=True)
class Lane:
    """One stream. Each part has one owner: capture writes ``state`` and ``info``, inference the follower.

    Attributes:
        config: of the stream.
        model: name of its model.
        manifest: of its model.
        follower: its tracker and analytics.
        results: from inference to output.
        health: what is wrong with the camera's picture now: ``frozen``, ``dark``, …
        held_fps: the governor's limit; None while the device is cool.
        num_in_engine: frames that were started and have no result yet; inference's thread.
        is_leaving: the stream is being removed: its end is not the end of the line.
        packets: the camera's own packets, on their way to the recording; None where they are not recorded.
        on_event: told of an event that belongs to no frame: the camera is gone.
        on_lost: told of a result that was dropped before the output, in the thread that gave it.
        told: camera events on their way to the output, each with the epoch and number of the frame it belongs to.
        counters: ``captured``, ``inferred``, ``emitted``, ``objects``, ``reconnects`` and ``drop_…`` by cause.
    """

    config: StreamConfig
    model: str
    manifest: Manifest
    follower: Follower
    results: DropQueue[Result] = field(init=False)
    packets: PacketQueue | None = field(init=False, default=None)
    on_event: Callable[[Event], None] = lambda event: None
    on_lost: Callable[[Result], None] = lambda result: None
    counters: Counters[Count] = field(default_factory=Counters[Count])
    stages: StageTimes = field(default_factory=StageTimes)
    age_ms: Window = field(default_factory=lambda: Window(4096))
    captured_rate: Rate = field(default_factory=Rate)
    emitted_rate: Rate = field(default_factory=Rate)
    state: CaptureState = "connecting"
    state_reason: str = ""
    info: SourceInfo | None = None
    health: tuple[str, ...] = ()
    told: deque[tuple[int, int, Event]] = field(default_factory=lambda: deque(maxlen=256))
    opened: threading.Event = field(default_factory=threading.Event)
    num_in_engine: int = 0
    is_leaving: bool = False
    held_fps: float | None = None
    _next_ns: int = 0

    def __post_init__(self) -> None:
        self.results = DropQueue(
            LOSSLESS_CAPACITY if self.config.is_lossless else OUTPUT_CAPACITY,
            is_lossless=self.config.is_lossless,
            on_drop=self._on_drop,
        )
        if self.config.record is not None and self.config.record.content == "source":
            self.packets = PacketQueue(is_lossless=self.config.is_lossless)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def tiles(self) -> TileGrid | None:
        """How its pictures are cut before the model sees them; None for whole pictures."""
        if self.config.tiles is None:
            return None
        return TileGrid(*self.config.tiles, overlap=self.config.tile_overlap)

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

    def note_health(self, change: Change) -> None:
        """Remember what is wrong with the picture; capture's thread."""
        name = change.data["from"] if change.kind == "camera_recovered" else change.kind.removeprefix("camera_")
        others = tuple(other for other in self.health if other != name)
        self.health = others if change.kind == "camera_recovered" else (*others, name)

    def tell(self, event: Event, epoch: int, seq: int) -> None:
        """Send an event with the frame of this number, or with the first one after it that comes out."""
        self.told.append((epoch, seq, event))

    def take_events(self, frame: Frame) -> list[Event]:
        """The camera events that go out with this frame; output's thread."""
        events: list[Event] = []
        while self.told and self.told[0][:2] <= (frame.epoch, frame.seq):
            events.append(self.told.popleft()[2])
        return events

    def _on_drop(self, result: Result) -> None:
        self.counters.add("drop_output_full")
        self.on_lost(result)

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        now_ns = time.monotonic_ns()
        median, high = self.age_ms.percentiles()
        return {
            "state": self.state,
            "reason": redacted(self.state_reason),
            "health": list(self.health),
            "width": self.info.width if self.info else 0,
            "height": self.info.height if self.info else 0,
            "decoder": self.info.decoder if self.info else "",
            "fps_in": round(self.captured_rate.per_second(now_ns), 2),
            "fps_out": round(self.emitted_rate.per_second(now_ns), 2),
            "age_median_ms": round(median, 1),
            "age_p99_ms": round(high, 1),
            "counts": self.counters.snapshot(),
            "analytics": self.follower.counts(),
            "analytics_fault": self.follower.fault,
            "stages": self.stages.snapshot(),
        }
