"""MOTChallenge text in and out, and the two commands that use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edge.commands.track import track
from edge.commands.track_eval import COMBINED, evaluate, pairs, track_eval
from edge.errors import DataError, UsageError
from edge.trackers.mot_text import read_detections, read_motion, write_tracks
from edge.types import Tracks

app = typer.Typer()
app.command("track")(track)
app.command("track-eval")(track_eval)


def walkers(frame: int) -> list[tuple[int, float, float, float, float]]:
    """Ground truth: id, x, y, w, h of two walkers."""
    return [(1, 100 + 3 * frame, 50, 40, 100), (2, 600 - 2 * frame, 300, 50, 120)]


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """A folder with gt.txt and det.txt of 40 frames."""
    folder = tmp_path / "truth" / "walk"
    folder.mkdir(parents=True)
    truth, found = [], []
    for frame in range(1, 41):
        for number, x, y, w, h in walkers(frame):
            # the visibility is left out on some lines, as in published files
            truth.append(f"{frame},{number},{x},{y},{w},{h},1,1" + (",1" if frame % 2 else ""))
            found.append(f"{frame},-1,{x},{y},{w},{h},0.9,-1,-1,-1")
    (folder / "gt.txt").write_text("\n".join(truth))
    (folder / "det.txt").write_text("\n".join(found))
    return folder


@pytest.mark.parametrize(
    ("text", "class_ids"),
    [
        ("1,-1,10,20,30,40,0.5\n3,-1,1,2,3,4,0.25\n", [0, 0]),
        ("1,-1,10,20,30,40,0.5,-1,-1,-1\n3,-1,1,2,3,4,0.25,-1,-1,-1\n", [0, 0]),
        ("1,10,20,30,40,0.5\n3,1,2,3,4,.25\n", [0, 0]),
        ("1,10,20,30,40,0.5,7\n3,1,2,3,4,0.25,2\n", [7, 2]),
        ("1 -1 10 20 30 40 0.5 7 1\n\n3 -1 1 2 3 4 0.25 2 1\n", [7, 2]),
        ("3,-1,1,2,3,4,0.25\n1,-1,10,20,30,40,0.5\n", [0, 0]),
    ],
    ids=["challenge-7", "challenge-10", "short", "short-with-class", "blanks", "unsorted"],
)
def test_detections_are_read_from_every_layout(tmp_path: Path, text: str, class_ids: list[int]) -> None:
    path = tmp_path / "det.txt"
    path.write_text(text)
    frames = read_detections(path)
    assert [len(frame) for frame in frames] == [1, 0, 1]
    np.testing.assert_array_equal(frames[0].xyxy, [[10, 20, 40, 60]])
    np.testing.assert_array_equal(frames[2].xyxy, [[1, 2, 4, 6]])
    assert [float(frames[k].score[0]) for k in (0, 2)] == [0.5, 0.25]
    assert [int(frames[k].class_id[0]) for k in (0, 2)] == class_ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,-1,10,20,30,40,0.5\n1,-1,10,20\n", "det.txt:2: expected 7 columns as in the first line, found 4"),
        ("1,2,3\n", "det.txt:1: expected at least 6 columns, found 3"),
        ("1,-1,a,20,30,40,0.5\n", "det.txt:1: expected numbers, could not convert string to float: 'a'"),
        ("0,-1,1,20,30,40,0.5\n", "det.txt:1: expected a frame number from 1 to 10000000, found 0"),
        ("nan,-1,1,20,30,40,0.5\n", "det.txt:1: expected a frame number from 1 to 10000000, found nan"),
        ("1e12,-1,1,20,30,40,0.5\n", "det.txt:1: expected a frame number from 1 to 10000000, found 1e12"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "det.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_detections(path)
    assert message in str(caught.value)


def test_an_empty_file_has_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "det.txt"
    path.write_text("\n")
    assert read_detections(path) == []


def test_a_missing_file_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        read_detections(tmp_path / "none.txt")


def test_camera_motion_is_read_by_frame(tmp_path: Path) -> None:
    path = tmp_path / "gmc.txt"
    path.write_text("2\t1\t0\t3.5\t0\t1\t-2\n")
    np.testing.assert_array_equal(read_motion(path)[2], [[1, 0, 3.5], [0, 1, -2]])


def test_tracks_are_written_as_challenge_text(tmp_path: Path) -> None:
    one = Tracks(
        track_id=np.array([7]),
        xyxy=np.array([[10, 20, 40.5, 60]], np.float32),
        score=np.array([0.5], np.float32),
        class_id=np.array([0], np.int32),
        age=np.zeros(1, np.float32),
        velocity=np.zeros((1, 2), np.float32),
        detection=np.zeros(1, np.int32),
    )
    assert write_tracks(tmp_path / "out.txt", [Tracks.empty(), one]) == 1
    assert (tmp_path / "out.txt").read_text() == "2,7,10.00,20.00,30.50,40.00,0.5000,-1,-1,-1\n"


def test_tracks_cannot_be_written_to_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        write_tracks(tmp_path / "none" / "out.txt", [])


def test_camera_motion_can_be_given_to_the_command(sequence: Path, tmp_path: Path) -> None:
    motion = tmp_path / "gmc.txt"
    motion.write_text("".join(f"{k} 1 0 0 0 1 0\n" for k in range(1, 41)))
    ran = CliRunner().invoke(
        app, ["track", str(sequence / "det.txt"), "--out", str(tmp_path / "o.txt"), "--motion", str(motion)]
    )
    assert ran.exit_code == 0 and "2 tracks in 40 frames" in " ".join(ran.output.split())


def test_a_lost_identity_lowers_the_score(sequence: Path, tmp_path: Path) -> None:
    lines = [
        f"{frame},{number + (10 if frame > 20 else 0)},{x},{y},{w},{h},1,-1,-1,-1"
        for frame in range(1, 41)
        for number, x, y, w, h in walkers(frame)
    ]
    result = tmp_path / "walk.txt"
    result.write_text("\n".join(lines))
    row = evaluate(pairs(sequence / "gt.txt", result), "MOT17")[COMBINED]
    assert (row["IDSW"], row["IDF1"], row["DetA"]) == (2, 50.0, 100.0)


def test_missing_ground_truth_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("1,1,0,0,5,5,1,-1,-1,-1\n")
    with pytest.raises(UsageError, match=r"other.*gt\.txt: no such file"):
        pairs(tmp_path, tmp_path)


def test_an_unknown_benchmark_is_refused(sequence: Path) -> None:
    with pytest.raises(UsageError, match="benchmark 'COCO' is unknown"):
        evaluate(pairs(sequence / "gt.txt", sequence / "gt.txt"), "COCO")
