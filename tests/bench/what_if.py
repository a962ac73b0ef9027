"""How long a week of one camera takes to be evaluated again: python tests/bench/what_if.py [FRAMES]

The built-in street through the shipped model, 90 s of it again and again with new tracks: 600,000 frames at 10 fps.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import edge
from edge.config.analytics import AnalyticsSettings
from edge.trackstore.block import encode
from edge.trackstore.collect import FrameFacts, block_of
from edge.trackstore.compact import compact
from edge.trackstore.evaluate import evaluate
from edge.trackstore.parts import PartWriter, Span, parts_in
from edge.trackstore.read import Reader
from edge.trackstore.rounding import Rounding
from edge.trackstore.store import head_of
from edge.types import Detections, Tracks

SIZE, SCENE, BLOCK = (1280, 720), 900, 200
MAX_PART_BYTES = 8 << 20
RULES = AnalyticsSettings.model_validate(
    {
        "lines": [{"name": "mid", "points_share": [[0.5, 0.05], [0.5, 0.95]]}],
        "zones": [
            {
                "name": "left",
                "points_share": [[0.02, 0.05], [0.4, 0.05], [0.4, 0.95], [0.02, 0.95]],
                "loiter_s": 20,
                "stopped_s": 10,
            }
        ],
    }
)


def scene() -> list[tuple[Detections, Tracks]]:
    """What the shipped model and the tracker make of the street."""
    source, rounding = f"synthetic://street?seed=3&size={SIZE[0]}x{SIZE[1]}&fps=10&frames={SCENE}", Rounding()
    found = []
    for result in edge.track(source):
        assert result.tracks is not None
        found.append((result.detections, rounding.rounded(result.tracks, result.frame)))
    return found


def write(folder: Path, count: int) -> None:
    frames = scene()
    more: dict[str, Any] = {"model_anchors": (), "anchors": (), "thresholds": {}}
    names = tuple(frames[0][0].classes)
    head = head_of("door", "run", {}, {}, classes=names, width=SIZE[0], height=SIZE[1], **more)
    chance, ids, time_ns, part = np.random.default_rng(0), 1 << 10, 0, None
    for first in range(0, count, BLOCK):
        facts = []
        for number in range(first, min(count, first + BLOCK)):
            found, tracks = frames[number % SCENE]
            time_ns += 100_000_000 + int(chance.integers(-3_000_000, 3_000_000))
            anew = Tracks(tracks.track_id + number // SCENE * ids, *(getattr(tracks, n) for n in tracks.__slots__[1:]))
            facts.append(FrameFacts(time_ns, time_ns, 0, number, time_ns, (SIZE[1], SIZE[0], 3), found, anew, (), {}))
        if part is None or part.num_bytes > MAX_PART_BYTES:
            if part is not None:
                part.close()
            part = PartWriter(folder / "door", head.as_json(), facts[0].captured_ns)
        block = block_of(facts, [], {}, (), ((), head.steps, 0))
        part.append(Span(facts[0].captured_ns, time_ns), encode(block, head.steps))
    if part is not None:
        part.close()
    for path in parts_in(folder / "door"):
        # as all but the last hour is
        list(compact(path))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600_000
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), count)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.tracks"))
        reader = Reader(Path(folder))
        before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        started_s, wall_s = time.process_time(), time.perf_counter()
        events = sum(1 for _ in evaluate(reader.blocks("door", with_candidates=False), RULES))
        spent_s, passed_s = time.process_time() - started_s, time.perf_counter() - wall_s
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before_mb
        print(
            f"{count} frames, {size / 1e6:.0f} MB: {events} events in {spent_s:.1f} s of one core, "
            f"{passed_s:.1f} s passed"
        )
        print(f"  {memory_mb:.0f} MB of memory beyond what writing took")


if __name__ == "__main__":
    main()
