"""Any source with its pictures prepared as the stream asks: masked, cut, turned, sized; and its health watched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edge.interfaces import PlaneSource, Skips, Source, SourceInfo
from edge.metrics.stages import DropCause
from edge.pictures.planes import Planes
from edge.sources.health import HealthLimits, HealthMonitor
from edge.sources.motion_gate import GateLimits, MotionGate
from edge.sources.picture import Pace, PicturePreparer, PictureSettings
from edge.types import HealthChange, UInt8


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to the pictures of one stream, and how its camera is watched.

    Attributes:
        ill: what was wrong with the picture when the source was closed last, each with its beginning, monotonic ns.
    """

    picture: PictureSettings = field(default_factory=PictureSettings)
    gate: GateLimits = field(default_factory=GateLimits)
    health: HealthLimits = field(default_factory=HealthLimits)
    ill: tuple[tuple[str, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON values, for a capture child."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Preparation:
        """The inverse of ``as_json``."""
        picture = PictureSettings.from_json(facts["picture"])
        ill = tuple((name, since_ns) for name, since_ns in facts["ill"])
        return cls(picture, GateLimits(**facts["gate"]), HealthLimits(**facts["health"]), ill)


class PreparedSource:
    """Reads another source; see ``edge.interfaces.CameraSource``."""

    def __init__(
        self, source: Source, preparation: Preparation, on_held_back: Callable[[], None] = lambda: None
    ) -> None:
        """Args: the source (closed here), what is done, who is told of each picture that is not let through."""
        self._source = source
        self._plane_source: PlaneSource = source if isinstance(source, PlaneSource) else _BgrSource(source)
        if preparation.picture.max_fps and isinstance(source, Skips):
            source.skip_over(preparation.picture.max_fps, self._note_skipped)
        self._preparer = PicturePreparer(preparation.picture)
        self._pace = Pace(preparation.picture.max_fps) if preparation.picture.max_fps else None
        self._gate = MotionGate(preparation.gate) if preparation.gate.enabled else None
        self._monitor = HealthMonitor(preparation.health, preparation.ill) if source.info.is_live else None
        self._on_held_back = on_held_back
        self._drops: Counter[DropCause] = Counter()
        self._changes: list[HealthChange] = []
        # a masked picture is never shared before its mask is painted
        self._is_untouched = replace(preparation.picture, max_fps=None) == PictureSettings()
        # a picture that is on its way already, and whose health is looked at before the next one is read
        self._waiting: tuple[Planes, int] | None = None
        self.captured_ns = 0
        self.info = _described(source.info, preparation.picture)

    def read(self) -> tuple[UInt8, int | None] | None:
        picture = self.read_planes()
        return None if picture is None else (picture[0].bgr, picture[1])

    def read_planes(self) -> tuple[Planes, int | None] | None:
        self._catch_up()
        while self._plane_source.grab():
            self.captured_ns = time.monotonic_ns()
            pts_ns = self._plane_source.pts_ns
            planes = self._prepare(self.captured_ns if pts_ns is None else pts_ns)
            if planes is not None:
                return planes, pts_ns
            self._catch_up()
            self._on_held_back()
        return None

    def take_drops(self) -> dict[DropCause, int]:
        taken, self._drops = dict(self._drops), Counter()
        return taken

    def take_changes(self) -> list[HealthChange]:
        taken, self._changes = self._changes, []
        return taken

    def close(self) -> None:
        self._source.close()

    def _note_skipped(self) -> None:
        """A picture that the rate leaves out was not even decoded; the camera lives all the same."""
        self._drops["drop_max_fps"] += 1
        self._on_held_back()

    def _catch_up(self) -> None:
        """Look at the health of the picture that waits for it; it delays nobody after it was given."""
        if self._waiting is not None and self._monitor is not None:
            planes, time_ns = self._waiting
            self._waiting = None
            self._changes += self._monitor.update(planes, time_ns)

    def _prepare(self, time_ns: int) -> Planes | None:
        if self._pace is not None and not self._pace.passes(time_ns):
            # nothing was made of it yet
            self._drops["drop_max_fps"] += 1
            return None
        planes = self._plane_source.retrieve()
        if self._monitor is not None:
            self._waiting = planes, time_ns
            if not self._is_untouched:
                # before the masks: what they cover must not count as darkness
                self._catch_up()
        planes = self._preparer.prepare(planes)
        if self._gate is not None and not self._gate.passes(planes, time_ns):
            self._drops["drop_no_motion"] += 1
            return None
        return planes


class _BgrSource:
    """A source that gives BGR, as one that gives planes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._image: UInt8 | None = None
        self.pts_ns: int | None = None

    def grab(self) -> bool:
        picture = self._source.read()
        self._image, self.pts_ns = (None, None) if picture is None else picture
        return picture is not None

    def retrieve(self) -> Planes:
        assert self._image is not None
        return Planes.of(self._image)


def _described(info: SourceInfo, settings: PictureSettings) -> SourceInfo:
    """What the prepared source is: its size and rate differ from the camera's."""
    width, height = info.width, info.height
    if settings.roi is not None:
        left, top, right, bottom = settings.roi
        width, height = (
            max(round(right * width) - int(left * width), 1),
            max(round(bottom * height) - int(top * height), 1),
        )
    if settings.rotate in (90, 270):
        width, height = height, width
    if settings.size is not None:
        width, height = settings.size
    else:
        scale = min(1.0, settings.limit[0] / width, settings.limit[1] / height)
        width, height = max(1, int(width * scale)), max(1, int(height * scale))
    fps = min(info.fps, settings.max_fps) if settings.max_fps and info.fps else info.fps
    return replace(info, width=width, height=height, fps=fps)
