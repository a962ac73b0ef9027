"""One day and five nights on the synthetic street: what the night shift brings, and what a wrong teacher does to it.

    python tests/bench/night_course.py FOLDER [--nights 5] [--poisoned 20] [--epochs 24]

The site's first model learns streets by day, with people and cars. Then two cameras show dusk, and bicycles. Each day
the model that runs keeps frames, each night a shift labels them with the shipped street detector, learns, judges and
replaces the model or not. Judged on the cameras' own later hours, on other streets at dusk, and on sealed ones by day.
FOLDER keeps everything, and a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from night_street import DAY, DUSK, film, pictures, street_of, write_labelled
from night_teachers import Fault, write_poisoned

from edge.config.night import NightSettings
from edge.config.schema import StreamSettings
from edge.metrics.clock import WallClock
from edge.model import find_manifest, open_model
from edge.night.keeper import Keeper
from edge.night.shift import Chain, Job, adopt, report_of
from edge.scene.truth import CLASSES
from edge.trackers.choose import open_tracker
from edge.types import Detections, Frame, Result
from export.config import parse_config
from export.data.open_data import open_dataset
from export.night.child import work
from export.night.judge import Recalls, skill
from export.to_onnx import export_onnx
from export.training.train import train

TEACHER = ROOT / "edge" / "models" / "street-nano.onnx"
CAMERAS = ("gate", "yard")
DAY_NS, STEP_NS = 86_400 * 10**9, 10**9
# a second that is filmed stands for so many of the day, that it has more than a few moments
HURRY = 6
BEGIN_NS = 1_790_000_000 * 10**9
FRAMES_A_DAY = 160
# objects of a camera at a time, those out of sight included
BUSY = 18


def made(folder: Path, name: str, shown: Any) -> str:
    """A labelled set, made once."""
    labels = folder / name / "labels.json"
    return f"coco:{labels}" if labels.is_file() else write_labelled(folder / name, shown)


class Course:
    """The street, its first model, and what judges."""

    def __init__(self, folder: Path, epochs: int) -> None:
        data = folder / "data"
        self.folder = folder
        self.base = made(data, "base", pictures(1000, 700, DAY))
        self.base_val = made(data, "base-val", pictures(3000, 40, DAY))
        self.public = made(data, "public", pictures(5000, 150, DAY))
        self.replay = made(data, "replay", pictures(1000, 120, DAY))
        # the same cameras at other hours than those that are filmed, and streets of nobody at dusk
        later = (
            shown for place in range(2) for shown in film(street_of(place, DUSK, num_objects=BUSY), 60_000, 60, 15)
        )
        self.later = made(data, "later", later)
        self.elsewhere = made(data, "elsewhere", pictures(7000, 120, DUSK))
        self.start = self._first_network(epochs)
        self.first = folder / "first.onnx"
        if not self.first.is_file():
            export_onnx(self.start, self.first)

    def _first_network(self, epochs: int) -> Path:
        run = self.folder / "first"
        data = {"train": self.base, "val": self.base_val, "width": 416, "height": 224}
        optim = {"optimizer": "adamw", "lr": 0.003, "epochs": epochs, "batch_size": 16, "warmup_steps": 60}
        tree = {
            "task": "detect",
            "name": "site",
            "data": data | {"crop_width": 224, "crop_height": 160},
            "optim": optim | {"weight_decay": 0.05, "plain_epochs": 3, "ema_decay": 0.998},
            "augment": {"mosaic": 0.0, "focus": 0.8, "scale_min": 0.7, "scale_max": 1.4},
            "run": {"threads": 1, "eval_every": 8, "save_every_s": 30},
        }
        if not (run / "done").is_file():
            train(parse_config(tree, "first"), run, resume=True)
            (run / "done").write_text("")
        return run / "best.pt"

    def figures(self, model: Path) -> dict[str, float]:
        """Recall from the score on that is shown, at IoU 0.5, and AP50."""
        score = find_manifest(model).thresholds.score
        found: dict[str, float] = {"public_ap50": skill(model, open_dataset(self.public, "detect"), 1).ap50}
        for name, uri in (("later", self.later), ("elsewhere", self.elsewhere)):
            recalls = Recalls(score, CLASSES)
            found[f"{name}_ap50"] = skill(model, open_dataset(uri, "detect"), 1, recalls).ap50
            for kind in CLASSES:
                counts = [count for (_, other), count in recalls.counts.items() if other == kind]
                truth, hits = (sum(column) for column in zip(*counts, strict=True))
                found[f"{name}_{kind}"] = round(hits / truth, 4)
        return found


def keep_a_day(folder: Path, settings: NightSettings, model: Path, day: int, count: int = FRAMES_A_DAY) -> None:
    """Let the model that runs look at a day of both cameras, half of it at dusk, and keep what is worth a label."""
    keeper = Keeper(settings, folder, WallClock(offset_ns=BEGIN_NS + day * DAY_NS))
    with closing(open_model(model, engine="ort", threads=1)) as running:
        for place, camera in enumerate(CAMERAS):
            sink, tracker = keeper.sink_of(StreamSettings(name=camera, source="rtsp://camera")), open_tracker()
            assert sink is not None
            shows = [
                film(street_of(place, light, num_objects=BUSY), day * 4000 + 500, count // 2, 5)
                for light in (DAY, DUSK)
            ]
            for number, (image, _) in enumerate(shown for film in shows for shown in film):
                frame = Frame(camera, 0, number, HURRY * number * STEP_NS, number * STEP_NS, image)
                found = running.predict([image])[0]
                assert isinstance(found, Detections)
                sink.write(Result(frame, found, tracker.update(found, frame.time_ns)), frame.luma.copy)
                keeper.write_waiting()
    print(f"day {day + 1}: {dict(keeper.stats())}", flush=True)


def night(folder: Path, settings: NightSettings, first: Path, name: str) -> dict[str, Any]:
    """One shift to its end; the report."""
    chain = Chain.read(folder, first)
    running = Path(chain.links[-1]["model"]) if chain.links else first
    job = Job(name, "site", first, running, settings)
    if report_of(folder, name) is None:
        if Job.read(folder) != job:
            job.write(folder)
        # in this process: on a busy machine one of idle priority would wait for hours
        work(folder, job)
    found = report_of(folder, name)
    assert found is not None
    return found


def settings_of(course: Course, teachers: list[Path], **more: Any) -> NightSettings:
    values: dict[str, Any] = {"start": course.start, "teachers": teachers, "sealed": [course.public]}
    values |= {"replay": [course.replay], "processor_minutes": 5.0, "min_frames": 40}
    return NightSettings(**values | {"random_per_hour": 20, "doubtful_per_hour": 30} | more)


def run_nights(course: Course, count: int) -> None:
    """Five nights with the right teacher."""
    folder, settings = course.folder / "night", settings_of(course, [TEACHER])
    rows = [course.figures(course.first)]
    print(json.dumps({"night": 0, **rows[0]}), flush=True)
    for number in range(count):
        chain = Chain.read(folder, course.first)
        running = Path(chain.links[-1]["model"]) if chain.links else course.first
        done = folder / f"day-{number}.done"
        if not done.is_file():
            keep_a_day(folder, settings, running, number)
            done.write_text("")
        name = f"night-{number + 1}"
        found = night(folder, settings, course.first, name)
        if found["outcome"] == "ready":
            adopt(folder, found, course.first)
            running = Path(found["candidate"])
        rows.append(course.figures(running))
        facts = {key: found[key] for key in ("outcome", "reason", "cpu_s")}
        print(json.dumps({"night": number + 1, **facts, **rows[-1]}), flush=True)
    (course.folder / "nights.json").write_text(json.dumps(rows, indent=1))


def run_poisoned(course: Course, count: int) -> None:
    """So many first nights with a wrong teacher: always wrong, or only where nobody has labelled."""
    place, rows = course.folder / "poisoned", []
    days, sealed = place / "day", made(course.folder / "data", "public-small", pictures(5000, 30, DAY))
    few: dict[str, Any] = {"sealed": [sealed], "random_per_hour": 20, "doubtful_per_hour": 10, "processor_minutes": 0.8}
    if not (days / "done").is_file():
        keep_a_day(days, settings_of(course, [TEACHER], **few), course.first, 0, 80)
        (days / "done").write_text("")
    faults: tuple[Fault, ...] = ("class", "blind", "missing", "shifted")
    kinds = [(fault, dark) for dark in (False, True) for fault in faults]
    for number in range(count):
        fault, only_dark = kinds[number % len(kinds)]
        folder = place / f"{number:02}"
        if not (folder / "frames").is_dir():
            shutil.copytree(days / "frames", folder / "frames")
        teacher = folder / "teacher.onnx"
        write_poisoned(TEACHER, teacher, fault, number, only_dark=only_dark)
        found = night(folder, settings_of(course, [teacher], **few), course.first, "night")
        row = {"run": number, "fault": fault, "only_dark": only_dark, "outcome": found["outcome"]}
        rows.append(row | {"reason": found["reason"], "cpu_s": found["cpu_s"]})
        print(json.dumps(rows[-1]), flush=True)
    taken = sum(row["outcome"] == "ready" for row in rows)
    print(f"{taken} of {len(rows)} poisoned teachers' networks would have taken over", flush=True)
    (place / "poisoned.json").write_text(json.dumps(rows, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--poisoned", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=24)
    asked = parser.parse_args()
    started = time.process_time()
    course = Course(asked.folder.resolve(), asked.epochs)
    print(f"the first model is there, {time.process_time() - started:.0f} processor seconds", flush=True)
    if asked.nights:
        run_nights(course, asked.nights)
    if asked.poisoned:
        run_poisoned(course, asked.poisoned)


if __name__ == "__main__":
    main()
