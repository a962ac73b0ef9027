"""Planes of luma and chroma are the same picture as their BGR, wherever they go: in the model's input, cut, turned."""

from __future__ import annotations

import threading
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.models.manifest import InputSpec
from edge.models.preprocess import Preprocessor
from edge.models.tiles import TileGrid
from edge.pictures.colour import to_bgr
from edge.pictures.frames import frame_of, planes_of
from edge.pictures.planes import Colour, PlaneForm, PlaneFormat, Planes
from edge.types import Frame, UInt8

MATRICES = ("bt601", "bt709", "bt2020")
COLOURS = [Colour(matrix, is_full) for matrix in MATRICES for is_full in (False, True)]  # type: ignore[arg-type]
formats = st.sampled_from(["i420", "nv12"])
colours = st.sampled_from(COLOURS)
sides = st.integers(160, 400)


def spec(**changes: object) -> InputSpec:
    base = {"name": "x", "width": 64, "height": 48, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"}
    return InputSpec.model_validate(base | changes)


def scene(width: int, height: int, kind: PlaneFormat = "i420", colour: Colour = COLOURS[0], seed: int = 0) -> Planes:
    """As a camera gives it: every detail in luma, a level of chroma from sample to sample; no colour that BGR lacks."""
    rng = np.random.default_rng(seed)
    planes = PlaneForm(kind, width, height, colour).over(np.empty(PlaneForm(kind, width, height).num_bytes, np.uint8))
    planes.arrays[0][...] = rng.integers(80, 176, (height, width))
    for chroma in planes.arrays[1:]:
        coarse = rng.integers(118, 139, (3, 3, *chroma.shape[2:])).astype(np.uint8)
        chroma[...] = cv2.resize(coarse, (chroma.shape[1], chroma.shape[0]), interpolation=cv2.INTER_CUBIC)
    return planes


def agree(first: Any, second: Any) -> bool:
    """Whether two pictures differ by two grey levels at most; of a hundred values, one may be rounded further apart."""
    differs = np.abs(first.astype(float) - second)
    return first.shape == second.shape and differs.max() <= 4 and float((differs > 2).mean()) <= 0.01


def levels(first: UInt8, second: UInt8) -> int:
    """By how many grey levels two pictures differ at most."""
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second).max())


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", ["i420", "nv12"])
@pytest.mark.parametrize("size", [(64, 48), (65, 49), (63, 48), (64, 47)])
def test_bgr_is_what_the_standards_say(size: tuple[int, int], kind: PlaneFormat, colour: Colour) -> None:
    """Except for FFmpeg's rounding; each chroma sample stands for a square of four pixels."""
    planes = scene(*size, kind, colour)
    luma, *chroma = planes.separate
    whole = [plane.repeat(2, 0).repeat(2, 1)[: size[1], : size[0]] for plane in chroma]
    expected = cv2.transform(np.dstack([luma, *whole]), to_bgr(colour))
    assert levels(planes.bgr, expected) <= 2


@settings(max_examples=examples(150), deadline=None)
@given(sides, sides, formats, colours, st.integers(0, 99), st.sampled_from([(64, 48), (96, 96), (31, 77), (300, 200)]))
def test_the_models_input_is_the_same_from_planes_as_from_bgr(
    width: int, height: int, kind: PlaneFormat, colour: Colour, seed: int, model: tuple[int, int]
) -> None:
    planes = scene(width, height, kind, colour, seed)
    preprocessors = [Preprocessor(spec(width=model[0], height=model[1]), 1) for _ in range(2)]
    ours, boxes = preprocessors[0].images([planes])
    theirs, expected = preprocessors[1].images([planes.bgr])
    assert boxes == expected
    assert agree(ours[0], theirs[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "stretch"},
        {"layout": "nchw", "dtype": "float32", "colour": "rgb"},
        {"layout": "nhwc", "dtype": "float32", "colour": "rgb"},
        {"interpolation": "antialias"},
        {"interpolation": "cubic"},
        {"resize": "crop", "crop": 0.875},
    ],
)
def test_every_kind_of_input_takes_planes(changes: dict[str, Any]) -> None:
    planes = scene(161, 91)
    tensors = [Preprocessor(spec(**changes), 1).images([image])[0] for image in (planes, planes.bgr)]
    assert agree(*tensors)


