"""Raw captures: what the cameras gave, to be run again later, frame by frame, with byte-identical results.

A capture is a folder: ``recording.json`` with the configuration (no secrets in it) and the hashes of the models, and
a folder per stream (``edge.sources.replay``). A replay is one thread, one frame at a time, in the order in which the
frames came; its JSONL depends on the capture, the model and nothing else. ``age_ms`` is 0 there.
"""

from __future__ import annotations

import heapq
import importlib.metadata
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.addresses.secrets import redacted
from edge.addresses.uris import is_live
from edge.analytics.schedule import utc
from edge.config.load import parse_config
from edge.errors import ConfigError, DataError, SourceError
from edge.files import parse_json, sha256_of, write_atomic
from edge.metrics.clock import WallClock
from edge.model import Model, load_model
from edge.pipeline.build import analysis_of, deadlines_of, preparation_of
from edge.pipeline.guarded import GuardedStage, close_all, open_stages
from edge.pipeline.stream import Stream
from edge.result_json import ResultEncoder
from edge.second_stage.models import CropModels
from edge.sources.choose import open_source
from edge.sources.direct import Decoding
from edge.sources.replay import RawWriter, RecordedPicture, ReplaySource
from edge.threads.worker import Worker
from edge.trackstore.rounding import Rounding
from edge.types import Event, Frame

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.types import Result

# of parts of installed packages: here the same answer matters more than a quick one
PART_LIMIT_S = 60.0
SCHEMA = 1
FACTS = "recording.json"


@dataclass(frozen=True, slots=True)
class Capture:
    """What ``recording.json`` says.

    Attributes:
        config: as it ran, secrets masked.
        models: name → SHA-256 of the model file, empty where there was none.
        wall_offset_ns: wall clock minus monotonic clock.
    """

    config: Config
    models: dict[str, str]
    wall_offset_ns: int


def capture(config: Config, folder: Path, seconds: float, stopping: threading.Event | None = None) -> dict[str, int]:
    """Record what the streams of a configuration give, prepared as they are for the model.

    Args:
        config: which streams, and how their pictures are masked, cut and sized.
        folder: new or empty.
        seconds: for how long; files end by themselves.
        stopping: ends the capture early.

    Returns:
        Stream → pictures recorded.

    Raises:
        DataError: the folder holds something already.
        EdgeError: a source could not be opened or broke.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; expected a new folder for the capture")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / FACTS, json.dumps(_facts(config), indent=2))
    counts: dict[str, int] = {}
    until = time.monotonic() + seconds
    ending = stopping or threading.Event()

    def recorder(stream: StreamSettings) -> Worker:
        return Worker(
            f"record {stream.name}", lambda own: _record(stream, config, folder, until, (own, ending), counts)
        )

    workers = [recorder(stream) for stream in config.streams]
    for worker in workers:
        worker.start()
    for worker in workers:
        while not worker.join(0.2):
            pass
    for worker in workers:
        if worker.failure is not None:
            raise worker.failure
    return counts


def replay(folder: Path, write: Callable[[bytes], object], model: Path | None = None) -> int:
    """Run a capture through its models.

    Args:
        folder: of the capture.
        write: takes each JSONL line, with its line feed.
        model: another model instead of the recorded ones.

    Returns:
        The number of frames.

    Raises:
        DataError: there is no capture, or the model file is not the one that it was made with.
    """
    captured = load_capture(folder)
    config = captured.config
    if model is not None:
        config = config.with_model_for_frames(model)
    else:
        _refuse_other_models(captured)
    with Rerun(config, config.streams) as rerun:
        return _replay(folder, rerun, captured.wall_offset_ns, write)


class Rerun:
    """Frames of streams through their models and all that follows, one at a time, in the caller's thread.

    Attributes:
        streams: by name.
    """

    def __init__(
        self, config: Config, streams: Sequence[StreamSettings], on_model: Callable[[str, Model], None] | None = None
    ) -> None:
        """Load what these streams need.

        Args:
            config: names the models.
            streams: some of its streams.
            on_model: told of each model that is loaded, with its name, before anything is made for its classes.

        Raises:
            EdgeError: a model cannot be loaded, or a setting does not fit it.
        """
        self._models: dict[str, Model] = {}
        self._stages: dict[str, list[GuardedStage]] = {}
        self._crops = CropModels(config, is_waiting=True)
        self.streams: dict[str, Stream] = {}
        self._wall_ns = 0
        with ExitStack() as undo:
            undo.callback(self.close)
            for settings in streams:
                self._add(config, settings, on_model or (lambda _, __: None))
            undo.pop_all()

    def result(self, frame: Frame, wall_ns: int, events: Sequence[Event] = ()) -> Result:
        """What is known of a frame; schedules see this time of day, whatever time it is now."""
        self._wall_ns = wall_ns
        stream = self.streams[frame.stream]
        predictions, _ = self._models[stream.model].submit([frame.planes], [stream.tiles]).wait()
        result = stream.analysis.update(frame, predictions[0], {}).with_events(events)
        for stage in self._stages[frame.stream]:
            result = stage.add_to(result)
        return result

    def close(self) -> None:
        """Free the models and end the parts of installed packages."""
        for stages in self._stages.values():
            close_all(stages)
        self._crops.stop(time.monotonic())
        for model in self._models.values():
            model.close()

    def __enter__(self) -> Rerun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, config: Config, settings: StreamSettings, on_model: Callable[[str, Model], None]) -> None:
        chosen = config.model_of(settings)
        if chosen.name not in self._models:
            self._models[chosen.name] = load_model(chosen.model_copy(update={"max_batch": 1}))
            on_model(chosen.name, self._models[chosen.name])
        manifest = self._models[chosen.name].manifest
        analysis = analysis_of(settings, chosen, manifest, self._crops, limit_s=PART_LIMIT_S)
        if config.track_store is not None:
            # as it was when the capture ran
            analysis.rounding = Rounding()
        analysis.clock = lambda _: utc(self._wall_ns)
        self._stages[settings.name] = open_stages(
            settings.stages, stream=settings.name, classes=manifest.classes, limit_s=PART_LIMIT_S
        )
        self.streams[settings.name] = Stream(settings, chosen.name, manifest, analysis)


def load_capture(folder: Path) -> Capture:
    """Read ``recording.json``.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / FACTS
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
        if facts["schema"] != SCHEMA:
            raise DataError(f"{path}: schema {facts['schema']}, expected {SCHEMA}; made by edge {facts['version']}")
        return Capture(parse_config(facts["config"], where=str(path)), facts["models"], facts["wall_offset_ns"])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a folder made by: edge capture") from None
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{path}: not a capture: {error}") from None


