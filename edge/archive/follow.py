"""One video followed in order: what the model found in its parts becomes tracks, events, tables and JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.archive.clips import Clip, Split
from edge.archive.found import Found
from edge.archive.results import ResultFolder
from edge.archive.tables import SCHEMAS, TableWriter
from edge.errors import DataError
from edge.metrics.clock import WallClock
from edge.model import find_manifest
from edge.pipeline.build import analysis_of, score_of
from edge.result_json import ResultEncoder
from edge.second_stage.models import CropModels
from edge.types import Detections, Frame, Result
from edge.video.media_time import MediaTime

if TYPE_CHECKING:
    from edge.archive.job import Job


def follow(job: Job, folder: Path, clip: Clip, split: Split) -> dict[str, Any]:
    """Write all outputs of a video whose parts are there, and close its account.

    Returns:
        The account.

    Raises:
        DataError: a part is damaged; it is removed, so that the next run finds it again.
        OSError: the disk.
    """
    results = ResultFolder(folder, job)
    follower = _Follower(job, clip, split)
    with ExitStack() as closing:
        paths = results.open_outputs(clip, closing)
        tables = TableWriter(clip.key, follower.classes, {name: paths[name] for name in SCHEMAS})
        closing.callback(tables.close)
        lines = closing.enter_context(paths["jsonl"].open("wb"))
        for number in range(len(split.parts)):
            for result, line in follower.part(results.part(clip, number)):
                tables.add(result)
                lines.write(line + b"\n")
            tables.end_part()
        counts = {name: tables.num_rows[name] for name in SCHEMAS}
    facts = {"frames": follower.num_frames, **counts, "counts": dict(follower.counts())}
    results.keep_account(clip, facts)
    return facts


class _Follower:
    """The tracker and the counts of one video."""

    def __init__(self, job: Job, clip: Clip, split: Split) -> None:
        manifest = find_manifest(job.model.path, job.model.manifest)
        self.classes = tuple(manifest.classes)
        # a path is no name of a stream, but the best one of a video
        stream = job.stream.model_copy(update={"name": clip.key})
        self._analysis = analysis_of(stream, job.model, manifest, CropModels(job.config))
        self._analysis.clock = lambda time_ns: datetime.fromtimestamp((split.began_ns + time_ns) / 1e9, timezone.utc)
        self._now_ns = 0
        clock = WallClock(offset_ns=split.began_ns, now_ns=lambda: self._now_ns)
        self._encoder = ResultEncoder(manifest.classes, score=score_of(job.stream, manifest), clock=clock)
        self._time = MediaTime(split.fps)
        self._time_base = None if split.time_base is None else Fraction(*split.time_base)
        self._name = clip.key
        self.num_frames = 0

    def part(self, path: Path) -> Iterator[tuple[Result, bytes]]:
        """The results of the next part, and their JSONL lines."""
        try:
            found = Found.from_bytes(path.read_bytes(), self.classes)
        except (ValueError, KeyError, OSError) as error:
            path.unlink(missing_ok=True)
            raise DataError(f"{path}: a damaged part of {self._name} ({error}); run the command again") from None
        for pts, width, height, objects in found.frames():
            result = self._result(self._time.next_ns(pts, self._time_base), (width, height), objects)
            yield result, self._encoder.encode(result)

    def counts(self) -> Any:
        return self._analysis.counts()

    def _result(self, time_ns: int, size: tuple[int, int], objects: Detections) -> Result:
        # nobody looks at the picture any more: one black pixel stands for all
        image = np.broadcast_to(np.zeros(1, np.uint8), (size[1], size[0], 3))
        frame = Frame(self._name, 0, self.num_frames, time_ns, time_ns, image)
        self._now_ns = time_ns
        self.num_frames += 1
        return self._analysis.update(frame, objects, {})
