"""Tiles through the whole line: small objects of large pictures are found, each once."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.boxes import iou
from edge.config.load import parse_config
from edge.errors import ConfigError
from edge.pipeline import Pipeline
from edge.scene.street import Street
from edge.scene.truth import MIN_VISIBILITY
from edge.types import Float32

TINY = runpy.run_path(str(Path(__file__).parents[1] / "tiny_models.py"))
MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
WIDTH, HEIGHT = 1280, 720
NUM_PICTURES = 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Float32]]:
    """Four streets in one picture of 2560x1440, and the boxes in it."""
    folder, boxes = tmp_path_factory.mktemp("large"), []
    streets = [Street(seed, WIDTH, HEIGHT, 15, 12) for seed in (11, 12, 13, 14)]
    for index in range(NUM_PICTURES):
        parts, seen = [], []
        for number, street in enumerate(streets):
            image, truth = street.render(10 * index)
            shift = np.array([number % 2 * WIDTH, number // 2 * HEIGHT] * 2, np.float32)
            seen.append(truth.xyxy[truth.visibility >= MIN_VISIBILITY] + shift)
            parts.append(image)
        large = np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])
        assert cv2.imwrite(str(folder / f"{index}.png"), large)
        boxes.append(np.concatenate(seen))
    return folder, boxes


def found_in(folder: Path, out: Path, **fields: object) -> list[Float32]:
    """The boxes of each picture."""
    stream = {"name": "wide", "source": str(folder), "sinks": [f"jsonl:{out}"], "track": {"method": "off"}, **fields}
    pipeline = Pipeline(parse_config({"model": {"path": str(MODEL), "threads": 1}, "streams": [stream]}, where="x"))
    pipeline.start()
    assert pipeline.wait(60) and pipeline.stop()
    assert not pipeline.failures()
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [np.array([one["xyxy"] for one in line["objects"]], np.float32).reshape(-1, 4) for line in lines]


def recall_and_doubles(truth: list[Float32], found: list[Float32]) -> tuple[float, int]:
    """Share of the true boxes that were found, and how many boxes more than one were found for an object."""
    matches = [iou(true, boxes) > 0.5 for true, boxes in zip(truth, found, strict=True)]
    hits = np.concatenate([match.any(axis=1) for match in matches])
    doubles = sum(int(np.maximum(match.sum(axis=1) - 1, 0).sum()) for match in matches)
    return float(hits.mean()), doubles


def test_tiles_find_what_is_too_small_in_the_whole_picture(
    pictures: tuple[Path, list[Float32]], tmp_path: Path
) -> None:
    folder, truth = pictures
    plain, _ = recall_and_doubles(truth, found_in(folder, tmp_path / "plain.jsonl"))
    tiled, doubles = recall_and_doubles(truth, found_in(folder, tmp_path / "tiled.jsonl", tiles=[2, 2]))
    print(f"recall {plain:.3f} without tiles, {tiled:.3f} with; {doubles} doubles of {sum(map(len, truth))}")
    assert tiled > plain + 0.15
    assert tiled > 0.85
    assert doubles <= 0.02 * sum(map(len, truth))


def test_tiles_are_for_detectors(tmp_path: Path) -> None:
    model = TINY["colour_classifier"](tmp_path / "m.onnx")
    stream = {"name": "a", "source": "synthetic://street", "tiles": [2, 1]}
    with pytest.raises(ConfigError, match="tiles are for detectors"):
        Pipeline(parse_config({"model": {"path": str(model)}, "streams": [stream]}, where="x"))
