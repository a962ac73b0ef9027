"""Video files wherever fsspec finds them, cut at key frames into parts that can be decoded on their own."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import av
import av.error
import fsspec
from fsspec.core import url_to_fs

from edge.addresses.uris import masked
from edge.errors import MissingError, SourceError, UsageError
from edge.pictures.frames import planes_of
from edge.pictures.planes import Planes
from edge.sources.av import MAX_BROKEN_PACKETS, MAX_PICTURE_PX, reason_of

# of a part: enough to make its beginning cheap, few enough that an interrupted run loses little
PART_FRAMES = 300
MAGIC = re.compile(r"[*?\[]")
# what file systems call the state of a file's content
STAMPS = ("mtime", "LastModified", "last_modified", "ETag", "CRC")
READ_FAULTS = (av.error.FFmpegError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Clip:
    """A video file.

    Attributes:
        key: its name in the results: the path below the folder that was searched.
        address: a local path, or what fsspec opens.
        stamp: differs when the content does.
    """

    key: str
    address: str
    stamp: str


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker decodes at a time. Times are ticks of the file.

    Attributes:
        start: presentation time of its first picture, which is a key frame; None: the beginning of the file.
        end: presentation time of the first picture of the next part; None: the end of the file.
        num_frames: about how many pictures it has.
    """

    start: int | None
    end: int | None
    num_frames: int


@dataclass(frozen=True, slots=True)
class Split:
    """A file and its parts, in order.

    Attributes:
        fps: pictures per second, 0 where unknown.
        time_base: seconds per tick, as numerator and denominator; None where the file does not say.
        began_ns: when it was filmed, UTC, in ns since 1970; 0 where the file does not say.
    """

    fps: float
    time_base: tuple[int, int] | None
    began_ns: int
    parts: tuple[Part, ...]


def find_clips(patterns: Sequence[str]) -> list[Clip]:
    """The files that match, sorted by key.

    Raises:
        UsageError: nothing matches, or two files would have one name in the results.
        MissingError: the file system needs a package.
        SourceError: the place cannot be listed.
    """
    found = [clip for pattern in patterns for clip in _matching(pattern)]
    keys: dict[str, str] = {}
    for clip in found:
        if keys.setdefault(clip.key, clip.address) != clip.address:
            both = f"{masked(keys[clip.key])} and {masked(clip.address)}"
            raise UsageError(f"{both} would both be {clip.key!r} in the results; analyze them into two folders")
    return sorted({clip.key: clip for clip in found}.values(), key=lambda clip: clip.key)


def _matching(pattern: str) -> list[Clip]:
    try:
        system, path = url_to_fs(pattern)
        paths = system.glob(path) if MAGIC.search(path) else [path]
        infos = [system.info(one) for one in sorted(paths)]
    except ImportError as error:
        raise MissingError(f"{masked(pattern)}: {error}") from None
    except FileNotFoundError:
        infos = []
    except (OSError, ValueError) as error:
        raise SourceError(f"{masked(pattern)}: cannot be listed ({error})") from None
    files = [info for info in infos if info["type"] == "file"]
    if not files:
        raise UsageError(f"{masked(pattern)}: no such files; expected videos such as 'videos/**/*.mp4'")
    rest = "".join(pattern.partition("::")[1:])
    is_local = not rest and "file" in ([system.protocol] if isinstance(system.protocol, str) else system.protocol)
    root = posixpath.dirname(path[: found.start()] if (found := MAGIC.search(path)) else path)
    return [_clip(info, root, None if is_local else f"{system.unstrip_protocol(info['name'])}{rest}") for info in files]


def _clip(info: dict[str, Any], root: str, address: str | None) -> Clip:
    name = str(info["name"])
    stamp = "-".join(str(info[key]) for key in ("size", *STAMPS) if info.get(key) is not None)
    return Clip(posixpath.relpath(name, root) if root else name, address or name, stamp)


