"""Running a clip test: its pictures through the stream's settings and models, as the daemon would see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cliptests.case import CAPTURE, Case, ExpectedEvent, SeenObject, what_of
from edge.cliptests.compare import Difference, Seen, differences
from edge.errors import ConfigError, DataError, EdgeError
from edge.sources.choose import open_source
from edge.sources.direct import Decoding
from edge.types import Frame

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.model import Model
    from edge.pipeline.replay import Rerun
    from edge.pipeline.stream import Stream
    from edge.types import Result

NS_PER_S = 1_000_000_000
# so often the objects are compared
LOOK_EVERY_S = 0.5
# masks, region, turn and size are in such pictures already
UNPREPARED: Mapping[str, Any] = {"masks": (), "roi": None, "rotate": 0, "size": None}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one test. ``seen`` is None where it could not be run, and ``differences`` then says why."""

    name: str
    seconds: float
    differences: tuple[Difference, ...]
    seen: Seen | None = None


def stream_of(config: Config, case: Case) -> StreamSettings:
    """The settings that apply to a test: nothing live, every frame, no clock.

    Raises:
        ConfigError: the configuration has no such stream.
    """
    found = next((stream for stream in config.streams if stream.name == case.stream), None)
    if found is None:
        raise ConfigError(f"there is no stream {case.stream!r} any more; remove its tests if it is gone for good")
    return found.model_copy(update=dict(UNPREPARED)) if case.is_prepared else found


def look(folder: Path, case: Case, config: Config, mapped: Mapping[str, Any] | None = None) -> Seen:
    """Run a test's pictures and note what is seen.

    Args:
        folder: of the test.
        case: what it says.
        config: what runs; nothing of it is opened but models.
        mapped: model → what ``as_before`` needs, where class names differ from those of the model before.

    Raises:
        EdgeError: the pictures cannot be read, or the configuration does not fit them.
    """
    from edge.pipeline.replay import Rerun

    stream = stream_of(config, case)

    def on_model(name: str, model: Model) -> None:
        if mapped and name in mapped:
            as_before(model, mapped[name])

    with Rerun(config, [stream], on_model) as rerun:
        return _look(frames_of(folder, case, stream, config), rerun, case)


def as_before(model: Model, facts: Mapping[str, Any]) -> None:
    """Let a model speak of ``facts["classes"]``, where ``facts["renamed"]`` says which of its own each one is."""
    from edge.pipeline.swap.class_mapping import MappedHead, mapping_table

    table = mapping_table(facts["classes"], model.manifest.classes, facts["renamed"])
    if table is not None:
        model.head = MappedHead(model.head, table, len(facts["classes"]))
        model.manifest = model.manifest.model_copy(update={"classes": tuple(facts["classes"])})


def frames_of(folder: Path, case: Case, stream: StreamSettings, config: Config) -> Iterator[Frame]:
    """The pictures of a test, as they reach the model.

    Raises:
        SourceError: they cannot be read.
    """
    from edge.pipeline.build import deadlines_of, preparation_of
    from edge.pipeline.replay import recorded_frames

    if case.pictures == CAPTURE:
        for frame, _ in recorded_frames(folder / CAPTURE, stream.name):
            yield frame
        return
    with closing(
        open_source(
            str(folder / case.pictures),
            decoding=Decoding(stream.decoder, stream.transport, stream.hardware, stream.hardware_device),
            preparation=preparation_of(stream, config),
            deadlines=deadlines_of(stream, config),
            is_isolated=False,
        )
    ) as source:
        seq = 0
        while (picture := source.read_planes()) is not None:
            picture[0].freeze()
            yield Frame(stream.name, 0, seq, source.captured_ns, picture[1], picture[0])
            seq += 1


def _look(frames: Iterator[Frame], rerun: Rerun, case: Case) -> Seen:
    stream = rerun.streams[case.stream]
    count, first_ns, due_s = 0, 0, 0.0
    events, objects, times_s = list[ExpectedEvent](), list[SeenObject](), list[float]()
    for frame in frames:
        first_ns = first_ns if count else frame.time_ns
        time_s = (frame.time_ns - first_ns) / NS_PER_S
        result = rerun.result(frame, case.wall_ns + frame.time_ns - first_ns)
        count += 1
        for event in result.events:
            events.append(ExpectedEvent(kind=event.kind, time_s=round(time_s, 3), what=what_of(dict(event.data))))
        if time_s >= due_s:
            due_s = time_s + LOOK_EVERY_S - 0.001
            times_s.append(round(time_s, 3))
            objects += _objects(result, stream, round(time_s, 3))
    return Seen(count, tuple(events), tuple(objects), tuple(times_s))


def _objects(result: Result, stream: Stream, time_s: float) -> Iterator[SeenObject]:
    """What a viewer would see: the tracks that are seen now, else the detections from the stream's score on."""
    found = result.detections
    boxes, numbers = found.xyxy, found.class_id
    if result.tracks is not None:
        shown = result.tracks.detection >= 0
        boxes, numbers = result.tracks.xyxy[shown], result.tracks.class_id[shown]
    else:
        shown = found.score >= stream.score
        boxes, numbers = boxes[shown], numbers[shown]
    classes = stream.manifest.classes
    for box, number in zip(boxes.tolist(), numbers.tolist(), strict=True):
        name = classes[number] if number < len(classes) else f"class {number}"
        left, top, right, bottom = (round(value, 1) for value in box)
        yield time_s, name, left, top, right, bottom


def judge(folder: Path, config: Config, mapped: Mapping[str, Any] | None = None) -> Verdict:
    """Run one test; what cannot be run is not passed."""
    import time

    started_s = time.monotonic()
    try:
        case = Case.read(folder)
        seen = look(folder, case, config, mapped)
    except EdgeError as error:
        return Verdict(folder.name, time.monotonic() - started_s, (Difference(f"cannot be run: {error}"),))
    return Verdict(folder.name, time.monotonic() - started_s, tuple(differences(case, seen)), seen)


def expecting(case: Case, seen: Seen, made_by: Mapping[str, str]) -> Case:
    """The test that expects what was seen; what somebody set of its tolerances stays."""
    from edge.cliptests.case import counts_of

    now: dict[str, Any] = {"frames": seen.frames, "events": seen.events, "objects": seen.objects}
    return case.model_copy(update={**now, "counts": counts_of(seen.events), "made_by": dict(made_by)})


def refuse_empty(names: Sequence[Path], folder: Path) -> None:
    """Raises: DataError: there is no test."""
    if not names:
        raise DataError(f"{folder}: holds no test; run: edge test add CLIP")
