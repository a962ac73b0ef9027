"""Random changes to training pictures: where they land, and the pictures of which one is made. h w target pixels.

Mosaic follows YOLOv4 (Bochkovskiy et al. 2020); ``export.data.mixing`` has the rest. Boxes, masks and key points move
with the pixels; placement has no rotation, so boxes stay exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from edge.models.manifest import InputSpec
from edge.models.preprocess import fit
from edge.types import UInt8
from export.data.augment_pixels import PixelSettings, change_pixels
from export.data.geometry import (
    PAD_LEVEL,
    Placement,
    Window,
    numbered,
    paint,
    paint_mask,
    place_labels,
    turned,
)
from export.data.mixing import blend_boxes, blend_labels, cut_mix, cut_out, gathered
from export.data.sample import IGNORE_LABEL, NO_OBJECT, DataTask, Sample

Mix = Callable[[Sample, Sample, Generator], Sample]
Size = tuple[int, int]
_PROBABILITIES = (
    "flip", "turn", "crop", "focus", "colour", "mosaic", "mixup", "cutmix", "cutout", "blur", "noise", "jpeg",
)  # fmt: skip
_ASPECT_JITTER = 0.1
# which settings would change nothing in which task: a recipe that asks for them means something else
_NO_EFFECT: dict[DataTask, tuple[str, ...]] = {
    "detect": ("cutmix",),
    "segment": ("focus", "mixup", "cutmix"),
    "classify": ("focus", "mosaic"),
}


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How strongly pictures are changed. Plain names are probabilities in [0, 1] per picture.

    Attributes:
        flip: mirror left and right.
        turn: turn by one, two or three right angles: for pictures without an up, from above or under a microscope.
        crop: scale by a factor in [scale_min, scale_max] of the letterboxed size and put at a random place: larger
            pictures are cropped, smaller ones padded. Otherwise the picture is letterboxed.
        focus: of the crops, how many are put so that a random object's centre is inside (detection only).
        shift: how far a cropped picture may also move, as a share of the target's size (for small pictures).
        colour: change hue, saturation and value by up to these shares.
        mosaic: four pictures in one (not for classification).
        mixup: blend with another picture; detection keeps the boxes of both, classification learns both labels by
            their shares (not for segmentation).
        cutmix: a rectangle of another picture, both labels learned by their shares (classification only; of the
            pictures that mixup left alone).
        cutout: hide up to ``cutout_area`` of the picture under a grey rectangle.
        blur, noise, jpeg: what cameras do, with ``blur_sigma_px``, ``noise_sigma`` (grey levels) and
            ``jpeg_quality_min`` as their worst.
    """

    flip: float = 0.5
    turn: float = 0.0
    crop: float = 1.0
    scale_min: float = 0.6
    scale_max: float = 1.5
    focus: float = 0.0
    shift: float = 0.0
    colour: float = 1.0
    hue: float = 0.015
    saturation: float = 0.6
    value: float = 0.4
    mosaic: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    cutout: float = 0.0
    cutout_area: float = 0.2
    blur: float = 0.05
    blur_sigma_px: float = 1.5
    noise: float = 0.05
    noise_sigma: float = 8.0
    jpeg: float = 0.05
    jpeg_quality_min: int = 40

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1], found {getattr(self, name)}")
        if not 0 < self.scale_min <= self.scale_max:
            raise ValueError(f"expected 0 < scale_min <= scale_max, found {self.scale_min} and {self.scale_max}")

    def without_mixing(self) -> AugmentSettings:
        """The same without mosaic, mixup and CutMix, for the last epochs (Ge et al. 2021, section 2.1)."""
        return replace(self, mosaic=0.0, mixup=0.0, cutmix=0.0)

    def without_effect(self, task: DataTask) -> list[str]:
        """Names of what is asked for and would change nothing in this task."""
        return [name for name in _NO_EFFECT[task] if getattr(self, name)]

    def pixels(self) -> PixelSettings:
        """What concerns the colours only."""
        return PixelSettings(
            self.colour, self.hue, self.saturation, self.value, self.blur, self.blur_sigma_px,
            self.noise, self.noise_sigma, self.jpeg, self.jpeg_quality_min,
        )  # fmt: skip


def augment(
    sample: Sample,
    size: Size,
    settings: AugmentSettings,
    rng: Generator,
    other: Callable[[int], Sample],
    num_samples: int,
    task: DataTask,
) -> Sample:
    """Make one training picture.

    Args:
        sample: the picture that it is about.
        size: height and width of the result.
        settings: what may happen.
        rng: the only source of chance.
        other: reads another picture of the data set, for mosaic, mixup and CutMix.
        num_samples: how many there are.
        task: decides what makes sense.

    Returns:
        A sample of exactly this size, with its own memory.
    """
    if settings.turn:
        sample, other = _turn(sample, settings, rng), _turning(other, settings, rng)
    made = _one(sample, size, settings, rng, other, num_samples, task)
    if mix := _mixing(task, settings, rng):
        partner = _one(other(int(rng.integers(num_samples))), size, settings, rng, other, num_samples, task)
        made = mix(made, partner, rng)
    image = change_pixels(made.image, settings.pixels(), rng)
    made = replace(made, image=image)
    if rng.random() < settings.cutout:
        made = cut_out(made, settings.cutout_area, rng)
    return made


def _mixing(task: DataTask, settings: AugmentSettings, rng: Generator) -> Mix | None:
    """How this picture is mixed with another one, None if it is not."""
    if task == "segment":
        return None
    if rng.random() < settings.mixup:
        return blend_boxes if task == "detect" else blend_labels
    if task == "classify" and rng.random() < settings.cutmix:
        return cut_mix
    return None