def _facts(config: Config) -> dict[str, Any]:
    streams = tuple(stream.model_copy(update={"sinks": ()}) for stream in config.streams)
    dumped = config.model_copy(update={"streams": streams}).model_dump(mode="json", exclude_none=True)
    return {
        "schema": SCHEMA,
        "version": importlib.metadata.version("edgeloop"),
        "config": _without_secrets(dumped),
        "models": {model.name: sha256_of(model.path) if model.path.is_file() else "" for model in config.models},
        "wall_offset_ns": WallClock().offset_ns,
    }


def _without_secrets(value: Any) -> Any:
    """The same JSON with every secret masked."""
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return redacted(value) if isinstance(value, str) else value


def _record(
    stream: StreamSettings,
    config: Config,
    folder: Path,
    until: float,
    endings: tuple[threading.Event, threading.Event],
    counts: dict[str, int],
) -> None:
    """Record one stream until the time is over; a camera that breaks is opened again, a file is not."""
    writer = RawWriter(folder / stream.name)
    epoch = 0

    def is_over() -> bool:
        return time.monotonic() >= until or any(ending.is_set() for ending in endings)

    try:
        while not is_over():
            try:
                _record_epoch(stream, config, writer, epoch, is_over)
                return
            except SourceError:
                if not is_live(stream.source):
                    raise
                endings[0].wait(stream.retry_base_s)
            epoch += 1
    finally:
        counts[stream.name] = writer.num_pictures
        writer.close()


def _record_epoch(
    stream: StreamSettings, config: Config, writer: RawWriter, epoch: int, is_over: Callable[[], bool]
) -> None:
    source = open_source(
        stream.source,
        decoding=Decoding(stream.decoder, stream.transport, stream.hardware, stream.hardware_device),
        preparation=preparation_of(stream, config),
        is_stopping=is_over,
        deadlines=deadlines_of(stream, config),
        is_isolated=None if stream.isolation == "auto" else stream.isolation == "process",
    )
    try:
        seq = 0
        while not is_over() and (picture := source.read_planes()) is not None:
            events = [(change.kind, dict(change.data)) for change in source.take_changes()]
            writer.write(picture[0], epoch, seq, source.captured_ns, picture[1], events)
            seq += 1
    finally:
        source.close()


def _refuse_other_models(captured: Capture) -> None:
    for model in captured.config.models:
        recorded = captured.models.get(model.name, "")
        if not recorded:
            continue
        if not model.path.is_file() or sha256_of(model.path) != recorded:
            raise DataError(
                f"{model.path}: not the model file of this capture (sha256 {recorded[:12]}…); "
                "to run another one on purpose: edge replay --model"
            )


def _replay(folder: Path, rerun: Rerun, wall_offset_ns: int, write: Callable[[bytes], object]) -> int:
    now_ns = 0
    clock = WallClock(offset_ns=wall_offset_ns, now_ns=lambda: now_ns)
    encoders = {
        name: ResultEncoder(stream.manifest.classes, score=stream.score, clock=clock)
        for name, stream in rerun.streams.items()
    }
    count = 0
    for frame, line in _merged(folder, list(rerun.streams)):
        now_ns = frame.captured_ns
        told = [Event(kind, frame.stream, frame.captured_ns, data=data) for kind, data in line.events]
        result = rerun.result(frame, now_ns + wall_offset_ns, told)
        write(encoders[frame.stream].encode(result) + b"\n")
        count += 1
    return count


def _merged(folder: Path, names: Sequence[str]) -> Iterator[tuple[Frame, RecordedPicture]]:
    """The frames of all streams in the order in which they came."""
    streams = [recorded_frames(folder / name, name) for name in names]
    return heapq.merge(*streams, key=lambda item: (item[0].captured_ns, item[0].stream))


def recorded_frames(folder: Path, stream: str) -> Iterator[tuple[Frame, RecordedPicture]]:
    """The frames of one stream of a capture, under this name. Raises: SourceError: it is missing or damaged."""
    source = ReplaySource(folder)
    try:
        while source.grab():
            line, planes = source.last, source.retrieve()
            planes.freeze()
            yield Frame(stream, line.epoch, line.seq, line.captured_ns, line.pts_ns, planes), line
    finally:
        source.close()
