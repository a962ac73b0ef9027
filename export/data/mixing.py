"""Two pictures in one, and holes in one: mixup, CutMix and cutout. H W pixels.

Mixup for labels of whole pictures follows Zhang et al. 2018, for boxes YOLOX (Ge et al. 2021); CutMix Yun et al. 2019;
cutout DeVries and Taylor 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from edge.types import Float32
from export.data.geometry import PAD_LEVEL
from export.data.sample import IGNORE_LABEL, Sample

# boxes of both pictures are learned, so both must be seen: about half of each
_BOXES_BETA = 32.0
# a box of which cutout hides more than this is neither learned nor counted
_MAX_HIDDEN = 0.6

Hole = tuple[int, int, int, int]


def gathered(samples: Sequence[Sample]) -> Sample:
    """All boxes of several samples, in the first one."""
    return replace(
        samples[0],
        boxes=np.concatenate([sample.boxes for sample in samples]),
        labels=np.concatenate([sample.labels for sample in samples]),
        ignore=np.concatenate([sample.ignore for sample in samples]),
        weight=np.concatenate([sample.weight for sample in samples]),
    )


def blend_boxes(first: Sample, second: Sample, rng: Generator) -> Sample:
    """Both pictures shine through, both sets of boxes count."""
    mixed = _blended(first, second, float(rng.beta(_BOXES_BETA, _BOXES_BETA)))
    return replace(gathered([first, second]), image=mixed.image)


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
    """Hide a rectangle; what lies under it is unlabelled, and boxes that vanish are ignored."""
    height, width = sample.image.shape[:2]
    share = float(rng.uniform(0.02, max(0.02, max_area)))
    left, top, right, bottom = _hole(height, width, share, float(np.exp(rng.uniform(-0.7, 0.7))), rng)
    image = sample.image.copy()
    image[top:bottom, left:right] = PAD_LEVEL
    mask = sample.mask
    if mask is not None:
        mask = mask.copy()
        mask[top:bottom, left:right] = IGNORE_LABEL
    hidden = _hidden_share(sample, np.array([left, top, right, bottom], np.float32))
    return replace(sample, image=image, mask=mask, ignore=sample.ignore | (hidden > _MAX_HIDDEN))


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