def _turn(sample: Sample, settings: AugmentSettings, rng: Generator) -> Sample:
    return turned(sample, int(rng.integers(1, 4))) if rng.random() < settings.turn else sample


def _turning(other: Callable[[int], Sample], settings: AugmentSettings, rng: Generator) -> Callable[[int], Sample]:
    return lambda index: _turn(other(index), settings, rng)


def letterboxed(width: int, height: int, size: Size) -> Placement:
    """How ``edge.models.preprocess`` places a picture of this size."""
    spec = InputSpec(name="frames", width=size[1], height=size[0], layout="nhwc", dtype="uint8", colour="bgr")
    return Placement.of_letterbox(fit(width, height, spec))


def _one(
    sample: Sample,
    size: Size,
    settings: AugmentSettings,
    rng: Generator,
    other: Callable[[int], Sample],
    num_samples: int,
    task: DataTask,
) -> Sample:
    """One picture, or a mosaic of four."""
    if task != "classify" and rng.random() < settings.mosaic:
        rest = [other(int(rng.integers(num_samples))) for _ in range(3)]
        return _mosaic([sample, *rest], size, settings, rng)
    height, width = size
    whole = Window(0, 0, width, height)
    return _compose([(sample, _place(sample, size, settings, rng), whole)], size)


def _place(sample: Sample, size: Size, settings: AugmentSettings, rng: Generator) -> Placement:
    """A random placement in the whole target."""
    height, width = size
    image = sample.image
    placement = letterboxed(image.shape[1], image.shape[0], size)
    if rng.random() < settings.crop:
        scale_x, scale_y = _random_scale(placement, settings, rng)
        free_x, free_y = width - image.shape[1] * scale_x, height - image.shape[0] * scale_y
        shift_x = free_x * rng.random() + width * settings.shift * rng.uniform(-1, 1)
        shift_y = free_y * rng.random() + height * settings.shift * rng.uniform(-1, 1)
        if len(sample.boxes) and rng.random() < settings.focus:
            box = sample.boxes[rng.integers(len(sample.boxes))]
            shift_x = _shift_to(float(box[0] + box[2]) / 2 * scale_x, width, free_x, rng)
            shift_y = _shift_to(float(box[1] + box[3]) / 2 * scale_y, height, free_y, rng)
        placement = Placement(scale_x, scale_y, shift_x, shift_y)
    return placement.mirrored(width) if rng.random() < settings.flip else placement


def _shift_to(point: float, length: int, free: float, rng: Generator) -> float:
    """A random shift that brings this point of the scaled picture into the target, showing nothing outside of it."""
    shift = length * rng.random() - point
    return float(np.clip(shift, min(free, 0.0), max(free, 0.0)))


def _random_scale(placement: Placement, settings: AugmentSettings, rng: Generator) -> tuple[float, float]:
    factor = float(np.exp(rng.uniform(np.log(settings.scale_min), np.log(settings.scale_max))))
    aspect = 1 + rng.uniform(-_ASPECT_JITTER, _ASPECT_JITTER) if settings.scale_min < settings.scale_max else 1.0
    return placement.scale_x * factor * aspect, placement.scale_y * factor / aspect


def _mosaic(samples: list[Sample], size: Size, settings: AugmentSettings, rng: Generator) -> Sample:
    """Four pictures around a random point; each fills its quarter or touches the point."""
    height, width = size
    x, y = int(width * rng.uniform(0.25, 0.75)), int(height * rng.uniform(0.25, 0.75))
    windows = [Window(0, 0, x, y), Window(x, 0, width, y), Window(0, y, x, height), Window(x, y, width, height)]
    parts = []
    for sample, window in zip(samples, windows, strict=True):
        fitted = letterboxed(sample.image.shape[1], sample.image.shape[0], size)
        scale_x, scale_y = _random_scale(fitted, settings, rng)
        shift_x = _quarter_shift(sample.image.shape[1] * scale_x, window.left, window.right, window.left == 0, rng)
        shift_y = _quarter_shift(sample.image.shape[0] * scale_y, window.top, window.bottom, window.top == 0, rng)
        placement = Placement(scale_x, scale_y, shift_x, shift_y)
        if rng.random() < settings.flip:
            # mirrored in its own place
            placement = replace(placement, scale_x=-scale_x, shift_x=shift_x + sample.image.shape[1] * scale_x)
        parts.append((sample, placement, window))
    return _compose(parts, size)


def _quarter_shift(length: float, start: int, stop: int, is_first: bool, rng: Generator) -> float:
    """Where a picture of this length begins: anywhere if it covers the window, else touching the mosaic's centre."""
    free = stop - start - length
    if free < 0:
        return float(start + free * rng.random())
    return float(start + free if is_first else start)


def _compose(parts: list[tuple[Sample, Placement, Window]], size: Size) -> Sample:
    """Paint placed pictures into their windows and gather their labels."""
    height, width = size
    image: UInt8 = np.full((height, width, 3), PAD_LEVEL, np.uint8)
    head = parts[0][0]
    mask = None if head.mask is None else np.full((height, width), IGNORE_LABEL, np.uint8)
    owner = None if head.owner is None else np.full((height, width), NO_OBJECT, np.uint8)
    placed: list[Sample] = []
    for sample, placement, window in parts:
        paint(sample.image, image, placement, window)
        if mask is not None and sample.mask is not None:
            paint_mask(sample.mask, mask, placement, window)
        moved = place_labels(sample, placement, window)
        if owner is not None and moved.owner is not None:
            so_far = sum(len(other.boxes) for other in placed)
            own = numbered(moved.owner, np.ones(len(moved.boxes), np.bool_), so_far)
            paint_mask(own, owner, placement, window)
        placed.append(moved)
    return replace(gathered(placed), image=image, image_id=head.image_id, mask=mask, owner=owner, label=head.label)
