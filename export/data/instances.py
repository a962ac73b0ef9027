"""A detection data set whose samples carry what instances are learned from: who owns each pixel, and key points.

N objects, K key points, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge.errors import DataError
from edge.types import Float32, UInt8
from export.data.outlines import filled
from export.data.sample import NO_OBJECT, Dataset, DataTask, Outlines, Sample


class InstanceDataset:
    """The samples of a data set with ``owner`` where masks are wanted, and with ``points`` where key points are.

    Args:
        dataset: of boxes with outlines.
        has_masks: whether masks are wanted.
        keypoints: names of the wanted key points, in the data set's order; none for no key points.
    """

    def __init__(self, dataset: Dataset, *, has_masks: bool, keypoints: Sequence[str]) -> None:
        self._dataset = dataset
        self._has_masks, self._keypoints = has_masks, tuple(keypoints)
        self._mirror = mirror_of(keypoints)
        kinds = f"{'masks' if has_masks else ''}{len(keypoints) or ''}{''.join(map(str, self._mirror))}"
        self.name, self.task, self.classes = dataset.name, _detect(dataset), dataset.classes
        self.fingerprint = f"{dataset.fingerprint}-{kinds}"

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """The sample; its outlines stay.

        Raises:
            DataError: its key points are others than the wanted ones.
        """
        sample = self._dataset[index]
        owner = _owner(sample) if self._has_masks else None
        points = self._points(sample) if self._keypoints else None
        return replace(sample, owner=owner, points=points, mirror=self._mirror)

    def _points(self, sample: Sample) -> Float32:
        """(N, K, 3); all unlabelled where the picture has none."""
        outlines, wanted = sample.outlines, self._keypoints
        if outlines is None or outlines.keypoints is None:
            return np.zeros((len(sample.boxes), len(wanted), 3), np.float32)
        found = outlines.names or tuple(map(str, range(outlines.keypoints.shape[1])))
        if len(found) != len(wanted) or (outlines.names and outlines.names != wanted):
            raise DataError(
                f"{self.name}: {sample.image_id} has the {len(found)} key points {', '.join(found[:4])}…, the recipe's "
                f"model.keypoints are the {len(wanted)} {', '.join(wanted[:4])}…; expected the same in the same order"
            )
        return outlines.keypoints


def _detect(dataset: Dataset) -> DataTask:
    if dataset.task != "detect":
        raise DataError(
            f"{dataset.name}: masks of objects and key points go with boxes, found labels to {dataset.task}"
        )
    return "detect"


def mirror_of(names: Sequence[str]) -> tuple[int, ...]:
    """Where a mirror image has each key point: ``left_`` and ``right_`` of the same name change places."""
    place = {name: number for number, name in enumerate(names)}
    return tuple(place.get(_other_side(name), number) for number, name in enumerate(names))


def _other_side(name: str) -> str:
    for side, other in (("left", "right"), ("right", "left")):
        if name.startswith(f"{side}_"):
            return f"{other}_{name.removeprefix(f'{side}_')}"
    return name


def _owner(sample: Sample) -> UInt8:
    """(H, W) row of each pixel's object; where several claim one, the smallest has it."""
    height, width = sample.image.shape[:2]
    owner = np.full((height, width), NO_OBJECT, np.uint8)
    if sample.outlines is None:
        return owner
    masks = {row: filled(shape, height, width) for row, shape in enumerate(_learned(sample.outlines)) if shape}
    for row in sorted(masks, key=lambda row: -int(np.count_nonzero(masks[row]))):
        if not sample.ignore[row]:
            owner[masks[row]] = row
    return owner


def _learned(outlines: Outlines) -> Sequence[object]:
    """Outlines of the objects that a map of bytes can tell apart."""
    return outlines.segmentations[:NO_OBJECT]