def test_rows_of_different_pictures_keep_their_own_padding() -> None:
    preprocessor = Preprocessor(spec(pad=9, layout="nchw", dtype="float32"), 2)
    wide, high = scene(200, 50), scene(50, 200)
    pairs: list[list[UInt8 | Planes]] = [[wide, high], [high, wide], [wide.bgr, wide]]
    for images in pairs:
        tensor, _ = preprocessor.images(images)
        for row, image in zip(tensor, images, strict=True):
            alone, _ = Preprocessor(spec(pad=9, layout="nchw", dtype="float32"), 1).images([image])
            assert (row == alone[0]).all()


@settings(max_examples=examples(60), deadline=None)
@given(st.data(), formats, colours)
def test_a_part_is_the_part_of_its_bgr(data: st.DataObject, kind: PlaneFormat, colour: Colour) -> None:
    width, height = data.draw(sides), data.draw(sides)
    left, top = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    right, bottom = data.draw(st.integers(left + 4, width)), data.draw(st.integers(top + 4, height))
    planes = scene(width, height, kind, colour)
    part = planes.cut(left, top, right, bottom)
    assert part.size == (right - left, bottom - top)
    assert levels(part.bgr, planes.bgr[top:bottom, left:right]) <= 5


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("size", [(64, 48), (65, 48), (64, 49)])
def test_a_turned_picture_is_its_turned_bgr(size: tuple[int, int], degrees: Literal[90, 180, 270]) -> None:
    planes = scene(*size)
    turned = np.rot90(planes.bgr, -degrees // 90)
    # of odd sides each chroma sample stands for half of two pairs
    assert levels(planes.rotated(degrees).bgr, turned) <= (2 if size == (64, 48) else 4)


def test_another_size_is_that_of_its_bgr() -> None:
    planes = scene(160, 120)
    expected = cv2.resize(planes.bgr, (75, 55), interpolation=cv2.INTER_AREA)
    assert levels(planes.resized(75, 55).bgr, np.asarray(expected, np.uint8)) <= 6


def test_tiles_of_planes_are_tiles_of_their_bgr() -> None:
    planes, grid = scene(160, 120), TileGrid(3, 2)
    for ours, theirs in zip(grid.cut(planes), grid.cut(planes.bgr), strict=True):
        assert levels(Planes.of(ours).bgr, Planes.of(theirs).bgr) <= 5


def test_bgr_is_made_once_and_nobody_may_write_to_it() -> None:
    planes, made = scene(64, 48), []
    threads = [threading.Thread(target=lambda: made.append(planes.bgr)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(image) for image in made}) == 1
    assert not planes.bgr.flags.writeable
    copy = planes.bgr_copy()
    copy[...] = 0
    assert planes.bgr.any()


def test_what_is_bgr_already_is_given_as_it_is() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    frame = Frame("door", 0, 0, 0, None, image)
    assert frame.image is image
    assert (frame.width, frame.height) == (6, 4)
    with pytest.raises(ValueError, match="a frame needs a picture"):
        Frame("door", 0, 0, 0, None)


def test_luma_costs_nothing_where_there_are_planes() -> None:
    planes = scene(64, 48)
    assert Frame("door", 0, 0, 0, None, planes).luma is planes.arrays[0]
    assert Frame("door", 0, 0, 0, None, planes.bgr).luma.shape == (48, 64)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("size", [(64, 48), (66, 46)])
def test_a_decoded_frame_shares_its_memory(size: tuple[int, int], colour: Colour) -> None:
    planes = scene(*size, "i420", colour)
    decoded = planes_of(frame_of(planes))
    assert decoded.form == planes.form
    assert all((ours == theirs).all() for ours, theirs in zip(decoded.arrays, planes.arrays, strict=True))
    assert not any(array.flags.writeable for array in decoded.arrays)
    assert (decoded.bgr == planes.bgr).all()
