"""What one stream remembers: its tracker, and what the tracks mean. Used by the inference thread alone."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.analytics import StreamAnalytics, WallClock, wall_clock
from edge.analytics.anchors import MASK_FOOT, anchors_of
from edge.analytics.checks import check_names
from edge.boxes import distinct
from edge.config.analytics import DUPLICATE_IOU, AnalyticsSettings
from edge.errors import ConfigError, DataError
from edge.files import load_object, set_aside, sync_folder, write_atomic
from edge.masks import Masks, feet_of
from edge.trackers.figures import Figures
from edge.types import Detections, Event, Float32, Frame, Prediction, Result, Tracks, UInt8

if TYPE_CHECKING:
    from edge.interfaces import Tracker
    from edge.metrics.stages import Stage, StageNs
    from edge.second_stage.classifier import Labels, StreamView
    from edge.trackers.appearance import CropEmbedder
    from edge.trackers.camera_motion import CameraMotion
    from edge.trackstore.rounding import Rounding
    from edge.trackstore.store import FrameLog
    from edge.types import Shape

log = logging.getLogger(__name__)
# a camera that never comes twice in the same size must fill neither the memory nor the log
MAX_REFUSED_SIZES = 64
# a heat map changes with every frame and is worth less than the life of a flash disk
HEAT_SAVE_EVERY_S = 60.0


class StreamAnalysis:
    """Gives objects their ids and says what happened.

    Attributes:
        shapes: lines and zones with their counts, for the overlay; replaced as a whole, so any thread may read it.
        shown_counts: what ``counts`` was after the last event; replaced as a whole like the shapes.
        fault: why nothing is counted in frames of the size that comes now; empty where all is well.
        clock: the time of day at a ``time_ns``, for the schedules; a replay sets its own before the first frame.
        captured_ns: of the frame that came last.
        log: keeps what is seen and decided; None where nothing is kept.
        rounding: makes the tracks what is stored of them, before lines and zones read them; None leaves them.
    """

    def __init__(
        self,
        stream: str,
        classes: Sequence[str],
        *,
        tracker: Tracker | None,
        settings: AnalyticsSettings,
        duplicate_iou: float = DUPLICATE_IOU,
        state_file: Path | None = None,
        camera: CameraMotion | None = None,
        embedder: CropEmbedder | None = None,
        second_stage: StreamView | None = None,
        model_anchors: Sequence[str] = (),
    ) -> None:
        """Prepare to follow.

        Args:
            stream, classes: its name, and the names of what its model finds.
            tracker: None follows nothing.
            settings: what is watched.
            duplicate_iou: overlap from which two boxes of any classes are one object, the surer one.
            state_file: where counts are kept over a restart.
            camera: measures the camera's motion by the pictures; None leaves it to the boxes.
            embedder: tells the tracker what objects look like.
            second_stage: what a classifier says of the tracks.
            model_anchors: points of an object that the model gives, see ``Manifest.anchors``.

        Raises:
            ConfigError: the settings name an unknown class, key point or time zone.
        """
        check_names(settings, stream=stream, classes=classes, model_anchors=model_anchors)
        self._stream = stream
        self._classes = classes
        self._tracker = tracker
        self._settings = settings
        self._duplicate_iou = duplicate_iou
        self._state_file = state_file
        self._camera = camera
        self._embedder = embedder
        self._second_stage = second_stage
        self._figures = Figures()
        self._model_anchors = model_anchors
        self._needs_feet = MASK_FOOT in anchors_of(settings)
        # the last that could work, with all counts; not in use while ``fault`` is set
        self._analytics: StreamAnalytics | None = None
        self._size = (0, 0)
        self._refused_sizes: set[tuple[int, int]] = set()
        # held while a frame changes the counts, or while they are copied; never while the disk is asked
        self._changing = threading.Lock()
        # held while they are written, so that no older counts replace newer ones
        self._saving = threading.Lock()
        self._saved: Mapping[str, Any] = {}
        self._saved_s = 0.0
        self._cannot_save = ""
        self.shapes: tuple[Shape, ...] = ()
        self.shown_counts: Mapping[str, Any] = {}
        self.fault = ""
        # the camera shows another view than that in which lines and zones were drawn; any thread may set it
        self.is_away = False
        self.clock: WallClock = wall_clock
        self.captured_ns = 0
        self.log: FrameLog | None = None
        self.rounding: Rounding | None = None

    @property
    def tracker(self) -> Tracker | None:
        """What follows the objects."""
        return self._tracker

    @property
    def has_analytics(self) -> bool:
        return bool(self._settings.lines or self._settings.zones or self._settings.heatmap)

    def change(self, settings: AnalyticsSettings) -> None:
        """Watch something else from the next frame on; counts go on by name, as after a restart. Any thread.

        Raises:
            ConfigError: the settings name an unknown class, key point or time zone: nothing was changed.
        """
        check_names(settings, stream=self._stream, classes=self._classes, model_anchors=self._model_anchors)
        with self._changing:
            self._settings = settings
            self._needs_feet = MASK_FOOT in anchors_of(settings)
            self._refused_sizes.clear()
            if self._size != (0, 0):
                self._begin(self._size)
            if not self.has_analytics:
                self.shapes, self.shown_counts, self.fault = (), {}, ""

    def update(self, frame: Frame, prediction: Prediction, spent_ns: StageNs) -> Result:
        """The result of one frame; frames come in order."""
        is_away = self.is_away
        if self._tracker is None or not isinstance(prediction, Detections):
            if self.log is not None:
                self.log.add(frame, prediction, None, is_away=is_away)
            return Result(frame, prediction, stage_ns=spent_ns)
        started_ns = time.monotonic_ns()
        self.captured_ns = frame.captured_ns
        if len(prediction) > 1:
            kept = distinct(prediction, self._duplicate_iou, per_class=False)
            if len(kept) < len(prediction):
                prediction = prediction[np.sort(kept)]
        tracks = self._track(frame, prediction)
        tracked_ns = time.monotonic_ns()
        spent: dict[Stage, int] = {**spent_ns, "track": tracked_ns - started_ns}
        labels: Labels = {}
        if self._second_stage is not None:
            labels = self._second_stage.label(frame, tracks)
            spent["second_stage"] = time.monotonic_ns() - tracked_ns
        seen_ns = time.monotonic_ns()
        # lines and zones read what is stored, so that what they would have said can be found out later
        stored, time_ns = tracks, frame.time_ns
        if self.rounding is not None:
            stored, time_ns = self.rounding.rounded(tracks, frame), self.rounding.time_ns(frame)
        with self._changing:
            analytics = self._analytics_for(frame) if self.has_analytics and not is_away else None
            events = () if analytics is None else labelled(analytics.update(stored, time_ns), labels)
        if self.log is not None:
            self.log.add(frame, prediction, stored, events, labels, is_away=is_away)
        if analytics is None:
            return Result(frame, prediction, tracks, stage_ns=spent, labels=labels, counts=self.shown_counts)
        if events:
            self._show(analytics)
        spent["analytics"] = time.monotonic_ns() - seen_ns
        return Result(frame, prediction, tracks, events, spent, labels, self.shown_counts)

    def _track(self, frame: Frame, detections: Detections) -> Tracks:
        motion = None
        if self._camera is not None:
            # no BGR is made for it where the decoder gives luma
            motion = self._camera.update(frame.image if frame.planes.is_bgr else frame.luma, detections.xyxy)
        look = None if self._embedder is None else self._embedder.embedder_for(frame, detections.xyxy)
        assert self._tracker is not None
        tracks = self._tracker.update(detections, frame.time_ns, motion, look)
        tracks = self._figures.update(tracks, detections, frame.time_ns)
        if self._needs_feet and detections.masks is not None:
            tracks = replace(tracks, feet=_feet(tracks, detections.masks))
        return tracks

    def _show(self, analytics: StreamAnalytics) -> None:
        self.shapes, self.shown_counts = analytics.shapes(), analytics.counts()

    def counts(self) -> Mapping[str, Any]:
        """Counts of lines and zones as JSON values."""
        return self._analytics.counts() if self._analytics else {}

    def known_counts(self) -> Mapping[str, Any] | None:
        """The same; None where lines or zones are watched and no frame has begun that yet."""
        return None if self._analytics is None and self.has_analytics else self.counts()

    def heat(self) -> UInt8 | None:
        """Where objects spent their time, see ``Heatmap.draw``; None without heat map or frame. Any thread may ask."""
        # not held up by a drawing: half of a frame's time missing in a cell is nothing to see
        analytics = self._analytics
        return None if analytics is None else analytics.heat()

    def save(self, *, only_changed: bool = False) -> None:
        """Keep the counts over a restart, where a file for them is set; any thread may ask.

        Args:
            only_changed: leave the file alone while it holds these counts already, and the heat map is fresh enough.
                What cannot be written is a warning, once until it can be written again.
        """
        if self._state_file is None:
            return
        with self._saving:
            with self._changing:
                analytics = self._analytics
                if analytics is None or (only_changed and not self._is_worth_saving(analytics)):
                    return
                counts, state = analytics.counts(), analytics.state()
            self._write(self._state_file, state)
            self._saved, self._saved_s = counts, time.monotonic()

    def _is_worth_saving(self, analytics: StreamAnalytics) -> bool:
        is_heat_old = self._settings.heatmap is not None and time.monotonic() - self._saved_s >= HEAT_SAVE_EVERY_S
        return bool(self._cannot_save) or is_heat_old or analytics.counts() != self._saved

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(state))
            sync_folder(path.parent)
        except OSError as error:
            # a full disk costs the counts since the last save, and no camera
            reason = error.strerror or str(error)
            if reason != self._cannot_save:
                log.warning("%s: %s: the counts cannot be kept (%s)", self._stream, path, reason)
            self._cannot_save = reason
            return
        if self._cannot_save:
            log.info("%s: the counts are kept again", self._stream)
        self._cannot_save = ""

    def _analytics_for(self, frame: Frame) -> StreamAnalytics | None:
        """The analytics for frames of this size, None where none can work; counts outlive every change of size."""
        size = (frame.width, frame.height)
        if size != self._size:
            self._size = size
            self._begin(size)
        return None if self.fault else self._analytics

    def _begin(self, size: tuple[int, int]) -> None:
        """Watch frames of another size. What cannot work there is said once, and the stream goes on without it."""
        try:
            if self._analytics is None:
                self._analytics = self._restored(size)
            else:
                self._analytics = self._made(size, self._analytics.state())
        except (ConfigError, DataError) as error:
            self.shapes, self.fault = (), str(error)
            self._tell_fault(size)
        except OSError:
            # no file or memory was to be had for the stored counts: the next frame asks again
            self._size = (0, 0)
        else:
            self._show(self._analytics)
            self.fault = ""

    def _restored(self, size: tuple[int, int]) -> StreamAnalytics:
        """The analytics with the stored counts; a file that holds none is set aside, and they begin at zero."""
        path = self._state_file
        state = load_object(path) if path is not None else {}
        try:
            restored = self._made(size, state or None)
        except DataError as error:
            assert path is not None
            set_aside(path, str(error))
            return self._made(size, None)
        self._saved = restored.counts() if state else {}
        return restored

    def _made(self, size: tuple[int, int], state: Mapping[str, Any] | None) -> StreamAnalytics:
        return StreamAnalytics(
            self._settings,
            stream=self._stream,
            classes=self._classes,
            width=size[0],
            height=size[1],
            model_anchors=self._model_anchors,
            state=state,
            clock=self.clock,
        )

    def _tell_fault(self, size: tuple[int, int]) -> None:
        if size in self._refused_sizes or len(self._refused_sizes) == MAX_REFUSED_SIZES:
            return
        self._refused_sizes.add(size)
        words = "%s: nothing is counted in frames of %dx%d, the counts so far are kept: %s; then restart"
        log.error(words, self._stream, *size, self.fault)


def _feet(tracks: Tracks, masks: Masks) -> Float32:
    """(N, 2) where the masks of the tracks stand; of those not seen now, the middle of the box's lower edge."""
    feet = np.stack([(tracks.xyxy[:, 0] + tracks.xyxy[:, 2]) / 2, tracks.xyxy[:, 3]], axis=1)
    seen = np.flatnonzero(tracks.detection >= 0)
    feet[seen] = feet_of(masks, tracks.detection[seen])
    return feet


def labelled(events: Sequence[Event], labels: Labels) -> tuple[Event, ...]:
    """The events, those about a track that the second stage knows with ``labels``: name → probability."""
    return tuple(
        replace(event, data={**event.data, "labels": {label.name: round(label.score, 3) for label in found}})
        if event.track_id is not None and (found := labels.get(event.track_id))
        else event
        for event in events
    )
