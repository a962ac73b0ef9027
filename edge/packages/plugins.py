"""Parts that installed packages bring: found by group and name among Python's entry points, loaded when they are used.

Whatever is wrong with one is a sentence: which part of which package, what was expected, what to do.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias

import numpy as np

from edge.errors import ConfigError, EdgeError, PartError
from edge.interfaces import Engine, Head, Sink, Source, Stage, Tracker
from edge.threads.worker import caught, described
from edge.types import Classification, Detections, Embedding, Prediction, Segmentation, Tracks

Group: TypeAlias = Literal["edge.sources", "edge.engines", "edge.heads", "edge.trackers", "edge.sinks", "edge.stages"]
# what each group's parts must offer
PROTOCOLS: dict[Group, type] = {
    "edge.sources": Source,
    "edge.engines": Engine,
    "edge.heads": Head,
    "edge.trackers": Tracker,
    "edge.sinks": Sink,
    "edge.stages": Stage,
}
# and how it is called
SIGNATURES: dict[Group, str] = {
    "edge.sources": "(uri)",
    "edge.engines": "(path, manifest, *, threads, max_batch)",
    "edge.heads": "(manifest)",
    "edge.trackers": "()",
    "edge.sinks": "(place, *, stream, classes, fps)",
    "edge.stages": "(options, *, stream, classes)",
}
# what stands in a row of each column, None where any number does
_COLUMNS: dict[str, tuple[tuple[int | None, ...], type]] = {
    "xyxy": ((4,), np.float32),
    "score": ((), np.float32),
    "class_id": ((), np.int32),
    "track_id": ((), np.int64),
    "age": ((), np.float32),
    "velocity": ((2,), np.float32),
    "detection": ((), np.int32),
    "keypoints": ((None, 3), np.float32),
    "corners": ((4, 2), np.float32),
    "feet": ((2,), np.float32),
}
_DETECTIONS = ("xyxy", "score", "class_id")
_TRACKS = (*_DETECTIONS, "track_id", "age", "velocity", "detection")


def word_of(group: Group) -> str:
    """``sink`` for ``edge.sinks``."""
    return group.removeprefix("edge.").removesuffix("s")


def find(group: Group, name: str, built_in: Sequence[str] = ()) -> EntryPoint:
    """The entry point of a part that is not built in; nothing of its package is imported.

    Args:
        group: of entry points.
        name: of the part.
        built_in: the names that need no package, for the message.

    Raises:
        ConfigError: no installed package brings it.
    """
    found = entry_points(group=group)
    for entry in found:
        if entry.name == name:
            return entry
    word = word_of(group)
    known = [*built_in, *sorted(entry.name for entry in found)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from: {', '.join(known) or 'none is installed'};"
    raise ConfigError(
        f"no {word} is called {name!r}; {hint} a package that brings one has the entry point {name!r} of {group}; "
        "run: pip install PACKAGE"
    )


def make(group: Group, name: str, *args: object, **options: object) -> Any:
    """Load a part and make it, in this thread.

    Args:
        group, name: see ``find``.
        args, options: what the part is called with, see ``SIGNATURES``.

    Raises:
        ConfigError: no installed package brings it.
        EdgeError: what it says itself.
        PartError: it cannot be imported or called so, it fails, or it lacks what its protocol asks for.
    """
    entry = find(group, name)
    title = f"{word_of(group)} {name!r}{_package(entry)}"
    factory = _result(entry.load, f"{title} cannot be imported")
    _refuse_other_arguments(factory, args, options, f"{title}: expected {entry.value}{SIGNATURES[group]}")
    part = _result(lambda: factory(*args, **options), f"{title} cannot be opened")
    members = [member for member in dir(PROTOCOLS[group]) if not member.startswith("_")]
    missing = _result(lambda: [member for member in members if not hasattr(part, member)], title)
    if missing:
        raise PartError(f"{title}: {entry.value} lacks {', '.join(missing)}; see edge.interfaces.{_name_of(group)}")
    return part


def check_prediction(prediction: object, num_classes: int) -> Prediction:
    """What a head found, as it came.

    Raises:
        PartError: it is no prediction, or its arrays do not fit together.
    """
    if isinstance(prediction, (Segmentation, Classification, Embedding)):
        return prediction
    if not isinstance(prediction, Detections):
        raise PartError(f"expected Detections or another prediction of edge.types, found {type(prediction).__name__}")
    _check_columns(prediction, len(prediction.score), _DETECTIONS, ("keypoints", "corners"))
    if prediction.masks is not None and len(prediction.masks) != len(prediction):
        raise PartError(f"Detections.masks: expected {len(prediction)}, found {len(prediction.masks)}")
    if len(prediction) and not 0 <= int(prediction.class_id.min()) <= int(prediction.class_id.max()) < num_classes:
        raise PartError(f"Detections.class_id: expected 0 to {num_classes - 1}, the classes of the manifest")
    return prediction


def check_tracks(tracks: object, num_detections: int) -> Tracks:
    """What a tracker follows, as it came.

    Raises:
        PartError: it is no ``Tracks``, or its arrays do not fit together.
    """
    if not isinstance(tracks, Tracks):
        raise PartError(f"expected Tracks, found {type(tracks).__name__}")
    _check_columns(tracks, len(tracks.track_id), _TRACKS, ("keypoints", "corners", "feet"))
    if len(tracks) and int(tracks.detection.max()) >= num_detections:
        raise PartError(f"Tracks.detection: expected indices of the {num_detections} detections, or -1")
    if len(np.unique(tracks.track_id)) < len(tracks):
        raise PartError("Tracks.track_id: two tracks of one frame have the same id")
    return tracks


def _check_columns(table: Detections | Tracks, count: int, names: Sequence[str], optional: Sequence[str]) -> None:
    present = [name for name in optional if getattr(table, name) is not None]
    for name in (*names, *present):
        tail, dtype = _COLUMNS[name]
        column = getattr(table, name)
        if not _is_column(column, (count, *tail), dtype):
            facts = f"{column.shape} {column.dtype}" if isinstance(column, np.ndarray) else type(column).__name__
            shape = ", ".join("K" if size is None else str(size) for size in (count, *tail))
            expected = f"({shape}) {np.dtype(dtype)}"
            raise PartError(f"{type(table).__name__}.{name}: expected {expected}, found {facts}")


def _is_column(column: object, shape: tuple[int | None, ...], dtype: type) -> bool:
    return (
        isinstance(column, np.ndarray)
        and column.dtype == dtype
        and column.ndim == len(shape)
        and all(want in (None, have) for want, have in zip(shape, column.shape, strict=True))
    )


def _result(act: Callable[[], Any], words: str) -> Any:
    """What a function of another package gives; what it raises is a sentence that begins with these words."""
    values: list[Any] = []
    failure = caught(lambda: values.append(act()))
    if failure is None:
        return values[0]
    if isinstance(failure, EdgeError) or not isinstance(failure, Exception):
        raise failure
    raise PartError(f"{words}: {described(failure)}") from failure


def _refuse_other_arguments(
    factory: Callable[..., Any], args: tuple[object, ...], options: dict[str, object], words: str
) -> None:
    if not callable(factory):
        raise PartError(f"{words}, found {type(factory).__name__}")
    try:
        signature = inspect.signature(factory)
    except ValueError:
        # of compiled code
        return
    try:
        signature.bind(*args, **options)
    except TypeError:
        raise PartError(f"{words}, found {signature}") from None


def _package(entry: EntryPoint) -> str:
    return "" if entry.dist is None else f" of {entry.dist.name} {entry.dist.version}"


def _name_of(group: Group) -> str:
    return PROTOCOLS[group].__name__
