"""Our tracker and the peers that pip installs, side by side on real sequences: quality, lost frames, time per frame.

    python tests/bench/tracking.py DATA [--only REGEX] [--frames all|div2|div3|drop] [--motion]     quality
    python tests/bench/tracking.py --speed [--plot cost.png]                                        CPU time per frame
    python tests/bench/tracking.py --soak 1000000                                                   memory under churn

DATA has ``index.json`` and, per sequence, det.txt, gt.txt and perhaps gmc.txt. Peers that are not
installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from edge.commands.track_eval import COMBINED, evaluate
from edge.interfaces import Tracker
from edge.mot_text import read_detections, read_motion, write_tracks
from edge.trackers.choose import NAMES, open_tracker
from edge.types import Detections, Float64, Tracks

SIZES = (10, 50, 100, 200, 500, 1000)
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


class Peer:
    """A tracker of the package ``trackers`` behind our interface."""

    def __init__(self, class_name: str, **options: Any) -> None:
        import trackers

        self._tracker = getattr(trackers, class_name)(**options)

    def update(self, detections: Detections, time_ns: int, motion: Float64 | None = None) -> Tracks:
        import supervision

        given = supervision.Detections(xyxy=detections.xyxy, confidence=detections.score)
        found = self._tracker.update(given if len(detections) else supervision.Detections.empty())
        if found.tracker_id is None or len(found) == 0:
            return Tracks.empty()
        kept = found.tracker_id >= 0
        n = int(kept.sum())
        return Tracks(
            track_id=found.tracker_id[kept].astype(np.int64),
            xyxy=found.xyxy[kept].astype(np.float32),
            score=np.ones(n, np.float32),
            class_id=np.zeros(n, np.int32),
            age=np.zeros(n, np.float32),
            velocity=np.zeros((n, 2), np.float32),
            detection=np.full(n, -1, np.int32),
        )


def candidates(only: str) -> dict[str, Callable[[], Tracker]]:
    """Name → a function that opens a fresh tracker."""
    found: dict[str, Callable[[], Tracker]] = {
        "edgeloop" if name == "edge" else f"edgeloop as {name}": (lambda name=name: open_tracker(name))
        for name in NAMES
    }
    try:
        import trackers  # noqa: F401
    except ImportError:
        print("the package 'trackers' is not installed: no peers")
    else:
        for class_name in ("SORTTracker", "ByteTrackTracker", "OCSORTTracker", "CBIoUTracker"):
            found[f"trackers {class_name}"] = lambda class_name=class_name: Peer(class_name)
        found["trackers BoTSORTTracker"] = lambda: Peer("BoTSORTTracker", enable_cmc=False)
    return {name: make for name, make in found.items() if re.search(only, name)}


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
    """The same sequence with frames missing; times stay, numbers of frames in the truth close up."""
    total = len(sequence.frames)
    if how == "all":
        return sequence
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
        hota, identity = trackeval.metrics.HOTA(), trackeval.metrics.Identity(quiet)
        each: dict[str, tuple[Any, Any]] = {}
        for sequence, _ in mine:
            raw = dataset.get_raw_seq_data("edge", sequence.name)
            ready = dataset.get_preprocessed_seq_data(raw, sequence.class_name)
            each[sequence.name] = hota.eval_sequence(ready), identity.eval_sequence(ready)
        h = hota.combine_sequences({name: pair[0] for name, pair in each.items()})
        i = identity.combine_sequences({name: pair[1] for name, pair in each.items()})
    return {**{key: 100 * float(h[key].mean()) for key in ("HOTA", "DetA", "AssA")}, "IDF1": 100 * float(i["IDF1"])}


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


def crowd(num_objects: int, num_frames: int) -> list[Detections]:
    """Walkers on a canvas that grows with their number; one detection in 20 is missing, one in 50 is false."""
    rng = np.random.default_rng(num_objects)
    side = 300 * num_objects**0.5
    place, speed = rng.uniform(0, side, (num_objects, 2)), rng.normal(0, 3, (num_objects, 2))
    size = np.column_stack((rng.uniform(40, 80, num_objects), rng.uniform(90, 150, num_objects)))
    frames = []
    for _ in range(num_frames):
        speed[(place < 0) | (place > side)] *= -1
        place = place + speed
        kept = rng.random(num_objects) > 0.05
        false = rng.uniform(0, side, (rng.poisson(0.02 * num_objects), 2))
        corners = np.concatenate((place - size / 2, place + size / 2), axis=1)[kept] + rng.normal(
            0, 1.5, (kept.sum(), 4)
        )
        box = np.concatenate((corners, np.concatenate((false, false + 60), axis=1)))
        scores = np.concatenate((rng.beta(8, 2, len(corners)), rng.uniform(0.1, 0.5, len(false))))
        frames.append(Detections(box.astype(np.float32), scores.astype(np.float32), np.zeros(len(box), np.int32)))
    return frames


def cost_ms(make: Callable[[], Tracker], num_objects: int) -> tuple[float, float]:
    """Median and 99th percentile of the CPU time per frame, after 20 frames of warm-up."""
    tracker, spent = make(), []
    for k, frame in enumerate(crowd(num_objects, 200 if num_objects <= 200 else 80)):
        started = time.process_time()
        tracker.update(frame, k * 33_333_333)
        spent.append(1e3 * (time.process_time() - started))
    return float(np.median(spent[20:])), float(np.percentile(spent[20:], 99))


def run_speed(only: str, plot: Path | None) -> None:
    costs = {}
    for name, make in candidates(only).items():
        costs[name] = [cost_ms(make, size) for size in SIZES]
        cells = (f"{size}: {median:.2f}/{p99:.2f}" for size, (median, p99) in zip(SIZES, costs[name], strict=True))
        print(f"{name:28}", "  ".join(cells), flush=True)
    if plot:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        for name, pairs in costs.items():
            pyplot.loglog(SIZES, [median for median, _ in pairs], marker="o", label=name)
        pyplot.xlabel("objects")
        pyplot.ylabel("CPU ms per frame (median)")
        pyplot.grid(which="both", alpha=0.3)
        pyplot.legend(fontsize=7)
        pyplot.savefig(plot, dpi=120)


def run_soak(num_frames: int) -> None:
    """Random births and deaths; prints resident memory as it goes."""
    import psutil

    rng = np.random.default_rng(0)
    tracker, last_id = open_tracker(), 0
    place = rng.uniform(0, 1800, (8, 2))
    for k in range(num_frames):
        gone = rng.random(8) < 0.02
        place[gone] = rng.uniform(0, 1800, (int(gone.sum()), 2))
        place += rng.normal(0, 2, (8, 2))
        box = np.concatenate((place, place + np.array([60, 130])), axis=1).astype(np.float32)
        score_now = rng.uniform(0.5, 1, 8).astype(np.float32)
        tracks = tracker.update(Detections(box, score_now, np.zeros(8, np.int32)), k * 33_333_333)
        last_id = max(last_id, int(tracks.track_id.max(initial=0)))
        if k % max(1, num_frames // 20) == 0:
            print(f"frame {k}: {psutil.Process().memory_info().rss / 2**20:.1f} MiB, last id {last_id}", flush=True)


def run_quality(data: Path, only: str, how: str, with_motion: bool) -> None:
    sequences = [thinned(sequence, how) for sequence in load(data)]
    for name, make in candidates(only).items():
        scores = score(sequences, [follow(sequence, make(), with_motion) for sequence in sequences])
        mean = {key: float(np.mean([row[key] for row in scores.values()])) for key in ("HOTA", "DetA", "AssA", "IDF1")}
        cells = [f"{key} {value:.1f}" for key, value in mean.items()]
        cells += [f"{group} {row['HOTA']:.1f}" for group, row in scores.items()]
        print(f"{name:28}", "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--only", default="", help="regular expression on the names")
    parser.add_argument("--frames", default="all", choices=["all", "div2", "div3", "drop"])
    parser.add_argument("--motion", action="store_true", help="give the camera motion of gmc.txt")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--soak", type=int, metavar="FRAMES")
    given = parser.parse_args()
    if given.speed:
        run_speed(given.only, given.plot)
    elif given.soak:
        run_soak(given.soak)
    elif given.data:
        run_quality(given.data, given.only, given.frames, given.motion)
    else:
        parser.error("give DATA, --speed or --soak")


if __name__ == "__main__":
    main()
