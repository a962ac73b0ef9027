"""The three tables of an archive, as Parquet: detections, tracks and events. docs/scale.md describes the columns.

N objects of a picture, K key points.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from edge.types import Array, Result

_FRAME = [("file", pa.string()), ("seq", pa.int64()), ("time_ns", pa.int64())]
_OBJECT = [("class_id", pa.int32()), ("class", pa.string()), ("score", pa.float32())]
_BOX = [(name, pa.float32()) for name in ("x1", "y1", "x2", "y2")]
# x, y and score of each key point in turn; x and y of each corner
_SHAPE = [("keypoints", pa.list_(pa.float32())), ("corners", pa.list_(pa.float32()))]
SCHEMAS = {
    "detections": pa.schema([*_FRAME, *_OBJECT, *_BOX, *_SHAPE]),
    "tracks": pa.schema(
        [
            *_FRAME,
            ("track_id", pa.int64()),
            *_OBJECT,
            *_BOX,
            *((name, pa.float32()) for name in ("age_s", "speed_x", "speed_y")),
            ("detection", pa.int32()),
            *_SHAPE,
        ]
    ),
    "events": pa.schema([*_FRAME, ("kind", pa.string()), ("track_id", pa.int64()), ("data", pa.string())]),
}


class TableWriter:
    """Writes the tables of one file, a row group per part: the memory does not grow with the file's length."""

    def __init__(self, file: str, classes: Sequence[str], paths: dict[str, Path]) -> None:
        """Args: its name in the column ``file``, the model's classes, table → where it is written."""
        self._file = file
        self._classes = np.array([*classes, ""], object)
        self._writers = {name: pq.ParquetWriter(path, SCHEMAS[name]) for name, path in paths.items()}
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in paths}
        self.num_rows = dict.fromkeys(paths, 0)

    def add(self, result: Result) -> None:
        """Take the next result of the file."""
        frame, found, tracks = result.frame, result.detections, result.tracks
        common = (frame.seq, frame.time_ns, len(found))
        self._rows["detections"].append({**self._columns(*common), **self._objects(found)})
        if tracks is not None:
            columns = self._columns(frame.seq, frame.time_ns, len(tracks))
            more = {"track_id": tracks.track_id, "age_s": tracks.age, "detection": tracks.detection}
            speed = {"speed_x": tracks.velocity[:, 0], "speed_y": tracks.velocity[:, 1]}
            self._rows["tracks"].append({**columns, **self._objects(tracks), **more, **speed})
        for event in result.events:
            facts = {"kind": [event.kind], "track_id": [event.track_id], "data": [json.dumps(dict(event.data))]}
            self._rows["events"].append({**self._columns(frame.seq, event.time_ns, 1), **facts})

    def end_part(self) -> None:
        """Write what came since the last part."""
        for name, rows in self._rows.items():
            schema = SCHEMAS[name]
            batches = [pa.RecordBatch.from_pydict(row, schema) for row in rows]
            table = pa.Table.from_batches(batches, schema).combine_chunks()
            if table.num_rows:
                self._writers[name].write_table(table, row_group_size=table.num_rows)
                self.num_rows[name] += table.num_rows
            rows.clear()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _columns(self, seq: int, time_ns: int, count: int) -> dict[str, Any]:
        return {"file": [self._file] * count, "seq": [seq] * count, "time_ns": [time_ns] * count}

    def _objects(self, found: Any) -> dict[str, Any]:
        """What N detections and N tracks have in common."""
        known = np.where((found.class_id >= 0) & (found.class_id < len(self._classes) - 1), found.class_id, -1)
        boxes = {name: found.xyxy[:, column] for column, (name, _) in enumerate(_BOX)}
        shapes = {"keypoints": _listed(found.keypoints, len(found)), "corners": _listed(found.corners, len(found))}
        return {"class_id": found.class_id, "class": self._classes[known], "score": found.score, **boxes, **shapes}


def _listed(values: Array | None, count: int) -> list[list[float] | None]:
    """N rows of numbers; N times nothing where the model gives none."""
    return [None] * count if values is None else list(values.reshape(count, -1).tolist())