def split(address: str, part_frames: int = PART_FRAMES) -> Split:
    """Look through a file without decoding it, and cut it at key frames into parts of at least so many pictures.

    Raises:
        SourceError: it cannot be read or has no video.
    """
    with _opened(address) as (container, stream):
        starts, counts = _cuts(container, stream, part_frames)
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else 0.0
        ticks = None if stream.time_base is None else stream.time_base.as_integer_ratio()
        began_ns = _began_ns(container)
    if not sum(counts):
        raise SourceError(f"{masked(address)}: opened, but it gives no picture; is it a video that FFmpeg decodes?")
    parts = tuple(map(Part, starts, [*starts[1:], None], counts))
    return Split(fps if 0 < fps < 1000 else 0.0, ticks, began_ns, parts)


def _cuts(container: Any, stream: Any, part_frames: int) -> tuple[list[int | None], list[int]]:
    """Where parts begin, and how many pictures each has; the times of a damaged file may forbid any cut."""
    starts: list[int | None] = [None]
    counts = [0]
    latest: int | None = None
    has_times = True
    for packet in container.demux(stream):
        if not packet.size:
            continue
        has_times &= packet.pts is not None
        # a picture that is shown after the key frame must not come before it in the file
        is_clean = packet.is_keyframe and packet.pts is not None and latest is not None and packet.pts > latest
        if is_clean and counts[-1] >= part_frames:
            starts.append(packet.pts)
            counts.append(0)
        counts[-1] += 1
        if packet.pts is not None:
            latest = packet.pts if latest is None else max(latest, packet.pts)
    return (starts, counts) if has_times else ([None], [sum(counts)])


def read_part(address: str, part: Part) -> Iterator[tuple[int | None, Planes]]:
    """Decode a part on one thread: presentation time in ticks and the planes of each picture, in order.

    Raises:
        SourceError: the file broke off or is damaged.
    """
    with _opened(address) as (container, stream):
        whole = _decoded(container, stream, address)
        pictures = whole if part.start is None else _since(container, stream, address, part.start)
        for frame in pictures:
            if frame.pts is not None and part.start is not None and frame.pts < part.start:
                continue
            if frame.pts is not None and part.end is not None and frame.pts >= part.end:
                return
            yield frame.pts, planes_of(frame)


def _since(container: Any, stream: Any, address: str, start: int) -> Iterator[Any]:
    """Pictures from a key frame on; from the file's beginning, where its index leads beyond it."""
    container.seek(start, stream=stream)
    pictures = _decoded(container, stream, address)
    first = next(pictures, None)
    if first is None or first.pts is None or first.pts > start:
        container.seek(0)
        pictures = _decoded(container, stream, address)
    else:
        yield first
    yield from pictures


def _decoded(container: Any, stream: Any, address: str) -> Iterator[Any]:
    """Pictures to the end of the file; damaged packets are passed over, but not for ever."""
    num_broken = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            num_broken += 1
            if num_broken > MAX_BROKEN_PACKETS:
                raise SourceError(f"{masked(address)}: {num_broken} damaged packets in a row: {error}") from None
            continue
        except av.error.EOFError:
            return
        for frame in frames:
            num_broken = 0
            yield frame


@contextlib.contextmanager
def _opened(address: str) -> Iterator[tuple[Any, Any]]:
    """A file and its first video stream, decoded on one thread: the workers are what runs in parallel.

    Raises:
        SourceError: it cannot be read, breaks off while it is used, or has no video.
    """
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(fsspec.open(address, "rb")) if "://" in address else address
            container: Any = closing.enter_context(av.open(file))
            if not container.streams.video:
                raise SourceError(f"{masked(address)}: there is no video in it")
            stream = container.streams.video[0]
            context = stream.codec_context
            context.options = {"max_pixels": str(MAX_PICTURE_PX)}
            context.thread_count = 1
            yield container, stream
        except READ_FAULTS as error:
            raise SourceError(f"{masked(address)}: cannot be read: {reason_of(error)}") from None


def _began_ns(container: Any) -> int:
    """When the file says that it was filmed."""
    try:
        began = datetime.fromisoformat(container.metadata.get("creation_time", "").replace("Z", "+00:00"))
    except ValueError:
        return 0
    began = began if began.tzinfo else began.replace(tzinfo=timezone.utc)
    return max(0, round(began.timestamp() * 1000)) * 1_000_000
