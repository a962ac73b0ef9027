"""What a camera's own motion costs to measure, how well it is found, and that a still camera never moves.

    python tests/bench/camera_motion.py CLIPS...

CLIPS are videos of cameras that stand still. They are shown as they are, in noise, at night and under a lamp that
flickers; then by a camera that turns, rolls and zooms before them, so that its motion is known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge.trackers.camera_motion import CameraMotion
from edge.types import Float64, UInt8

FRAMES = 150
NO_BOXES = np.empty((0, 4), np.float32)


def luma_of(path: Path) -> list[UInt8]:
    reader = cv2.VideoCapture(str(path))
    frames: list[UInt8] = []
    while len(frames) < FRAMES:
        is_read, frame = reader.read()
        if not is_read:
            break
        frames.append(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)))
    return frames


def disturbed(frame: UInt8, rng: np.random.Generator, *, light: float = 1.0, noise: float = 0.0) -> UInt8:
    seen = light * frame + rng.normal(0, noise, frame.shape) if noise else light * frame.astype(np.float64)
    return np.clip(seen, 0, 255).astype(np.uint8)


def num_moved(frames: list[UInt8], change: Callable[[int, UInt8], UInt8]) -> int:
    camera = CameraMotion()
    return sum(camera.update(change(k, frame), NO_BOXES) is not None for k, frame in enumerate(frames))


def step_of(k: int, width: int, height: int) -> Float64:
    """What the camera does between frame k - 1 and k: up to 14 of 1,280 pixels, 0.3 degrees and 0.3 %."""
    affine = cv2.getRotationMatrix2D((width / 2, height / 2), 0.3 * np.sin(k / 9), 1 + 0.003 * np.sin(k / 7))
    affine[:, 2] += np.array([6 + 8 * np.sin(k / 15), 3 * np.cos(k / 11)]) * width / 1280
    return np.asarray(affine, np.float64)


def turned(frames: list[UInt8]) -> tuple[list[UInt8], list[Float64]]:
    """The clip before a camera that moves, and its steps."""
    height, width = frames[0].shape
    place, seen, steps = np.eye(3), [], []
    for k, frame in enumerate(frames):
        steps.append(step_of(k, width, height))
        place = np.vstack((steps[-1], [0, 0, 1])) @ place
        seen.append(np.asarray(cv2.warpAffine(frame, place[:2], (width, height), borderMode=cv2.BORDER_REFLECT_101)))
    return seen, steps


def show_turned(name: str, frames: list[UInt8]) -> None:
    seen, steps = turned(frames)
    height, width = frames[0].shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    camera, missed, errors = CameraMotion(), 0, []
    for frame, true in zip(seen, steps, strict=True):
        found = camera.update(frame, NO_BOXES)
        missed += found is None
        if found is not None:
            errors.append(np.abs(corners @ found.T - corners @ true.T).mean() * 1280 / width)
    middle, high = np.percentile(errors, (50, 90))
    print(
        f"{name:28} turned: {missed} of {len(seen)} frames not measured, error at the corners median {middle:.2f}, "
        f"90th percentile {high:.2f} of 1,280 pixels"
    )


def show_still(name: str, frames: list[UInt8]) -> None:
    rng = np.random.default_rng(0)
    ways: dict[str, Callable[[int, UInt8], UInt8]] = {
        "as it is": lambda _, frame: frame,
        "noise 4": lambda _, frame: disturbed(frame, rng, noise=4),
        "noise 10": lambda _, frame: disturbed(frame, rng, noise=10),
        "night": lambda _, frame: disturbed(frame, rng, light=1 / 6, noise=6),
        "flicker 15 %": lambda k, frame: disturbed(frame, rng, light=1 + 0.15 * np.sin(k)),
    }
    cells = (f"{way} {num_moved(frames, change)}" for way, change in ways.items())
    print(f"{name:28} still, frames of {len(frames)} taken for motion:", ", ".join(cells))


def show_cost(frames: list[UInt8], title: str) -> None:
    """Thread time per frame, with 20 boxes to leave out."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 600, (20, 2))
    boxes = np.concatenate((corner, corner + np.array((40, 90))), axis=1).astype(np.float32)
    camera, spent = CameraMotion(), []
    for frame in frames:
        started_s = time.thread_time()
        camera.update(frame, boxes)
        spent.append(1e3 * (time.thread_time() - started_s))
    print(f"cost, {title:22} median {np.median(spent[5:]):.3f}, 90th percentile {np.percentile(spent[5:], 90):.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--cost", action="store_true", help="the cost alone, at 1280x720")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    for path in given.clips:
        frames = luma_of(path)
        if not given.cost:
            show_still(path.stem, frames)
            show_turned(path.stem, frames)
        large = [np.asarray(cv2.resize(frame, (1280, 720))) for frame in frames]
        moving, _ = turned(large)
        for title, shown in (("still", large), ("moving", moving)):
            show_cost(shown, f"{title}, luma")
            show_cost([np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)) for frame in shown], f"{title}, BGR")


if __name__ == "__main__":
    main()
