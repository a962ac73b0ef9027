"""Real sequences for comparing trackers: loading, frames taken away, and TrackEval's judgement."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.commands.track_eval import COMBINED, evaluate
from edge.interfaces import Tracker
from edge.trackers.mot_text import read_detections, read_motion, write_tracks
from edge.types import Detections, Float64, Tracks

KITTI_CLASSES = {"car": (1, 2), "pedestrian": (4, 5)}
KITTI_TYPES = ("", "Car", "Van", "Truck", "Pedestrian", "Person", "Cyclist", "Tram", "Misc", "DontCare")
LEAST_KITTI_BOXES = 50


@dataclass(frozen=True)
class Sequence:
    """One sequence (of KITTI: one class of it); ``truth`` has a row of text fields per box."""

    name: str
    group: str
    fps: float
    numbers: list[int]
    frames: list[Detections]
    truth: list[list[str]]
    motion: dict[int, Float64]
    class_name: str = "pedestrian"


def load(data: Path) -> Iterator[Sequence]:
    """All sequences of the index."""
    for entry in json.loads((data / "index.json").read_text()):
        folder = data / entry["name"]
        frames = read_detections(folder / "det.txt")
        frames += [Detections.empty()] * (entry["frames"] - len(frames))
        truth = [line.split(",") for line in (folder / "gt.txt").read_text().split()]
        motion = read_motion(folder / "gmc.txt") if (folder / "gmc.txt").is_file() else {}
        whole = Sequence(
            entry["name"], entry["set"], entry["fps"], list(range(1, len(frames) + 1)), frames, truth, motion
        )
        if entry["set"] == "kitti":
            yield from split_classes(whole)
        else:
            yield whole


def split_classes(whole: Sequence) -> Iterator[Sequence]:
    """KITTI is scored per class, where the class has boxes that count."""
    for name, (number, _) in KITTI_CLASSES.items():
        counted = [row for row in whole.truth if int(row[7]) == number and int(row[6]) <= 2 and float(row[8]) <= 0]
        if len(counted) >= LEAST_KITTI_BOXES:
            frames = [frame[frame.class_id == number] for frame in whole.frames]
            yield replace(whole, name=f"{whole.name}-{name}", frames=frames, class_name=name)


def thinned(sequence: Sequence, how: str) -> Sequence:
    """Frames missing (times stay, numbers of frames in the truth close up), ``shaken``, or ``disturbed`` by a seed."""
    total = len(sequence.frames)
    if how == "all":
        return sequence
    if how == "shaken":
        return shaken(sequence)
    if how.startswith("disturbed"):
        return disturbed(sequence, int(how.removeprefix("disturbed")))
    if how.startswith("div"):
        kept = np.arange(0, total, int(how[3:]))
    else:
        draw = np.random.default_rng(sum(sequence.name.encode())).random(total)
        kept = np.flatnonzero(draw > 1 / 3)
    new_number = {int(k) + 1: n for n, k in enumerate(kept, start=1)}
    truth = [[str(new_number[int(row[0])]), *row[1:]] for row in sequence.truth if int(row[0]) in new_number]
    motion, place = {}, np.eye(3)
    for number in range(1, total + 1):
        place = np.vstack((sequence.motion.get(number, np.eye(2, 3)), [0, 0, 1])) @ place
        if number in new_number:
            motion[number], place = place[:2], np.eye(3)
    frames = [sequence.frames[k] for k in kept]
    return replace(sequence, numbers=[int(k) + 1 for k in kept], frames=frames, truth=truth, motion=motion)


def backwards(sequence: Sequence) -> Sequence:
    """The same sequence from its end to its start: new data to a tracker."""
    total = len(sequence.frames)
    truth = [[str(total + 1 - int(row[0])), *row[1:]] for row in sequence.truth]
    motion = {
        total + 2 - number: np.linalg.inv(np.vstack((affine, [0, 0, 1])))[:2]
        for number, affine in sequence.motion.items()
        if number > 1
    }
    return replace(sequence, frames=sequence.frames[::-1], truth=truth, motion=motion)


def disturbed(sequence: Sequence, seed: int) -> Sequence:
    """The same sequence with sides of boxes moved by 1 % of the size, scores by 0.01, and 1 % of the boxes missing."""
    rng = np.random.default_rng([seed, sum(sequence.name.encode())])
    frames = []
    for frame in sequence.frames:
        size = np.tile(np.maximum(frame.xyxy[:, 2:] - frame.xyxy[:, :2], 1), 2)
        xyxy = (frame.xyxy + rng.normal(0, 0.01, size.shape) * size).astype(np.float32)
        score = np.clip(frame.score + rng.normal(0, 0.01, len(frame)), 0.01, 1).astype(np.float32)
        frames.append(replace(frame, xyxy=xyxy, score=score)[rng.random(len(frame)) > 0.01])
    return replace(sequence, frames=frames)


def shaken(sequence: Sequence) -> Sequence:
    """The same sequence before a camera that swings to and fro within 3 s and trembles, by shares of a box's width.

    The motion that was given with it is dropped: it is not what this camera does.
    """
    rng, total = np.random.default_rng(sum(sequence.name.encode())), len(sequence.frames)
    width = float(np.median(np.concatenate([frame.xyxy[:, 2] - frame.xyxy[:, 0] for frame in sequence.frames])))
    time_s = np.arange(total) / sequence.fps
    swing = np.column_stack((np.sin(2 * np.pi * time_s / 3), 0.3 * np.sin(2 * np.pi * time_s / 2.2)))
    place = np.cumsum(width * (0.4 * swing + rng.normal(0, (0.16, 0.08), (total, 2))), axis=0)
    frames = [
        replace(frame, xyxy=frame.xyxy + np.tile(at, 2).astype(np.float32))
        for frame, at in zip(sequence.frames, place, strict=True)
    ]
    truth = [
        [
            *row[:2],
            *(f"{float(value) + shift:.2f}" for value, shift in zip(row[2:4], place[int(row[0]) - 1], strict=True)),
            *row[4:],
        ]
        for row in sequence.truth
    ]
    return replace(sequence, frames=frames, truth=truth, motion={})


def follow(sequence: Sequence, tracker: Tracker, with_motion: bool) -> list[Tracks]:
    given = sequence.motion if with_motion else {}
    return [
        tracker.update(frame, round(number * 1e9 / sequence.fps), given.get(number))
        for number, frame in zip(sequence.numbers, sequence.frames, strict=True)
    ]


def score(sequences: list[Sequence], found: list[list[Tracks]]) -> dict[str, dict[str, float]]:
    """Set → TrackEval's figures over all its sequences."""
    scores = {}
    for group in dict.fromkeys(sequence.group for sequence in sequences):
        mine = [(s, t) for s, t in zip(sequences, found, strict=True) if s.group == group]
        with tempfile.TemporaryDirectory() as folder:
            scores[group] = (
                score_kitti(mine, Path(folder)) if group == "kitti" else score_mot(mine, Path(folder), group)
            )
    return scores


