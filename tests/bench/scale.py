"""How the cost of a frame grows: with streams, objects, batch and picture size. One table, one picture.

    python tests/bench/scale.py [--plot docs/scale.png] [--json FILE] [--quick]

Milliseconds are processor time, of all processes where streams are many. The engine is the null engine except for the
batches, which run the shipped INT8 street detector.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

sys.path.insert(0, str(Path(__file__).parent))
from overlay import result

from edge.bench.loop import measure_engine, measure_loop
from edge.config.load import parse_config
from edge.model import open_model
from edge.models.preprocess import Preprocessor
from edge.overlay import Overlay, StreamState
from edge.result_json import ResultEncoder
from edge.scene.street import Street
from edge.trackers.choose import open_tracker

MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
STREAMS = (1, 2, 4, 8, 16, 32, 64)
OBJECTS = (1, 3, 10, 30, 100, 300, 1000)
BATCHES = (1, 2, 4, 8, 16, 32)
SIZES = ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))
CLIP_SIZE, CLIP_FRAMES = (320, 180), 1500
CLASSES = ("person", "bicycle", "car")


def cpu_ms(work: Callable[[int], object], count: int) -> float:
    """Median processor time of one call, after a few to warm up; ``work`` gets the number of the call."""
    spent = []
    for number in range(count + 5):
        started = time.thread_time_ns()
        work(number)
        spent.append((time.thread_time_ns() - started) / 1e6)
    return statistics.median(spent[5:])


def by_streams(folder: Path, seconds: float) -> list[dict[str, float]]:
    """Small clips, every frame of each, through the whole line with the null engine."""
    street = Street(7, *CLIP_SIZE, 30, 6)
    clip = folder / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 30, CLIP_SIZE)
    for index in range(CLIP_FRAMES):
        writer.write(street.render(index)[0])
    writer.release()
    rows = []
    for count in STREAMS:
        streams = [
            {"name": f"s{number}", "source": str(clip), "frames": "every", "sinks": ["jsonl:/dev/null"]}
            for number in range(count)
        ]
        model = {"path": str(MODEL), "engine": "null", "max_batch": 16}
        loop = measure_loop(parse_config({"model": model, "streams": streams}, where="scale"), seconds)
        stages = [sum(stage["median_ms"] for stage in one["stages"].values()) for one in loop["streams"].values()]
        rows.append(
            {"streams": count, "fps": loop["fps"], "cpu_ms": loop["cpu_ms_per_frame"], "stages_ms": max(stages)}
        )
    return rows


def by_objects(num: int) -> list[dict[str, float]]:
    """Tracking, overlay and JSON of one 720p frame."""
    rows = []
    for count in OBJECTS:
        frames = [result(number, 1280, 720, count) for number in range(30)]
        tracker, overlay = open_tracker(), Overlay(CLASSES)
        encoder = ResultEncoder(CLASSES)
        track_ms = cpu_ms(lambda k, f=frames, t=tracker: t.update(f[k % 30].prediction, k * 33_000_000), num)
        drawn = [result(number, 1280, 720, count) for number in range(num + 5)]
        overlay_ms = cpu_ms(lambda k, d=drawn, o=overlay: o.draw(d[k], StreamState("live", 25.0, 40.0)), num)
        json_ms = cpu_ms(lambda k, f=frames, r=encoder: r.encode(f[k % 30]), num)
        rows.append({"objects": count, "track_ms": track_ms, "overlay_ms": overlay_ms, "json_ms": json_ms})
    return rows


def by_batch(seconds: float) -> list[dict[str, float]]:
    """The shipped detector, the same picture in every row. On the clock a batch may be shorter: it takes all cores."""
    rows = []
    street = Street(7, 1280, 720, 30, 12)
    for count in BATCHES:
        model = open_model(MODEL, engine="ort", max_batch=count)
        bare = measure_engine(model, [street.render(0)[0]] * count, seconds)
        model.close()
        rows.append({"batch": count, "fps": bare.fps, "cpu_ms": bare.cpu_ms_per_frame, "batch_ms": bare.median_ms})
    return rows


def by_size(num: int) -> list[dict[str, float]]:
    """Letterbox, overlay with 20 objects and JPEG of one frame."""
    spec = open_model(MODEL, engine="null").manifest.input
    rows = []
    for width, height in SIZES:
        image = Street(7, width, height, 30, 12).render(0)[0]
        fit, overlay = Preprocessor(spec, 1), Overlay(CLASSES)
        drawn = [result(number, width, height, 20) for number in range(num + 5)]
        rows.append(
            {
                "height": height,
                "megapixels": round(width * height / 1e6, 2),
                "letterbox_ms": cpu_ms(lambda _, f=fit, i=image: f.images([i]), num),
                "overlay_ms": cpu_ms(lambda k, d=drawn, o=overlay: o.draw(d[k], StreamState("live", 25.0, 40.0)), num),
                "jpeg_ms": cpu_ms(lambda _, i=image: cv2.imencode(".jpg", i, [cv2.IMWRITE_JPEG_QUALITY, 80]), num),
            }
        )
    return rows


def show(rows: list[dict[str, float]]) -> None:
    """Print a table in Markdown."""
    keys = list(rows[0])
    print("\n| " + " | ".join(keys) + " |\n|" + "---|" * len(keys))
    for row in rows:
        print("| " + " | ".join(f"{row[key]:g}" if key in keys[:1] else f"{row[key]:.3g}" for key in keys) + " |")


def draw(report: dict[str, Any], path: Path) -> None:
    """One plot per table, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    for place, (name, rows) in zip(figure.subplots(2, 2).flat, report.items(), strict=True):
        first, *rest = rows[0]
        for key in (key for key in rest if key.endswith("_ms")):
            place.plot([row[first] for row in rows], [row[key] for row in rows], marker="o", label=key)
        place.set(xscale="log", yscale="log", xlabel=first, ylabel="ms", title=f"by {name}")
        place.grid(alpha=0.3)
        place.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Measure all four, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    seconds, num = (1.0, 10) if chosen.quick else (5.0, 60)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = {"streams": by_streams(Path(folder), seconds)}
    report |= {"objects": by_objects(num), "batch": by_batch(seconds), "size": by_size(num)}
    for rows in report.values():
        show(rows)
    if chosen.plot:
        draw(report, chosen.plot)
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
