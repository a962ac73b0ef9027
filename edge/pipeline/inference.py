"""The inference worker: takes frames of all streams, runs the models in batches, tracks, and passes results on.

One thread owns the engines, the batch buffers and the trackers. What remembers sits here, before frames may be dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from edge.errors import EdgeError, EngineError
from edge.metrics.stages import StageNs
from edge.models.checks import check_outputs
from edge.pipeline.apart import Answer, Flight, apart_of
from edge.trackers import association
from edge.types import Detections, Frame, Prediction, Result
from edge.watchlog.seconds import Analysed

if TYPE_CHECKING:
    from edge.model import Batch, Model, OutputCheck
    from edge.pipeline.latest_frames import LatestFrames
    from edge.pipeline.stream import Stream

log = logging.getLogger(__name__)
IDLE_S = 0.2
POLL_S = 0.02
# what a broken graph or a wrong manifest makes the libraries raise
FAULTS = (EdgeError, ValueError, LookupError, ArithmeticError, RuntimeError, TypeError, OSError)
# frames, predictions, nanoseconds of the engine per frame
Tap: TypeAlias = Callable[[Sequence[Frame], Sequence[Prediction], int], None]


@dataclass(frozen=True, slots=True)
class Probation:
    """A new model may still be sent back.

    Attributes:
        before: the old model, ready to run.
        judge: looks at every batch in the inference thread; raises EngineError to send the new model back.
        on_failure: told why it was.
    """

    before: Model
    judge: Callable[[list[Prediction], StageNs], None]
    on_failure: Callable[[Exception], None]


@dataclass(slots=True, eq=False)
class _Change:
    """A model that waits to take over."""

    name: str
    model: Model
    probation: Probation | None
    is_done: threading.Event = field(default_factory=threading.Event)


class InferenceWorker:
    """Runs in its own thread until stopped, or until every stream has ended.

    Attributes:
        is_draining: set by others when the pipeline ends: frames do not wait for servers that are away any more.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        streams: Callable[[], Mapping[str, Stream]],
        latest: LatestFrames[Frame],
        linger_s: Mapping[str, float],
        fallbacks: Mapping[str, str] = MappingProxyType({}),
        *,
        goes_on: bool = False,
    ) -> None:
        """Prepare.

        Args:
            models: by name.
            streams: gives those of now.
            latest: where frames come from.
            linger_s: model → how long to wait for a batch.
            fallbacks: model on a server → the model that takes its place while the server is away.
            goes_on: when an engine has failed, frames still go to the recordings, until somebody else has loaded it.
        """
        self._goes_on = goes_on
        self.failure: EdgeError | None = None
        self._models = dict(models)
        self._streams = streams
        self._latest = latest
        self._linger_s = linger_s
        self._max_batch = {name: model.engine.max_batch for name, model in models.items()}
        self._changing = threading.Lock()
        self._changes: list[_Change] = []
        self._probations: dict[str, Probation] = {}
        self._has_ended = False
        self._taps: Mapping[str, Tap] = {}
        self._flight: Flight | None = None
        self._no_linger_s = dict.fromkeys(linger_s, 0.0)
        self._apart = apart_of(models, latest.wake)
        self._fallbacks = fallbacks
        self.is_draining = False
        self.num_batches = 0

    def run(self, stopping: threading.Event) -> None:
        """Work until asked to stop.

        Raises:
            EngineError: an engine failed; its streams cannot go on.
        """
        # the cameras are being opened meanwhile
        association.solver()
        try:
            self._infer(stopping)
        except EngineError as error:
            if not self._goes_on:
                raise
            log.error("inference: %s", error)
            self.failure = error
            self._record(stopping)
        finally:
            self._has_ended = True
            for stream in self._streams().values():
                stream.results.close()

    def _infer(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self._take_over()
            frames = self._take_again() or self._take()
            # one view of the streams for the whole round: some may be removed meanwhile
            streams = self._streams()
            fresh = self._analysed([frame for frame in frames if _is_fresh(frame, streams)], streams)
            begun = self._begun(fresh, streams) if fresh else None
            self._land()
            self._flight = begun
            self._land_apart()
            self._drop_stranded(streams)
            self._close_ended(streams)
            # where there is no stream, one may still be added
            if not frames and streams and all(_is_over(stream) for stream in streams.values()):
                return
        self._land()
        self._land_apart(is_last=True)
        self.is_draining = True
        self._drop_stranded(self._streams())

    def _record(self, stopping: threading.Event) -> None:
        """Pass frames on without predictions, for the recordings alone."""
        self._flight = None
        for stream in self._streams().values():
            stream.metrics.counters.add("drop_no_engine", stream.num_in_engine)
            stream.num_in_engine = 0
        while not stopping.is_set():
            streams = self._streams()
            for frame in self._latest.take(self._max_batch, self._no_linger_s, IDLE_S):
                if (blind := streams.get(frame.stream)) is not None:
                    blind.metrics.counters.add("drop_no_engine")
                    _pass_unseen(blind, frame)
            for name in self._latest.ended() & streams.keys():
                streams[name].results.close()
            if streams and all(_is_over(stream) for stream in streams.values()):
                return

    def replace(self, name: str, model: Model, probation: Probation | None, timeout_s: float) -> bool:
        """Let another model take over between two batches; from any other thread.

        Args:
            name: of the model in the configuration.
            model: ready to run; the one before it is not closed here.
            probation: what brings the old one back, None for good.
            timeout_s: how long to wait for the end of the batch that runs.

        Returns:
            Whether it took over; False when inference has ended or hangs, and then nothing has changed.
        """
        change = _Change(name, model, probation)
        deadline = time.monotonic() + timeout_s
        with self._changing:
            self._changes.append(change)
        while not change.is_done.wait(POLL_S):
            with self._changing:
                if change in self._changes and (self._has_ended or time.monotonic() > deadline):
                    self._changes.remove(change)
                    return False
        return True

    def watch(self, name: str, tap: Tap | None) -> None:
        """Show every batch of a model to this function, in the inference thread; None ends it."""
        self._taps = {
            **{key: value for key, value in self._taps.items() if key != name},
            **({name: tap} if tap else {}),
        }

    def _take_over(self) -> None:
        """Make the changes that wait; between two batches."""
        with self._changing:
            changes, self._changes = self._changes, []
        if changes:
            self._land()
        for change in changes:
            self._models[change.name] = change.model
            self._max_batch[change.name] = change.model.engine.max_batch
            self._probations.pop(change.name, None)
            if change.probation is not None:
                self._probations[change.name] = change.probation
            change.is_done.set()

    def _take(self) -> list[Frame]:
        """The next frames; while a batch is under way only those that are there already."""
        sizes = self._max_batch
        if self._apart:
            sizes = {name: size for name, size in sizes.items() if self._can_begin(name)}
        if self._flight is not None:
            return self._latest.take(sizes, self._no_linger_s, 0.0)
        return self._latest.take(sizes, self._linger_s, IDLE_S, self._has_answer)

    def _analysed(self, frames: list[Frame], streams: Mapping[str, Stream]) -> list[Frame]:
        """The frames for a model; those of streams whose analysis is switched off go straight on."""
        off = {name for name in {frame.stream for frame in frames} if not streams[name].is_analysed}
        if not off:
            return frames
        if self._flight is not None and any(frame.stream in off for frame in self._flight.frames):
            # it holds earlier frames
            self._land()
        for frame in frames:
            stream = streams[frame.stream]
            if frame.stream in off:
                stream.metrics.counters.add("drop_switched_off")
                # a server still has earlier ones: until it has answered nothing of the stream comes out
                if not stream.num_in_engine:
                    _pass_unseen(stream, frame)
        return [frame for frame in frames if frame.stream not in off]

    def _take_again(self) -> list[Frame]:
        """Frames of a server that failed them, for who works in its place or for itself."""
        for name, apart in self._apart.items():
            if self._serving(name) is not None and (frames := apart.take_again()):
                return frames
        return []

    def _serving(self, name: str) -> Model | None:
        """Who answers for a model now; None: nobody, its server is away."""
        apart = self._apart.get(name)
        if apart is None or not apart.is_away:
            return self._models[name]
        return self._models[self._fallbacks[name]] if name in self._fallbacks else None

    def _can_begin(self, name: str) -> bool:
        apart = self._apart.get(name)
        return apart is None or (apart.has_room and self._serving(name) is not None)

    def _has_answer(self) -> bool:
        return any(apart.has_answer for apart in self._apart.values())

    def _begun(self, frames: list[Frame], streams: Mapping[str, Stream]) -> Flight | None:
        """As ``_begin``; frames that the engine did not take are counted."""
        try:
            return self._begin(frames, streams)
        except EngineError:
            for frame in frames:
                streams[frame.stream].metrics.counters.add("drop_no_engine")
            raise

    def _begin(self, frames: list[Frame], streams: Mapping[str, Stream]) -> Flight | None:
        """Send frames off; those of a model on probation are seen through at once, and None is given."""
        name = streams[frames[0].stream].model
        if name in self._probations:
            # the batch under way holds earlier frames
            self._land()
            self._pass_on(name, frames, streams, *self._try_on_probation(name, frames, streams))
            return None
        apart = self._apart.get(name)
        serving = None if apart is not None and apart.is_busy else self._serving(name)
        model = serving or self._models[name]
        flight = Flight(name, frames, streams, _submit(model, frames, streams))
        for frame in frames:
            streams[frame.stream].num_in_engine += 1
        if model.remote is None:
            return flight
        self._apart[name].begin(flight)
        return None

    def _land(self) -> None:
        """Wait for the batch under way, if there is one, and pass its results on."""
        flight, self._flight = self._flight, None
        if flight is not None:
            self._give(flight, self._wait(flight))

    def _land_apart(self, *, is_last: bool = False) -> None:
        """Pass on what servers have answered."""
        for apart in self._apart.values():
            apart.land(self._wait, self._give, is_last=is_last)

    def _drop_stranded(self, streams: Mapping[str, Stream]) -> None:
        """Where a server is away, give up the frames of streams that end."""
        for name, apart in self._apart.items():
            own = [stream for stream in streams.values() if stream.model == name]
            leaving = {stream.name for stream in own if self.is_draining or stream.is_leaving}
            if leaving and self._serving(name) is None:
                for frame in (*apart.drop(leaving), *self._latest.discard(leaving)):
                    streams[frame.stream].metrics.counters.add("drop_stopped")

    def _wait(self, flight: Flight) -> Answer:
        """Raises: EngineError: it failed."""
        try:
            return flight.batch.wait()
        finally:
            for frame in flight.frames:
                flight.streams[frame.stream].num_in_engine -= 1

    def _give(self, flight: Flight, answer: Answer) -> None:
        self._pass_on(flight.name, flight.frames, flight.streams, *answer)

    def _pass_on(
        self,
        name: str,
        frames: list[Frame],
        streams: Mapping[str, Stream],
        predictions: Sequence[Prediction],
        spent: StageNs,
    ) -> None:
        self.num_batches += 1
        model = self._models[name].manifest.sha256
        for frame, prediction in zip(frames, predictions, strict=True):
            stream = streams[frame.stream]
            stream.metrics.counters.add("inferred")
            result = stream.analysis.update(frame, prediction, spent)
            if stream.analysed is not None:
                stream.analysed.append(Analysed(frame.captured_ns, model, result.events))
            stream.results.put(result)
        tap = self._taps.get(name)
        if tap is not None:
            tap(frames, predictions, spent["infer"])

    def _try_on_probation(self, name: str, frames: list[Frame], streams: Mapping[str, Stream]) -> Answer:
        """Run a model that took over a moment ago; if it fails, the old one is back and sees the same frames."""
        probation = self._probations[name]
        try:
            predictions, spent = _submit(self._models[name], frames, streams, check_outputs).wait()
            if len(predictions) != len(frames):
                raise EngineError(f"{len(predictions)} predictions for {len(frames)} frames")
            probation.judge(predictions, spent)
        except FAULTS as error:
            log.error("%s: the new model failed, the old one is back: %s", name, error)
            self._models[name] = probation.before
            self._max_batch[name] = probation.before.engine.max_batch
            del self._probations[name]
            probation.on_failure(error)
            return _submit(probation.before, frames, streams).wait()
        return predictions, spent

    def _close_ended(self, streams: Mapping[str, Stream]) -> None:
        under_way = {frame.stream for frame in self._flight.frames} if self._flight is not None else set()
        under_way.update(*(apart.streams() for apart in self._apart.values()))
        for name in (self._latest.ended() & streams.keys()) - under_way:
            streams[name].results.close()


def _submit(
    model: Model, frames: Sequence[Frame], streams: Mapping[str, Stream], check: OutputCheck | None = None
) -> Batch:
    """Send frames off, in tiles where their stream asks for them."""
    # a model on probation must fail aloud
    owners = [frame.stream for frame in frames] if model.is_foreign and check is None else None
    tiles = [streams[frame.stream].tiles for frame in frames]
    return model.submit([frame.planes for frame in frames], tiles, check, owners)


def _pass_unseen(stream: Stream, frame: Frame) -> None:
    stream.results.put(Result(frame, Detections.empty(), is_analysed=False))


def _is_over(stream: Stream) -> bool:
    return stream.results.is_closed and not stream.is_leaving


def _is_fresh(frame: Frame, streams: Mapping[str, Stream]) -> bool:
    """Whether a frame may still come out; one whose stream was removed on its way may not."""
    stream = streams.get(frame.stream)
    if stream is not None and stream.is_too_old(frame, time.monotonic_ns()):
        stream.metrics.counters.add("drop_too_old")
        return False
    if stream is not None and stream.is_held_back(frame):
        stream.metrics.counters.add("drop_governor")
        return False
    return stream is not None
