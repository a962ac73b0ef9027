"""The stored tracks as tables for pandas, polars and duckdb: Parquet, CSV or JSON lines, a block at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge.analytics.classes import class_name
from edge.errors import MissingError, UsageError

if TYPE_CHECKING:
    from edge.trackstore.block import Block
    from edge.trackstore.parts import Head
    from edge.trackstore.read import Reader

What = Literal["objects", "frames", "events", "drops"]
# name:kind of each column, in order; Arrow's names of kinds
_COLUMNS: Mapping[What, str] = {
    "objects": "stream:string time:time seq:int64 track_id:int64 class:string score:float32 "
    "x1:float32 y1:float32 x2:float32 y2:float32 vx_px_s:float32 vy_px_s:float32",
    "frames": "stream:string time:time epoch:int64 seq:int64 age_ms:int64 num_tracks:int64 num_candidates:int64 "
    "model:string config_sha256:string",
    "events": "stream:string time:time seq:int64 kind:string track_id:int64 data:string",
    "drops": "stream:string time:time state:string reason:string health:string cause:string frames:int64",
}
COLUMNS = {what: dict(column.split(":") for column in text.split()) for what, text in _COLUMNS.items()}
Columns = dict[str, Any]


def export(
    reader: Reader, stream: str, out: Path, what: What, since_ns: int | None = None, until_ns: int | None = None
) -> int:
    """Write a table; the ending of ``out`` says which kind.

    Args:
        reader: of the store. stream: whose tracks.
        out: ``.parquet``, ``.csv`` or ``.jsonl``.
        what: ``objects`` (tracks, and candidates with track 0), ``frames``, ``events`` or ``drops``.
        since_ns, until_ns: wall clock, the end exclusive.

    Returns:
        The number of rows.

    Raises:
        UsageError: another ending.
        MissingError: Parquet without pyarrow.
        DataError: nothing is kept of this stream.
    """
    writers: Mapping[str, Callable[..., int]] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    if out.suffix not in writers:
        raise UsageError(f"{out}: expected a file that ends with {', '.join(writers)}")
    with_candidates = what in ("objects", "frames")
    blocks = reader.blocks(stream, since_ns, until_ns, with_candidates=with_candidates)
    return writers[out.suffix](out, what, (table(head, block, what) for head, block in blocks))


def table(head: Head, block: Block, what: What) -> Columns:
    """One block as columns of equal length; ``time`` is UTC in nanoseconds."""
    match what:
        case "objects":
            columns = _objects(head, block)
        case "frames":
            columns = _frames(head, block)
        case "events":
            columns = _events(block)
        case "drops":
            columns = _drops(block)
    count = len(columns["time"])
    return {name: columns[name] if name != "stream" else [head.stream] * count for name in COLUMNS[what]}


def _wall(block: Block) -> Any:
    return block.captured_ns + int(block.notes["wall_offset_ns"])


def _objects(head: Head, block: Block) -> Columns:
    seen, others = block.sightings, block.candidates
    frame = np.concatenate([seen.frame, others.frame])
    order = np.argsort(frame, kind="stable")
    nothing = np.zeros((len(others), 2), np.float32)
    box, speed = np.concatenate([seen.xyxy, others.xyxy])[order], np.concatenate([seen.velocity, nothing])[order]
    class_id = np.concatenate([seen.class_id, others.class_id])[order]
    track_id = np.concatenate([seen.track_id, np.zeros(len(others), np.int64)])[order]
    frame = frame[order]
    return {
        "time": _wall(block)[frame],
        "seq": block.seq[frame],
        "track_id": track_id,
        "class": [class_name(head.classes, number) for number in class_id.tolist()],
        "score": np.concatenate([seen.score, others.score])[order],
        **{name: box[:, column] for column, name in enumerate(("x1", "y1", "x2", "y2"))},
        **{name: speed[:, column] for column, name in enumerate(("vx_px_s", "vy_px_s"))},
    }


def _frames(head: Head, block: Block) -> Columns:
    count = len(block.seq)
    return {
        "time": _wall(block),
        "epoch": block.epoch,
        "seq": block.seq,
        "age_ms": block.age_ms,
        "num_tracks": np.bincount(block.sightings.frame, minlength=count),
        "num_candidates": np.bincount(block.candidates.frame, minlength=count),
        "model": [head.model["sha256"]] * count,
        "config_sha256": [head.config_sha256] * count,
    }


def _events(block: Block) -> Columns:
    events = block.notes["events"]
    frame = np.array([event[0] for event in events], np.int64)
    return {
        "time": _wall(block)[frame],
        "seq": block.seq[frame],
        "kind": [event[1] for event in events],
        "track_id": [event[2] for event in events],
        "data": [json.dumps(event[3]) for event in events],
    }


def _drops(block: Block) -> Columns:
    """A row per second and cause; one without a cause where only the camera's state changed."""
    rows = []
    for moment in block.notes["moments"]:
        counts = {name: count for name, count in moment.get("counts", {}).items() if name.startswith("drop_")}
        if counts or "state" in moment:
            rows += [(moment, *one) for one in (counts.items() or [(None, 0)])]
    offset_ns = int(block.notes["wall_offset_ns"])
    return {
        "time": np.array([moment["ns"] + offset_ns for moment, *_ in rows], np.int64),
        "state": [moment.get("state") for moment, *_ in rows],
        "reason": [moment.get("reason") for moment, *_ in rows],
        "health": [",".join(moment.get("health", ())) for moment, *_ in rows],
        "cause": [cause for _, cause, _ in rows],
        "frames": [count for *_, count in rows],
    }


def _parquet(out: Path, what: What, tables: Iterator[Columns]) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingError("Parquet needs pyarrow: pip install 'edgeloop[tracks]'; or write .csv or .jsonl") from None
    kinds = {"time": pyarrow.timestamp("ns", "UTC")}
    fields = [(name, kinds.get(kind) or getattr(pyarrow, kind)()) for name, kind in COLUMNS[what].items()]
    schema, count = pyarrow.schema(fields), 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for columns in tables:
            writer.write_table(pyarrow.table(columns, schema))
            count += len(columns["time"])
    return count


def _csv(out: Path, what: What, tables: Iterator[Columns]) -> int:
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS[what])
        count = 0
        for row in _rows(tables):
            writer.writerow(row)
            count += 1
    return count


def _jsonl(out: Path, what: What, tables: Iterator[Columns]) -> int:
    with out.open("w", encoding="utf-8") as file:
        count = 0
        for row in _rows(tables):
            file.write(json.dumps(dict(zip(COLUMNS[what], row, strict=True))) + "\n")
            count += 1
    return count


def _rows(tables: Iterator[Columns]) -> Iterator[tuple[Any, ...]]:
    for columns in tables:
        times = np.asarray(columns["time"], np.int64).astype("datetime64[ns]").astype(str)
        columns["time"] = [f"{time}Z" for time in times.tolist()]
        lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values()]
        yield from zip(*lists, strict=True)
