"""The population of the tests of ``edge accuracy``: a day of the synthetic street, seen by the shipped detector.

    python tests/bench/accuracy_population.py tests/data/accuracy_street.json

24 streets stand for the hours of a day. Once a second a picture is judged against the truth, at IoU 0.5 with the right
class; every five seconds of the line in the middle are counted and compared with who crossed it. What a sampler may
know before anybody looks stands next to it: what the detector and a teacher see.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from edge.config.load import parse_config
from edge.model import open_model
from edge.models.shipped import FOLDER
from edge.pipeline.replay import Rerun
from edge.pipeline.swap.agreement import matched
from edge.scene.truth import MIN_VISIBILITY
from edge.sources.synthetic import open_synthetic
from edge.types import Detections, Frame

HOURS, SECONDS, FPS, SIZE = 24, 30, 5, (480, 270)
SEGMENT_S = 5
# of a detector that is set too strictly: it misses some, and sees a few that are not there
SCORE = 0.55
LINE = {"name": "mid", "points_share": [(0.5, 0.0), (0.5, 1.0)]}


def one_hour(hour: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of pictures (hour, seen, teacher, tp, fp, fn), rows of segments (hour, counted, near, true)."""
    frames = SECONDS * FPS
    teacher = open_model(FOLDER / "street-nano.onnx", engine="ort", threads=1)
    objects = 3 + 9 * (6 <= hour < 20)
    scene = open_synthetic(
        f"synthetic://street?seed={500 + hour}&size={SIZE[0]}x{SIZE[1]}&objects={objects}&fps={FPS}&frames={frames}"
    )
    config = parse_config(
        {
            "model": {"path": str(FOLDER / "street-nano-int8.onnx"), "engine": "ort", "threads": 1},
            "streams": [{"name": "door", "source": "x", "score": SCORE, "analytics": {"lines": [LINE]}}],
        },
        where="population",
    )
    pictures, segments = [], [[hour, 0, 0, 0] for _ in range(SECONDS // SEGMENT_S)]
    feet: dict[int, float] = {}
    with Rerun(config, config.streams) as rerun:
        for seq in range(frames):
            picture = scene.read()
            assert picture is not None
            time_ns = seq * 10**9 // FPS
            result = rerun.result(Frame("door", 0, seq, time_ns, time_ns, picture[0]), time_ns)
            row = segments[min(seq // (SEGMENT_S * FPS), len(segments) - 1)]
            row[1] += sum(event.kind == "line_crossed" for event in result.events)
            truth = scene.truth
            shown = truth.visibility >= MIN_VISIBILITY
            middles = (truth.xyxy[shown, 0] + truth.xyxy[shown, 2]) / 2 - SIZE[0] / 2
            now = dict(zip(truth.track_id[shown].tolist(), middles.tolist(), strict=True))
            row[3] += sum(one in feet and feet[one] * x < 0 for one, x in now.items())
            feet = {**feet, **now}
            if seq % FPS:
                continue
            found = result.detections
            found = found[found.score >= SCORE]
            boxes = (found.xyxy[:, 0] + found.xyxy[:, 2]) / 2
            row[2] += int((np.abs(boxes - SIZE[0] / 2) < SIZE[0] / 8).sum())
            expected = Detections(truth.xyxy[shown], np.ones(shown.sum(), np.float32), truth.class_id[shown])
            tp = len(matched(expected, found))
            (other,) = teacher.predict([picture[0]])
            assert isinstance(other, Detections)
            other = other[other.score >= 0.35]
            doubts = len(found) + len(other) - 2 * len(matched(other, found))
            pictures.append([hour, len(found), doubts, tp, len(found) - tp, len(expected) - tp])
    return pictures, segments


def main() -> None:
    pictures: list[list[int]] = []
    segments: list[list[int]] = []
    with ProcessPoolExecutor(2) as workers:
        for hour, found in enumerate(workers.map(one_hour, range(HOURS))):
            pictures += found[0]
            segments += found[1]
            print(hour, np.sum(found[0], axis=0)[1:].tolist(), np.sum(found[1], axis=0)[1:].tolist(), flush=True)
            rows = json.dumps({"pictures": pictures, "segments": segments}, separators=(",", ":"))
            Path(sys.argv[1]).write_text(rows.replace("],[", "],\n[") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
