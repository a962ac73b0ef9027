"""Tiny data sets that a tiny network learns within seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from made_once import made_once

from export.config import parse_config
from export.training.train import train

SIDE = 96


def write_squares(folder: Path, count: int, seed: int) -> Path:
    """COCO labels of bright red and blue rectangles on dark noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in range(count):
        picture = rng.integers(0, 80, (SIDE, SIDE, 3), np.uint8)
        for _ in range(int(rng.integers(1, 4))):
            width, height = (int(value) for value in rng.integers(16, 40, 2))
            x, y = int(rng.integers(0, SIDE - width)), int(rng.integers(0, SIDE - height))
            kind = int(rng.integers(2))
            picture[y : y + height, x : x + width] = (30, 30, 230) if kind == 0 else (230, 60, 30)
            box = [x, y, width, height]
            objects.append(
                {"id": len(objects) + 1, "image_id": number + 1, "category_id": kind + 1, "bbox": box,
                 "area": width * height, "iscrowd": 0}
            )  # fmt: skip
        name = f"{number:03}.png"
        cv2.imwrite(str(folder / name), picture)
        images.append({"id": number + 1, "file_name": name, "width": SIDE, "height": SIDE})
    labels = {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(labels))
    return path


def write_colours(folder: Path, count: int) -> Path:
    """Class folders of noisy bright and dark pictures of 32x32."""
    rng = np.random.default_rng(5)
    for name, level in (("bright", 190), ("dark", 60)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = np.clip(rng.normal(level, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Addresses of a training and a validation set of rectangles."""

    def write(folder: Path) -> None:
        write_squares(folder / "train", 48, 1)
        write_squares(folder / "val", 16, 2)

    folder = made_once(tmp_path_factory, "squares", write)
    return f"coco:{folder}/train/labels.json", f"coco:{folder}/val/labels.json"


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a set of bright and dark pictures."""
    return f"classes:{made_once(tmp_path_factory, 'colours', lambda folder: write_colours(folder, 12))}"


@pytest.fixture(scope="session")
def recipes(squares: tuple[str, str], colours: str) -> dict[str, dict[str, Any]]:
    """A fast recipe per task, as a tree of values."""
    run = {"device": "cpu", "threads": 1, "eval_every": 50}
    detect = {
        "task": "detect",
        "name": "squares",
        "data": {"train": squares[0], "val": squares[1], "width": SIDE, "height": SIDE, "cache": False},
        "optim": {"optimizer": "adamw", "lr": 0.003, "epochs": 3, "batch_size": 8, "warmup_steps": 5, "amp": "off"},
        "augment": {"scale_min": 0.9, "scale_max": 1.1},
        "run": run,
    }
    classify = {
        "task": "classify",
        "name": "colours",
        "data": {"train": colours, "val": colours, "width": 32, "height": 32, "cache": False},
        "model": {"tiny_input": True},
        "optim": {"optimizer": "sgd", "lr": 0.05, "epochs": 12, "batch_size": 4, "warmup_steps": 2, "amp": "off"},
        "augment": {"colour": 0.0, "mixup": 0.2, "cutmix": 0.2},
        "run": run,
    }
    return {"detect": detect, "classify": classify}


@pytest.fixture(scope="session")
def schooled(recipes: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a detector's training that has learned the rectangles."""
    tree = recipes["detect"]
    tree = {**tree, "optim": {**tree["optim"], "epochs": 24}, "run": {**tree["run"], "eval_every": 24}}
    return made_once(tmp_path_factory, "schooled", lambda folder: train(parse_config(tree, "test"), folder))


@pytest.fixture(scope="session")
def graded(recipes: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a classifier's training that tells bright from dark."""
    recipe = parse_config(recipes["classify"], "test")
    return made_once(tmp_path_factory, "graded", lambda folder: train(recipe, folder))
