"""The synthetic street as a data set: pictures rendered on demand, with exact labels. N objects, H W pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import parse_qsl

import numpy as np

from edge.errors import DataError
from edge.masks import encode_rle
from edge.scene.street import render_sample
from edge.scene.truth import CLASSES, JOINTS, MIN_VISIBILITY, SEGMENT_CLASSES, SceneTruth
from edge.scene.variation import SCENE_VERSION
from export.data.sample import DataTask, Outlines, Sample

_PER_SEED = 1_000_000


class SyntheticDataset:
    """Independent pictures of many streets. Objects that are hardly seen are marked to be ignored."""

    def __init__(
        self,
        name: str,
        task: Literal["detect", "segment"],
        seed: int,
        count: int,
        width: int,
        height: int,
        wide: bool = True,
    ) -> None:
        """Say what to render.

        Args:
            name: of the data set.
            task: boxes of ``CLASSES``, or masks of ``SEGMENT_CLASSES``.
            seed: data sets of different seeds share no picture.
            count: number of pictures, at most a million.
            width, height: pixels of each.
            wide: material for training; otherwise streets as the source shows them, for judging.
        """
        if not 0 < count <= _PER_SEED or seed < 0 or min(width, height) < 64:
            raise ValueError(f"a data set of {count} pictures of {width}x{height} with seed {seed} is not possible")
        self._name, self._task = name, task
        self._seed, self._count = seed, count
        self._width, self._height, self._wide = width, height, wide

    @property
    def name(self) -> str:
        return self._name

    @property
    def task(self) -> DataTask:
        return self._task

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES if self._task == "detect" else SEGMENT_CLASSES

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that the pictures depend on; rendering them all to hash them would take minutes."""
        parts = (SCENE_VERSION, self._task, self._seed, self._count, self._width, self._height, MIN_VISIBILITY)
        return hashlib.sha256(repr(parts if self._wide else (*parts, "plain")).encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(f"picture {index} of {self._count}")
        image, truth = render_sample(self._seed * _PER_SEED + index, self._width, self._height, self._wide)
        image_id = f"street-{self._seed}-{index}"
        if self._task == "segment":
            return Sample(image, image_id, mask=truth.class_map)
        weight = np.ones(len(truth), np.float32)
        outlines = Outlines(tuple(_run_lengths(truth)), truth.keypoints, JOINTS)
        return Sample(image, image_id, truth.xyxy, truth.class_id, truth.ignore, weight, outlines=outlines)


def _run_lengths(truth: SceneTruth) -> Iterator[dict[str, Any]]:
    """What is seen of each object, as COCO writes it."""
    height, width = truth.owner.shape
    for row, (x1, y1, x2, y2) in enumerate(truth.xyxy.astype(int).tolist()):
        seen = (truth.owner[y1:y2, x1:x2] == row).view(np.uint8)
        yield {"size": [height, width], "counts": encode_rle(seen, (x1, y1, x2, y2), (width, height))}


def open_synthetic_dataset(text: str, task: Literal["detect", "segment"]) -> SyntheticDataset:
    """Open ``synthetic:street?seed=1&count=2000&size=640x360&variety=wide``; every key may be left out.

    Raises:
        DataError: an unknown scene or key, or a value that is not possible.
    """
    scene, _, query = text.partition("?")
    if scene != "synthetic:street":
        raise DataError(f"{text}: there is no such synthetic data set; expected synthetic:street?seed=1&count=2000")
    values = {"seed": "1", "count": "2000", "size": "640x360", "variety": "wide"}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in values:
            raise DataError(f"{text}: unknown key '{key}'; expected seed, count, size or variety")
        values[key] = value
    width, _, height = values["size"].partition("x")
    numbers = [values["seed"], values["count"], width, height]
    if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in numbers):
        raise DataError(f"{text}: expected whole numbers, like seed=1&count=2000&size=640x360")
    seed, count, columns, rows = (int(number) for number in numbers)
    if not (1 <= count <= _PER_SEED and min(columns, rows) >= 64 and max(columns, rows) <= 4096):
        raise DataError(f"{text}: expected a count from 1 to {_PER_SEED} and a size from 64x64 to 4096x4096")
    if values["variety"] not in ("wide", "plain"):
        raise DataError(
            f"{text}: variety={values['variety']} is not possible; expected wide (to train) or plain (to judge)"
        )
    return SyntheticDataset(text, task, seed, count, columns, rows, values["variety"] == "wide")
