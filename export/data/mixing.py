"""Two pictures in one, and holes in one: mixup, CutMix and cutout. H W pixels.

Mixup for labels of whole pictures follows Zhang et al. 2018, for boxes YOLOX (Ge et al. 2021); CutMix Yun et al. 2019;
cutout DeVries and Taylor 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from edge.types import Float32, UInt8
from export.data.geometry import PAD_LEVEL, numbered
from export.data.sample import IGNORE_LABEL, NO_OBJECT, Sample

# boxes of both pictures are learned, so both must be seen: about half of each
_BOXES_BETA = 32.0
# a box of which cutout hides more than this is neither learned nor counted
_MAX_HIDDEN = 0.6

Hole = tuple[int, int, int, int]


def gathered(samples: Sequence[Sample]) -> Sample:
    """All boxes and key points of several samples, in the first one."""
    points = [sample.points for sample in samples if sample.points is not None]
    return replace(
        samples[0],
        boxes=np.concatenate([sample.boxes for sample in samples]),
        labels=np.concatenate([sample.labels for sample in samples]),
        ignore=np.concatenate([sample.ignore for sample in samples]),
        weight=np.concatenate([sample.weight for sample in samples]),
        points=np.concatenate(points) if points else None,
    )


def blend_boxes(first: Sample, second: Sample, rng: Generator) -> Sample:
    """Both pictures shine through, both sets of boxes count."""
    mixed = _blended(first, second, float(rng.beta(_BOXES_BETA, _BOXES_BETA)))
    return replace(gathered([first, second]), image=mixed.image, owner=_both_owners(first, second))


def _both_owners(first: Sample, second: Sample) -> UInt8 | None:
    """Where both show an object, the first one's has the pixel."""
    if first.owner is None or second.owner is None:
        return None
    behind = numbered(second.owner, np.ones(len(second.boxes), np.bool_), len(first.boxes))
    owner: UInt8 = np.where(first.owner == NO_OBJECT, behind, first.owner)
    return owner


def blend_labels(first: Sample, second: Sample, rng: Generator) -> Sample:
    """Both pictures shine through by a share from [0, 1), and so do their labels."""
    share = float(rng.random())
    return _labelled_by_both(_blended(first, second, share), second, share)


def cut_mix(first: Sample, second: Sample, rng: Generator) -> Sample:
    """A rectangle of the second picture in the first one; the labels count by what is seen of each."""
    height, width = first.image.shape[:2]
    left, top, right, bottom = _hole(height, width, float(rng.random()), 1.0, rng)
    image = first.image.copy()
    image[top:bottom, left:right] = second.image[top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return _labelled_by_both(replace(first, image=image), second, share)


def cut_out(sample: Sample, max_area: float, rng: Generator) -> Sample:
    """Hide a rectangle; what lies under it is unlabelled, key points hidden, and boxes that vanish are ignored."""
    height, width = sample.image.shape[:2]
    share = float(rng.uniform(0.02, max(0.02, max_area)))
    left, top, right, bottom = _hole(height, width, share, float(np.exp(rng.uniform(-0.7, 0.7))), rng)
    image = sample.image.copy()
    image[top:bottom, left:right] = PAD_LEVEL
    mask, owner, points = sample.mask, sample.owner, sample.points
    if mask is not None:
        mask = mask.copy()
        mask[top:bottom, left:right] = IGNORE_LABEL
    if owner is not None:
        owner = owner.copy()
        owner[top:bottom, left:right] = NO_OBJECT
    if points is not None:
        points = points.copy()
        x, y, seen = points[..., 0], points[..., 1], points[..., 2]
        seen[(x >= left) & (x < right) & (y >= top) & (y < bottom) & (seen == 2)] = 1
    hidden = _hidden_share(sample, np.array([left, top, right, bottom], np.float32))
    ignore = sample.ignore | (hidden > _MAX_HIDDEN)
    return replace(sample, image=image, mask=mask, owner=owner, points=points, ignore=ignore)


def _blended(first: Sample, second: Sample, share: float) -> Sample:
    mixed = first.image * np.float32(share) + second.image * np.float32(1 - share)
    return replace(first, image=np.rint(mixed).astype(np.uint8))


def _labelled_by_both(sample: Sample, second: Sample, share: float) -> Sample:
    return replace(sample, second_label=second.label, label_share=share)


def _hole(height: int, width: int, share: float, aspect: float, rng: Generator) -> Hole:
    """A rectangle somewhere inside, of this share of the area: left, top, right, bottom."""
    hole_width = min(width, max(1, round(width * np.sqrt(share * aspect))))
    hole_height = min(height, max(1, round(height * np.sqrt(share / aspect))))
    left, top = int(rng.integers(width - hole_width + 1)), int(rng.integers(height - hole_height + 1))
    return left, top, left + hole_width, top + hole_height


def _hidden_share(sample: Sample, hole: Float32) -> Float32:
    """(N,) how much of each box lies under the hole."""
    low = np.maximum(sample.boxes[:, :2], hole[:2])
    high = np.minimum(sample.boxes[:, 2:], hole[2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    size = np.maximum(sample.boxes[:, 2:] - sample.boxes[:, :2], 1e-6).prod(axis=1)
    share: Float32 = shared / size
    return share
