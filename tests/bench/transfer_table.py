"""What transfer is worth: three data sets, each learned from scratch and from loaded weights in equal processor time.

    python tests/bench/transfer_table.py OUT --data FOLDER [--only bccd,voc07-300] [--minutes 10] [--seeds 1,2,3]

FOLDER holds ``detection/bccd``, ``detection/voc07``, ``classification/cifar10`` and ``models/yolox_nano_416.onnx``. The
time is user and system time of the whole process on one thread: imports, loading, learning and judging. How many epochs
fit is computed from a short run of each recipe, so that every schedule ends; nothing else depends on the time. The
last weights are judged, once, on pictures that chose nothing. A run that stands in OUT/rows.jsonl is not done again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from sealed_split import split

# noise of processor time from one run to the next
MARGIN = 0.97
SEALED_PER_CLASS, FEW_PHOTOS = 100, 300
ONCE = ("run.patience=0", "run.threads=1")


@dataclass(frozen=True, slots=True)
class Part:
    """One training.

    Attributes:
        share: of the time.
        probe: epochs of the short run, the last of which is timed.
        most: epochs after which more bring nothing; the rest of the time is left unused.
    """

    recipe: str
    changes: tuple[str, ...] = ()
    share: float = 1.0
    probe: int = 2
    most: int = 10_000


@dataclass(frozen=True, slots=True)
class Arm:
    """A data set and a start; later parts go on from the weights of the one before."""

    data: str
    start: str
    metric: str
    changes: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        return f"{self.data}-{self.start}"


def arms(data: Path, out: Path, lite0: Path) -> list[Arm]:
    """What is compared, the cheapest first; each side by the recipe that is known to be best for it in this time."""
    yolox = f"transfer.weights={data / 'models/yolox_nano_416.onnx'}"
    cells = _places("coco", data / "detection/bccd/train.json", data / "detection/bccd/val.json")
    photos = _places("coco", out / "voc07-300.json", data / "detection/voc07/val.json")
    small = _places("classes", out / "cifar10/train", out / "cifar10/sealed")
    two_parts = Part("bccd-scratch", (), 0.78, 4), Part("bccd-scratch-tune", (), 0.22)
    kept = (yolox, "model.nms=true", "data.crop_width=0", "data.crop_height=0", *GENTLE)
    return [
        Arm("bccd", "transfer", "map50", cells, (Part("bccd", (yolox,), probe=1, most=14),)),
        Arm("bccd", "scratch", "map50", cells, two_parts),
        Arm("voc07-300", "transfer", "map50", photos, (Part("my-data", kept),)),
        Arm("voc07-300", "scratch", "map50", photos, (Part("my-data"),)),
        Arm("cifar10", "transfer", "top1", small, (Part("cifar10-transfer", (f"transfer.weights={lite0}",), probe=1),)),
        Arm("cifar10", "scratch", "top1", small, (Part("cifar10", probe=1),)),
    ]


# YOLOX-Nano knows all twenty classes of VOC: what it knows is kept
GENTLE = ("optim.lr=0.00002", "optim.warmup_steps=20", "optim.amp=off", "optim.freeze_bn=true")


def _places(scheme: str, train: Path, val: Path) -> tuple[str, ...]:
    return f"data.train={scheme}:{train}", f"data.val={scheme}:{val}"


def few_photos(source: Path, target: Path) -> None:
    """The first photos by the hash of their names, as a COCO file of its own beside a link to their folder."""
    labels = json.loads(source.read_text(encoding="utf-8"))
    by_hash = sorted(labels["images"], key=lambda image: hashlib.sha256(image["file_name"].encode()).hexdigest())
    images = by_hash[:FEW_PHOTOS]
    for folder in {Path(image["file_name"]).parts[0] for image in images}:
        (target.parent / folder).symlink_to(source.parent / folder)
    wanted = {image["id"] for image in images}
    boxes = [box for box in labels["annotations"] if box["image_id"] in wanted]
    target.write_text(json.dumps({**labels, "images": images, "annotations": boxes}), encoding="utf-8")


class Course:
    """Runs trainings as a user would, and measures what they took."""

    def __init__(self, out: Path, command: Sequence[str]) -> None:
        self._out, self._command = out, command

    def train(self, part: Part, changes: Sequence[str], epochs: int, folder: Path) -> float:
        """Processor seconds of one training that judges at its end."""
        shutil.rmtree(folder, ignore_errors=True)
        once = [f"optim.epochs={epochs}", f"run.eval_every={epochs}", *ONCE]
        words = ["train", part.recipe, *once, *part.changes, *changes, "--out", str(folder)]
        folder.parent.mkdir(parents=True, exist_ok=True)
        before = os.times()
        with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
            alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            subprocess.run([*self._command, *words], check=True, stdout=log, stderr=log, env=alone)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    def cost(self, arm: Arm, number: int, start: Sequence[str]) -> tuple[float, float]:
        """Processor seconds of an epoch, and of everything else."""
        path, name = self._out / "costs.json", f"{arm.name}-{number}"
        known: dict[str, tuple[float, float]] = json.loads(path.read_text()) if path.is_file() else {}
        if name not in known:
            part, folder = arm.parts[number], self._out / "probes" / name
            total = self.train(part, [*arm.changes, *start], part.probe, folder)
            spent = [float(row["processor_s"]) for row in _history(folder)]
            known[name] = spent[-1], total - sum(spent)
            path.write_text(json.dumps(known, indent=1))
        return known[name]

    def run(self, arm: Arm, seed: int, minutes: float) -> dict[str, Any]:
        """One row of the table."""
        spent = 0.0
        epochs: list[int] = []
        start: list[str] = []
        for number, part in enumerate(arm.parts):
            epoch_s, rest_s = self.cost(arm, number, start)
            fitting = int((minutes * 60 * MARGIN * part.share - rest_s) / epoch_s)
            epochs.append(max(1, min(fitting, part.most)))
            folder = self._out / f"{arm.name}-{seed}-{number + 1}"
            spent += self.train(part, [*arm.changes, f"run.seed={seed}", *start], epochs[-1], folder)
            start = [f"transfer.weights={folder / 'last.pt'}"]
        value = float(_history(folder)[-1][arm.metric])
        return {"data": arm.data, "start": arm.start, "seed": seed, "minutes": minutes, "epochs": epochs,
                "processor_minutes": round(spent / 60, 2), "metric": arm.metric, "value": value}  # fmt: skip


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[dict[str, Any]], wanted: Sequence[Arm], seeds: Sequence[int]) -> str:
    """Markdown: what each arm reached, by seed, with mean and spread; a run that is missing is a dash."""
    heads = ["data", "start", *(f"seed {seed}" for seed in seeds), "mean", "lowest to highest", "epochs", "minutes"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm in wanted:
        mine = {row["seed"]: row for row in rows if (row["data"], row["start"]) == (arm.data, arm.start)}
        done = [mine[seed] for seed in seeds if seed in mine]
        cells = [f"{mine[seed]['value']:.3f}" if seed in mine else "-" for seed in seeds]
        if done:
            values = [row["value"] for row in done]
            cells += [f"{statistics.mean(values):.3f}", f"{min(values):.3f} to {max(values):.3f}"]
            cells.append(" + ".join(str(count) for count in done[0]["epochs"]))
            cells.append(", ".join(f"{row['processor_minutes']:.1f}" for row in done))
        cells += ["-"] * (len(heads) - 2 - len(cells))
        lines.append(f"| {arm.data} | {arm.start} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    out: Path,
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    only: Annotated[str, typer.Option(help="Data sets, or arms such as bccd-scratch.")] = "bccd,voc07-300,cifar10",
    minutes: Annotated[float, typer.Option(help="Of processor time for each run.")] = 10.0,
    seeds: Annotated[str, typer.Option()] = "1,2,3",
    lite0: Annotated[Path, typer.Option(help="Weights of EfficientNet-Lite0.")] = Path(
        "efficientnet-lite0-57934424.pth"
    ),
    command: Annotated[str, typer.Option(help="What starts the command line.")] = str(
        Path(sys.executable).with_name("edge")
    ),
) -> None:
    """Do the runs that are missing, seed by seed, and print the table."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "voc07-300.json").is_file():
        few_photos(data.resolve() / "detection/voc07/train.json", out / "voc07-300.json")
    if not (out / "cifar10").is_dir():
        split(data.resolve() / "classification/cifar10/train", out / "cifar10", SEALED_PER_CLASS)
    names = only.split(",")
    wanted = [arm for arm in arms(data.resolve(), out, lite0) if arm.data in names or arm.name in names]
    numbers = [int(seed) for seed in seeds.split(",")]
    path = out / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    course = Course(out, shlex.split(command))
    for seed in numbers:
        for arm in wanted:
            if any((row["data"], row["start"], row["seed"]) == (arm.data, arm.start, seed) for row in rows):
                continue
            rows.append(course.run(arm, seed, minutes))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows, wanted, numbers))


if __name__ == "__main__":
    typer.run(main)
