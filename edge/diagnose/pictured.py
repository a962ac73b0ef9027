"""The picture of a stored moment with what was seen in it: out of a recording, or boxes alone where there is none."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import av
import cv2
import numpy as np

from edge.addresses.printable import printable
from edge.boxes import iou
from edge.config.schema import StreamSettings
from edge.overlay.text import draw_text, text_width
from edge.recording.index import RecordingIndex
from edge.recording.names import PART_SUFFIX, start_in, whole_of

if TYPE_CHECKING:
    from edge.trackstore.block import Block
    from edge.trackstore.parts import Head
    from edge.trackstore.read import Reader
    from edge.types import UInt8

NS_PER_S = 1_000_000_000
WIDTH_PX = 640
JPEG_QUALITY = 80
GREY = 60
LABEL_PX = 11
# from this overlap on a candidate is what is followed
SAME_IOU = 0.5
Colour: TypeAlias = tuple[int, int, int]
RULE, TRACK, MARKED, CANDIDATE = (200, 120, 0), (60, 170, 40), (30, 30, 220), (170, 170, 170)


class Album:
    """Pictures of one stream's stored moments, as long as there is time to make them."""

    def __init__(self, reader: Reader, stream: StreamSettings, for_s: float) -> None:
        """Args: the store, the stream with the folder of its recordings, how long making them may take in all."""
        self._reader = reader
        self._stream = stream
        self._until_s = time.monotonic() + for_s

    def picture(self, wall_ns: int, marked: int | None = None) -> str | None:
        """The picture at a moment as a ``data:`` address; None where nothing is kept of it, or time is up.

        Args:
            wall_ns: wall clock.
            marked: the track that it is about.
        """
        if time.monotonic() > self._until_s:
            return None
        found = self._frame_at(wall_ns)
        if found is None:
            return None
        head, block, number, frame_ns = found
        image = None if self._stream.record is None else _filmed(self._stream, frame_ns)
        settings = StreamSettings.model_validate(head.config)
        drawn = _drawn(image, head, block, number, settings, marked)
        _, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"

    def _frame_at(self, wall_ns: int) -> tuple[Head, Block, int, int] | None:
        """The stored frame nearest to a moment, within a second: head, block, number, wall clock."""
        best: tuple[Head, Block, int, int] | None = None
        for head, block in self._reader.blocks(self._stream.name, wall_ns - NS_PER_S, wall_ns + NS_PER_S):
            if len(block.captured_ns) == 0:
                continue
            walls = block.captured_ns + int(block.notes["wall_offset_ns"])
            number = int(np.abs(walls - wall_ns).argmin())
            if best is None or abs(int(walls[number]) - wall_ns) < abs(best[3] - wall_ns):
                best = head, block, number, int(walls[number])
        return best if best is not None and abs(best[3] - wall_ns) <= NS_PER_S else None


def _filmed(stream: StreamSettings, wall_ns: int) -> UInt8 | None:
    """(H, W, 3) uint8 BGR out of the recordings; None where none shows the moment."""
    assert stream.record is not None
    for path, start_ns in _films(stream.record.folder / stream.name, wall_ns):
        with suppress(av.error.FFmpegError, OSError, IndexError):
            return picture_at(path, (wall_ns - start_ns) / NS_PER_S)
    return None


def _films(folder: Path, wall_ns: int) -> Iterator[tuple[Path, int]]:
    """The files that may show a moment, also those that are not finished, and when each begins."""
    index = RecordingIndex(folder)
    with suppress(OSError):
        index.load()
    for entry in index.entries:
        if entry.start_ns <= wall_ns < entry.end_ns:
            yield folder / entry.file, entry.start_ns
    for path in sorted(folder.glob(f".*{PART_SUFFIX}"), reverse=True):
        start_ns = start_in(whole_of(path).name)
        if start_ns is not None and start_ns <= wall_ns:
            yield path, start_ns


