"""A street for the night shift: by day without bicycles, at dusk with many; as labelled pictures and as videos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.scene.street import Street
from edge.scene.traffic import Traffic
from edge.scene.truth import CLASSES, SceneTruth
from edge.scene.variation import draw_variation
from edge.types import UInt8

WIDTH, HEIGHT = 640, 360
CARS = 0.3
DUSK_BIKES = 0.35


@dataclass(frozen=True, slots=True)
class Light:
    """Which streets are shown. Attributes: ``is_dusk``: lamps are on; ``bikes``: their share of the objects."""

    is_dusk: bool
    bikes: float


DAY = Light(is_dusk=False, bikes=0.0)
DUSK = Light(is_dusk=True, bikes=DUSK_BIKES)


def street_of(number: int, light: Light, *, num_objects: int = 10, fps: float = 5.0) -> Street:
    """The street of this number among those of this light; equal numbers of both lights share no street."""
    rng = np.random.default_rng([number, int(light.is_dusk), 5])
    while True:
        seed = int(rng.integers(1 << 40, 1 << 62))
        variation = draw_variation(seed, WIDTH, HEIGHT, wide=False)
        if (variation.dusk >= 0.6) == light.is_dusk:
            break
    street = Street(seed, WIDTH, HEIGHT, fps, num_objects, variation)
    street._traffic = Traffic(variation, num_objects, (CARS, light.bikes))
    return street


def pictures(first: int, count: int, light: Light) -> Iterator[tuple[UInt8, SceneTruth]]:
    """One picture each of so many streets."""
    for number in range(first, first + count):
        rng = np.random.default_rng([number, 7])
        street = street_of(number, light, num_objects=int(rng.integers(4, 15)))
        yield street.render(int(rng.integers(0, 4000)))


def film(street: Street, begin: int, count: int, step: int = 1) -> Iterator[tuple[UInt8, SceneTruth]]:
    """Frames of one camera."""
    return (street.render(index) for index in range(begin, begin + count * step, step))


def write_labelled(folder: Path, shown: Iterator[tuple[UInt8, SceneTruth]], classes: tuple[str, ...] = CLASSES) -> str:
    """Write pictures with their truth as COCO JSON; the address of the data set."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, truth) in enumerate(shown, 1):
        name = f"images/{number:05d}.jpg"
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        images.append({"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        for box, label, ignore in zip(truth.xyxy.tolist(), truth.class_id.tolist(), truth.ignore.tolist(), strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "area": width * height}
            annotations.append({**row, "bbox": [*box[:2], width, height], "iscrowd": 0, "ignore": int(ignore)})
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(classes)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(table))
    return f"coco:{folder / 'labels.json'}"


def write_film(path: Path, shown: Iterator[tuple[UInt8, SceneTruth]], fps: float) -> None:
    """Write a video."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (WIDTH, HEIGHT))  # type: ignore[attr-defined]
    for image, _ in shown:
        writer.write(image)
    writer.release()
