"""Curves of several trainings in one picture, from the ``metrics.csv`` of their folders; parts of one stand end to end.

python tests/bench/training_curves.py --plot docs/curves.png 'CamVid=runs/camvid' 'Cells=runs/bccd'
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

METRICS = {"map50": "AP50", "miou": "mIoU", "top1": "top-1"}


@dataclass(frozen=True, slots=True)
class Curve:
    """A training, or several parts of one, by epochs since its start.

    Attributes:
        loss: epochs and losses, parts one after the other.
        score: epochs and values of the metric, where it was measured.
        metric: its name.
        starts: epochs after which a new part began.
    """

    loss: list[tuple[int, float]]
    score: list[tuple[int, float]]
    metric: str
    starts: list[int]


def read_curve(folders: list[Path]) -> Curve:
    loss: list[tuple[int, float]] = []
    score: list[tuple[int, float]] = []
    metric, starts = "", []
    for folder in folders:
        before = loss[-1][0] if loss else 0
        starts.append(before)
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        metric = next(name for name in METRICS if name in rows[-1])
        loss += [(before + int(row["epoch"]), float(row["loss"])) for row in rows]
        score += [(before + int(row["epoch"]), float(row[metric])) for row in rows if row[metric]]
    return Curve(loss, score, METRICS[metric], starts[1:])


def draw(curves: dict[str, Curve], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(curves), figsize=(2.6 * len(curves), 4.4), squeeze=False, sharex="col")
    for column, (name, curve) in zip(axes.T, curves.items(), strict=True):
        for axis, points, title in zip(column, (curve.loss, curve.score), ("loss", curve.metric), strict=True):
            axis.plot(*zip(*points, strict=True), linewidth=1.2, marker="." if len(points) < 40 else None)
            axis.set_ylabel(title, fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
            for start in curve.starts:
                axis.axvline(start, color="grey", linewidth=0.8, linestyle=":")
        column[0].set_title(f"{name}\nbest {max(value for _, value in curve.score):.3f}", fontsize=9)
        column[1].set_xlabel("epoch", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER[,FOLDER…]")
    parser.add_argument("--plot", type=Path, required=True)
    arguments = parser.parse_args()
    named = [run.partition("=") for run in arguments.runs]
    draw({name: read_curve([Path(part) for part in parts.split(",")]) for name, _, parts in named}, arguments.plot)


if __name__ == "__main__":
    main()
