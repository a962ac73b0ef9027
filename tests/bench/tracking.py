"""Our tracker and the peers that pip installs, side by side on real sequences: quality, lost frames, time per frame.

    python tests/bench/tracking.py DATA [--only REGEX] [--frames all|div2|div3|drop|shaken|disturbedN] [--backwards]
                                        [--motion]
    python tests/bench/tracking.py DATA --losses                                   what missing frames cost
    python tests/bench/tracking.py --speed [--plot docs/tracking-growth.png]       CPU time per frame, growth
    python tests/bench/tracking.py --soak 1000000                                  memory under churn

DATA has ``index.json`` and, per sequence, det.txt, gt.txt and perhaps gmc.txt. Peers that are not
installed are left out.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from tracking_data import Sequence, backwards, follow, load, score, thinned
from tracking_load import GROWTH_FROM, SIZES, cost_ms, draw_growth, growth, run_soak

from edge.interfaces import EmbedBoxes, Tracker
from edge.trackers.choose import NAMES, open_tracker
from edge.types import Detections, Float64, Tracks

KINDS = ("all", "div2", "div3", "drop")
PEERS: dict[str, dict[str, Any]] = {
    "SORTTracker": {},
    "ByteTrackTracker": {},
    "OCSORTTracker": {},
    "CBIoUTracker": {},
    "BoTSORTTracker": {"enable_cmc": False},
}
KEYS = ("HOTA", "DetA", "AssA", "IDF1")


class Peer:
    """A tracker of the package ``trackers`` behind our interface."""

    def __init__(self, class_name: str, *, has_time: bool, **options: Any) -> None:
        """Args: its name there, whether it is told the time of each frame, what it is made with."""
        import trackers

        self._tracker = getattr(trackers, class_name)(**options)
        self._has_time = has_time

    def update(
        self, detections: Detections, time_ns: int, motion: Float64 | None = None, look: EmbedBoxes | None = None
    ) -> Tracks:
        import supervision

        given = supervision.Detections(xyxy=detections.xyxy, confidence=detections.score)
        if len(detections) == 0:
            given = supervision.Detections.empty()
            given.confidence = np.zeros(0, np.float32)
        found = self._tracker.update(given, **({"timestamp": time_ns / 1e9} if self._has_time else {}))
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
        for class_name, options in PEERS.items():
            for has_time in (False, True):
                title = f"trackers {class_name}" + (" told the time" if has_time else "")
                found[title] = lambda c=class_name, o=options, t=has_time: Peer(c, has_time=t, **o)
    return {name: make for name, make in found.items() if re.search(only, name)}


def run_speed(only: str, plot: Path | None) -> None:
    costs = {}
    for name, make in candidates(only).items():
        costs[name] = [cost_ms(make, size) for size in SIZES]
        cells = (f"{size}: {median:.2f}/{p99:.2f}" for size, (median, p99) in zip(SIZES, costs[name], strict=True))
        exponent = growth(SIZES, [median for median, _ in costs[name]])
        print(f"{name:28}", "  ".join(cells), f"  n^{exponent:.2f} from {GROWTH_FROM}", flush=True)
    if plot:
        draw_growth(costs, plot)


def judged(sequences: list[Sequence], make: Callable[[], Tracker], with_motion: bool) -> dict[str, dict[str, float]]:
    """Set, and ``mean`` over the sets → TrackEval's figures."""
    scores = score(sequences, [follow(sequence, make(), with_motion) for sequence in sequences])
    mean = {key: float(np.mean([row[key] for row in scores.values()])) for key in KEYS}
    return {**scores, "mean": {**mean, "IDSW": sum(row["IDSW"] for row in scores.values())}}


def run_quality(data: Path, only: str, how: str, with_motion: bool, is_backwards: bool) -> None:
    whole = [backwards(sequence) if is_backwards else sequence for sequence in load(data)]
    sequences = [thinned(sequence, how) for sequence in whole]
    for name, make in candidates(only).items():
        scores = judged(sequences, make, with_motion)
        cells = [f"{key} {value:.1f}" for key, value in scores.pop("mean").items()]
        cells += [f"{group} {row['HOTA']:.1f}" for group, row in scores.items()]
        print(f"{name:28}", "  ".join(cells), flush=True)


def run_losses(data: Path, only: str) -> None:
    """Mean HOTA with all frames, and what is lost where frames are missing."""
    whole = list(load(data))
    kinds = {how: [thinned(sequence, how) for sequence in whole] for how in KINDS}
    print("| tracker |", " | ".join(KINDS), "|", " | ".join(f"loss {how}" for how in KINDS[1:]), "|", flush=True)
    for name, make in candidates(only).items():
        hota = [judged(sequences, make, False)["mean"]["HOTA"] for sequences in kinds.values()]
        cells = [f"{value:.1f}" for value in hota] + [f"{hota[0] - value:.1f}" for value in hota[1:]]
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--only", default="", help="regular expression on the names")
    parser.add_argument("--frames", default="all", help=f"{', '.join(KINDS)}, shaken, or disturbedN by seed N")
    parser.add_argument("--backwards", action="store_true")
    parser.add_argument("--motion", action="store_true", help="give the camera motion of gmc.txt")
    parser.add_argument("--losses", action="store_true", help="every 2nd, every 3rd frame, a random third missing")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--soak", type=int, metavar="FRAMES")
    parser.add_argument("--objects", type=int, default=8, help="of the soak")
    given = parser.parse_args()
    if given.speed:
        run_speed(given.only, given.plot)
    elif given.soak:
        run_soak(given.soak, given.objects)
    elif given.data and given.losses:
        run_losses(given.data, given.only)
    elif given.data:
        run_quality(given.data, given.only, given.frames, given.motion, given.backwards)
    else:
        parser.error("give DATA, --speed or --soak")


if __name__ == "__main__":
    main()