def score_mot(mine: list[tuple[Sequence, list[Tracks]]], folder: Path, group: str) -> dict[str, float]:
    files = {}
    for sequence, tracks in mine:
        files[sequence.name] = (folder / f"{sequence.name}-gt.txt", folder / f"{sequence.name}.txt")
        files[sequence.name][0].write_text("\n".join(",".join(row) for row in sequence.truth))
        write_tracks(files[sequence.name][1], tracks)
    return evaluate(files, {"mot15": "MOT15", "mot20": "MOT20"}.get(group, "MOT17"))[COMBINED]


def score_kitti(mine: list[tuple[Sequence, list[Tracks]]], folder: Path) -> dict[str, float]:
    """KITTI's own rules, through TrackEval's reader of KITTI labels."""
    import contextlib
    import io

    import trackeval

    (folder / "label_02").mkdir()
    (folder / "found" / "edge").mkdir(parents=True)
    for sequence, tracks in mine:
        (folder / "label_02" / f"{sequence.name}.txt").write_text("\n".join(map(kitti_label, sequence.truth)))
        (folder / "found" / "edge" / f"{sequence.name}.txt").write_text("\n".join(kitti_result(sequence, tracks)))
    lines = (f"{sequence.name} empty 000000 {len(sequence.frames):06d}" for sequence, _ in mine)
    (folder / "evaluate_tracking.seqmap.training").write_text("\n".join(lines) + "\n")
    quiet = {"PRINT_CONFIG": False}
    with contextlib.redirect_stdout(io.StringIO()):
        places = {"GT_FOLDER": str(folder), "TRACKERS_FOLDER": str(folder / "found"), "TRACKER_SUB_FOLDER": ""}
        dataset = trackeval.datasets.Kitti2DBox({**places, **quiet})
        hota, identity, clear = (
            trackeval.metrics.HOTA(),
            trackeval.metrics.Identity(quiet),
            trackeval.metrics.CLEAR(quiet),
        )
        each: dict[str, tuple[Any, Any, Any]] = {}
        for sequence, _ in mine:
            raw = dataset.get_raw_seq_data("edge", sequence.name)
            ready = dataset.get_preprocessed_seq_data(raw, sequence.class_name)
            each[sequence.name] = hota.eval_sequence(ready), identity.eval_sequence(ready), clear.eval_sequence(ready)
        h, i, c = (
            metric.combine_sequences({name: found[k] for name, found in each.items()})
            for k, metric in enumerate((hota, identity, clear))
        )
    shares = {key: 100 * float(h[key].mean()) for key in ("HOTA", "DetA", "AssA")}
    return {**shares, "IDF1": 100 * float(i["IDF1"]), "IDSW": int(c["IDSW"])}


def kitti_label(row: list[str]) -> str:
    frame, number, x, y, w, h, occlusion, kind, truncation = (float(value) for value in row[:9])
    name = KITTI_TYPES[int(kind)]
    return (
        f"{frame - 1:.0f} {number:.0f} {name} {truncation:.0f} {occlusion:.0f} -1 {x} {y} {x + w} {y + h} 0 0 0 0 0 0 0"
    )


def kitti_result(sequence: Sequence, frames: list[Tracks]) -> Iterator[str]:
    name = sequence.class_name.capitalize()
    for number, tracks in enumerate(frames):
        for track_id, box in zip(tracks.track_id.tolist(), tracks.xyxy.tolist(), strict=True):
            corners = " ".join(f"{value:.2f}" for value in box)
            yield f"{number} {track_id} {name} 0 0 -1 {corners} 0 0 0 0 0 0 0 1"
