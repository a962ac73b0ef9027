"""``edge track``: follow the boxes of a MOTChallenge text file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, out, print_json


def track(
    detections: Annotated[
        Path, typer.Argument(help="Detections: frame,-1,x,y,w,h,score[,class] or frame,x,y,w,h,score.")
    ],
    tracks: Annotated[Path, typer.Option("--out", help="Tracks, as MOTChallenge text.")],
    tracker: Annotated[str, typer.Option(help="edge, bytetrack, ocsort or sort.")] = "edge",
    fps: Annotated[float, typer.Option(help="Frames per second: the tracker thinks in seconds.", min=0.01)] = 30.0,
    motion: Annotated[Path | None, typer.Option(help="Camera motion: frame and a 2x3 affine per line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow boxes through a sequence (MOTChallenge text)."""
    import time

    from edge.trackers.choose import open_tracker
    from edge.trackers.mot_text import read_detections, read_motion, write_tracks

    chosen = open_tracker(tracker)
    frames = read_detections(detections)
    affines = read_motion(motion) if motion else {}
    started = time.perf_counter()
    found = [
        chosen.update(boxes, round(number * 1e9 / fps), affines.get(number))
        for number, boxes in enumerate(frames, start=1)
    ]
    spent_s = time.perf_counter() - started
    lines = write_tracks(tracks, found)
    ids = {track_id for frame in found for track_id in frame.track_id.tolist()}
    summary = {
        "frames": len(frames),
        "boxes": lines,
        "tracks": len(ids),
        "ms_per_frame": round(1e3 * spent_s / max(1, len(frames)), 3),
        "out": str(tracks),
    }
    if as_json:
        print_json(summary)
        return
    out.print(
        f"{tracks}: {lines} boxes of {len(ids)} tracks in {len(frames)} frames, {summary['ms_per_frame']} ms a frame"
    )
