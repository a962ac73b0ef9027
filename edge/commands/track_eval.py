"""``edge track-eval``: score tracks against ground truth with TrackEval, the MOTChallenge's own metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge.console import AsJson, out, print_json

COMBINED = "COMBINED"
COLUMNS = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "FP", "FN")


def track_eval(
    truth: Annotated[Path, typer.Argument(help="gt.txt, or a folder with NAME/gt.txt or NAME/gt/gt.txt.")],
    tracks: Annotated[Path, typer.Argument(help="Tracks of one sequence, or a folder with NAME.txt.")],
    benchmark: Annotated[str, typer.Option(help="Rules for distractors: MOT15, MOT16, MOT17 or MOT20.")] = "MOT17",
    as_json: AsJson = False,
) -> None:
    """Score tracks against ground truth, through TrackEval."""
    scores = evaluate(pairs(truth, tracks), benchmark)
    if as_json:
        print_json(scores)
        return
    from rich.table import Table

    table = Table("sequence", *COLUMNS, box=None)
    for name, row in scores.items():
        table.add_row(name, *(f"{row[c]:.1f}" if isinstance(row[c], float) else str(row[c]) for c in COLUMNS))
    out.print(table)


def pairs(truth: Path, tracks: Path) -> dict[str, tuple[Path, Path]]:
    """Sequence name → its ground truth and its tracks.

    Raises:
        UsageError: a file is missing, or nothing is there to compare.
    """
    from edge.errors import UsageError

    if truth.is_file():
        found = {truth.parent.name or truth.stem: (truth, tracks)}
    else:
        names = {file.stem: file for file in sorted(tracks.glob("*.txt"))}
        places = {name: (truth / name / "gt.txt", truth / name / "gt" / "gt.txt") for name in names}
        found = {
            name: (next((place for place in places[name] if place.is_file()), places[name][0]), file)
            for name, file in names.items()
        }
    missing = [file for pair in found.values() for file in pair if not file.is_file()]
    if missing:
        raise UsageError(f"{missing[0]}: no such file")
    if not found:
        raise UsageError(f"{tracks}: expected NAME.txt for each sequence, found none")
    return found


def evaluate(sequences: dict[str, tuple[Path, Path]], benchmark: str) -> dict[str, dict[str, float | int]]:
    """Score sequences; the last row is all of them combined. Shares are in percent.

    Args:
        sequences: name → (ground truth, tracks), MOTChallenge text.
        benchmark: whose rules decide which ground truth is a distractor.

    Raises:
        UsageError: the benchmark is unknown.
        MissingError: TrackEval is not installed.
        DataError: TrackEval cannot read a file.
    """
    import tempfile

    from edge.errors import DataError, MissingError, UsageError

    if benchmark not in ("MOT15", "MOT16", "MOT17", "MOT20"):
        raise UsageError(f"benchmark '{benchmark}' is unknown; expected MOT15, MOT16, MOT17 or MOT20")
    try:
        from trackeval.utils import TrackEvalException
    except ImportError as error:
        raise MissingError("TrackEval is not installed; run: pip install trackeval") from error
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = _run_trackeval(_lay_out(Path(folder), sequences), Path(folder), benchmark)
        except TrackEvalException as error:
            raise DataError(f"TrackEval cannot read the sequences: {error}") from error
    return {name: _row(metrics["pedestrian"]) for name, metrics in result.items()}


def _lay_out(folder: Path, sequences: dict[str, tuple[Path, Path]]) -> dict[str, int]:
    """Put the files where TrackEval looks for them; gives the number of frames per sequence."""
    lengths = {}
    (folder / "tracks" / "edge").mkdir(parents=True)
    for name, (truth, tracks) in sequences.items():
        (folder / "gt" / name).mkdir(parents=True)
        length_truth = _copy_table(truth, folder / "gt" / name / "gt.txt", columns=9)
        length_tracks = _copy_table(tracks, folder / "tracks" / "edge" / f"{name}.txt", columns=7)
        lengths[name] = max(length_truth, length_tracks)
    return lengths


def _copy_table(path: Path, place: Path, columns: int) -> int:
    """Copy a table with that many columns, 1 where a line has fewer; gives its last frame.

    TrackEval refuses lines of unequal length, but the visibility at the end is often left out.
    """
    rows = [line.replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    place.write_text("".join(",".join((row + ["1"] * columns)[:columns]) + "\n" for row in rows), encoding="utf-8")
    return max((int(float(row[0])) for row in rows), default=0)


def _run_trackeval(lengths: dict[str, int], folder: Path, benchmark: str) -> dict[str, Any]:
    import contextlib
    import io

    import trackeval

    quiet = {"PRINT_CONFIG": False}
    settings = {
        "GT_FOLDER": str(folder / "gt"),
        "TRACKERS_FOLDER": str(folder / "tracks"),
        "BENCHMARK": benchmark,
        "SEQ_INFO": lengths,
        "GT_LOC_FORMAT": "{gt_folder}/{seq}/gt.txt",
        "TRACKER_SUB_FOLDER": "",
        "SKIP_SPLIT_FOL": True,
        **quiet,
    }
    flags = ("PRINT_RESULTS", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES", "PRINT_CONFIG")
    # TrackEval reports to standard output, which belongs to the result
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = trackeval.Evaluator({**dict.fromkeys(flags, False), "LOG_ON_ERROR": None})
        metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
        dataset = trackeval.datasets.MotChallenge2DBox(settings)
        result, _ = evaluator.evaluate([dataset], metrics)
    scored: dict[str, Any] = result["MotChallenge2DBox"]["edge"]
    return {**{name: scored[name] for name in lengths}, COMBINED: scored["COMBINED_SEQ"]}


def _row(metrics: dict[str, Any]) -> dict[str, float | int]:
    hota, clear, identity = metrics["HOTA"], metrics["CLEAR"], metrics["Identity"]
    shares = {
        **{name: hota[name].mean() for name in ("HOTA", "DetA", "AssA")},
        "MOTA": clear["MOTA"],
        "IDF1": identity["IDF1"],
    }
    counts = {"IDSW": clear["IDSW"], "FP": clear["CLR_FP"], "FN": clear["CLR_FN"]}
    return {**{k: round(100 * float(v), 2) for k, v in shares.items()}, **{k: int(v) for k, v in counts.items()}}