def picture_at(path: Path, at_s: float) -> UInt8:
    """The picture of an MP4 file nearest to a time, decoded from the key picture before it on.

    Raises:
        FFmpegError, OSError, IndexError: the file cannot be read, or has no picture.
    """
    with closing(av.open(str(path), format="mp4")) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        wanted = (stream.start_time or 0) + int(at_s / stream.time_base)
        # an unfinished file has no index: it is read from its beginning, without decoding
        with suppress(av.error.FFmpegError):
            container.seek(wanted, stream=stream)
        group: list[Any] = []
        for packet in container.demux(stream):
            if packet.is_keyframe:
                group.clear()
            group.append(packet)
            if packet.pts is not None and packet.pts >= wanted:
                break
        frames = [frame for packet in [*group, None] for frame in stream.codec_context.decode(packet)]
        nearest = min(frames, key=lambda frame: abs((frame.pts or 0) - wanted), default=None)
        if nearest is None:
            raise IndexError("no picture at that time")
        image: UInt8 = nearest.to_ndarray(format="bgr24")
        return image


def _drawn(
    image: UInt8 | None, head: Head, block: Block, number: int, settings: StreamSettings, marked: int | None
) -> UInt8:
    """The picture, small, with lines and zones, candidates, tracks, and the one that it is about."""
    scale = WIDTH_PX / head.width
    size = WIDTH_PX, max(1, round(head.height * scale))
    drawn: UInt8 = np.full((size[1], size[0], 3), GREY, np.uint8)
    if image is not None:
        drawn = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    watched, labels = settings.analytics, list[Label]()
    for part in (*watched.lines, *watched.zones):
        corners = np.array(part.pixels(head.width, head.height)) * scale
        cv2.polylines(drawn, [np.round(corners).astype(np.int32)], part in watched.zones, RULE, 2, cv2.LINE_AA)
        labels.append(Label(printable(part.name), (*corners.min(0), *corners.max(0)), RULE))
    seen = block.sightings[block.sightings.frame == number]
    boxes = seen.xyxy * scale
    others = block.candidates[block.candidates.frame == number]
    overlap = iou(others.xyxy, seen.xyxy).max(1, initial=0)
    # what is followed is told once
    for box, score in zip(
        others.xyxy[overlap < SAME_IOU] * scale, others.score[overlap < SAME_IOU].tolist(), strict=True
    ):
        _box(drawn, box, CANDIDATE, 1)
        labels.append(Label(f"{score:.0%}", tuple(box), CANDIDATE, rank=2))
    for row, box in enumerate(boxes):
        track, class_id = int(seen.track_id[row]), int(seen.class_id[row])
        name = head.classes[class_id] if class_id < len(head.classes) else str(class_id)
        text = f"{name} #{track} {float(seen.score[row]):.0%}"
        is_marked = track == marked
        colour = MARKED if is_marked else TRACK
        _box(drawn, box, colour, 3 if is_marked else 2)
        labels.append(Label(printable(text), tuple(box), colour, rank=0 if is_marked else 1))
    for label, left, top in placed(labels, *size):
        draw_text(drawn, label.text, (left, top), LABEL_PX, label.colour)
    return drawn


def _box(image: UInt8, box: Any, colour: Colour, thickness: int) -> None:
    left, top, right, bottom = (round(float(value)) for value in box)
    cv2.rectangle(image, (left, top), (right, bottom), colour, thickness)


@dataclass(frozen=True, slots=True)
class Label:
    """A name of what lies within a box of pixels. A lower rank is more wanted."""

    text: str
    box: tuple[float, float, float, float]
    colour: Colour
    rank: int = 1


def label_size(text: str) -> tuple[int, int]:
    """Width and height of a label in pixels, as ``draw_text`` makes it."""
    return text_width(text, LABEL_PX) + round(2.4 * LABEL_PX), round(1.7 * LABEL_PX)


def placed(labels: Sequence[Label], width: int, height: int) -> list[tuple[Label, int, int]]:
    """Left and top of the labels that have room, the most wanted ones first: above their box, below it, or inside."""
    taken: list[tuple[int, int, int, int]] = []
    found = []
    for label in sorted(labels, key=lambda one: one.rank):
        wide, high = label_size(label.text)
        left = round(min(max(label.box[0], 0), width - wide))
        for top in (round(label.box[1]) - high, round(label.box[3]), round(label.box[1]) + 2):
            place = (left, top, left + wide, top + high)
            is_inside = left >= 0 and top >= 0 and place[3] <= height
            if is_inside and not any(_overlap(place, other) for other in taken):
                taken.append(place)
                found.append((label, left, top))
                break
    return found


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
