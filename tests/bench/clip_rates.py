"""How many objects a detector sees in real clips, per frame, and pictures of it: a check without labels.

    python tests/bench/clip_rates.py MODEL.onnx CLIP.mp4 … [--score 0.3] [--classes person,car] [--pictures FOLDER]

Compared with a model that is known to be good on the same clips, too few objects say that it misses some, too many
that it imagines some.
"""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import closing
from pathlib import Path

import cv2

from edge.model import Model, open_model
from edge.overlay import Overlay, StreamState
from edge.sources.choose import open_source
from edge.types import Detections, Frame, Result


def watch(model: Model, clip: Path, classes: set[str], num_pictures: int, folder: Path | None) -> str:
    """One row of the table: objects per frame by class, and the share of frames in which there is any."""
    names = model.manifest.classes
    overlay, seen, num_frames, num_full = Overlay(names), Counter[str](), 0, 0
    with closing(open_source(str(clip))) as source:
        every = max(1, (source.info.num_frames or 300) // num_pictures) if folder else 0
        while (got := source.read()) is not None:
            (found,) = model.predict([got[0]])
            assert isinstance(found, Detections)
            labels = [names[label] for label in found.class_id if names[label] in classes]
            seen.update(labels)
            num_full += bool(labels)
            if folder and num_frames % every == every // 2:
                result = Result(Frame(clip.stem, 0, num_frames, 0, 0, got[0]), found)
                path = folder / f"{clip.stem}-{num_frames:04}.jpg"
                cv2.imwrite(str(path), overlay.draw(result, StreamState("live")))
            num_frames += 1
    rates = ", ".join(f"{name} {count / num_frames:.1f}" for name, count in seen.most_common())
    return f"| {clip.stem} | {num_frames} | {rates} | {num_full / num_frames:.2f} |"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--score", type=float, default=0.3)
    parser.add_argument("--classes", default="person,car")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--num-pictures", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.pictures:
        chosen.pictures.mkdir(parents=True, exist_ok=True)
    model = open_model(chosen.model, engine="ort", score=chosen.score)
    print("| clip | frames | objects per frame | frames with any |\n|---|---|---|---|")
    for clip in chosen.clips:
        print(watch(model, clip, set(chosen.classes.split(",")), chosen.num_pictures, chosen.pictures))
    model.close()


if __name__ == "__main__":
    main()
