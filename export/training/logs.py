"""What a training leaves behind for people: a progress bar, a CSV, TensorBoard files, and a line per epoch."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from edge.console import err
from edge.files import write_atomic

log = logging.getLogger(__name__)
CSV_NAME = "metrics.csv"
Row = dict[str, float]


class ProgressBar:
    """Batches done of all batches of the training, with the time that is left. Silent where nobody watches."""

    def __init__(self, total: int, done: int, visible: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:.0f} images/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._progress = Progress(*columns, console=err, disable=not (visible and err.is_terminal))
        self._task = self._progress.add_task("training", total=total, completed=done, speed=0.0)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, text: str, speed: float) -> None:
        """One batch more. ``speed`` in images per second."""
        self._progress.update(self._task, advance=1, description=text, speed=speed)


class Journal:
    """The metrics of a run folder. Rows are kept in the checkpoint too, so a resumed run rewrites what it repeats."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._board: SummaryWriter | None = None

    def write(self, history: Sequence[Row]) -> None:
        """Bring the CSV and TensorBoard up to the last row."""
        if not history:
            return
        write_atomic(self._folder / CSV_NAME, csv_text(history))
        self._to_board(history[-1])

    def _to_board(self, row: Row) -> None:
        if self._board is None:
            # purge: what an interrupted run wrote beyond its last checkpoint is taken back
            self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=int(row["epoch"]))
        for name, value in row.items():
            if name != "epoch":
                self._board.add_scalar(name, value, int(row["epoch"]))
        self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def csv_text(history: Sequence[Row]) -> str:
    """All rows under the union of their columns, in the order of appearance."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()})
    return buffer.getvalue()


def epoch_line(row: Row, metric: str, epochs: int, pictures: int) -> str:
    """One row for people, with the time that is left at this epoch's speed; each has so many pictures."""
    parts = [f"epoch {int(row['epoch'])}/{epochs}", f"loss {row['loss']:.3f}"]
    if metric in row:
        parts.append(f"{metric} {row[metric]:.4f}")
    parts.append(f"{row['images_per_s']:.0f} images/s")
    if left := epochs - int(row["epoch"]):
        parts.append(f"{left * pictures / row['images_per_s'] / 60:.0f} min left")
    return "  ".join(parts)
