"""Pictures cut into tiles, and what was seen in them put together again."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.boxes import iou
from edge.config.load import parse_config
from edge.errors import ConfigError
from edge.models.tiles import TileGrid
from edge.types import Detections, Float32

GRIDS = st.builds(TileGrid, st.integers(1, 5), st.integers(1, 4), st.floats(0.1, 0.5))
SIZES = st.tuples(st.integers(200, 1200), st.integers(200, 1200))


def seen_in(
    grid: TileGrid, boxes: Float32, score: Float32, width: int, height: int, least_px: float
) -> list[Detections]:
    """What a perfect detector sees in each tile: objects cut at its edges, and in the whole picture only large ones."""
    parts = []
    for index, (left, top, right, bottom) in enumerate(grid.places(width, height)):
        cut = np.clip(boxes, [left, top, left, top], [right, bottom, right, bottom])
        size = cut[:, 2:] - cut[:, :2]
        shown = (size > 4).all(axis=1)
        if index == grid.columns * grid.rows:
            shown &= (size > least_px).all(axis=1)
        moved = (cut - np.tile(np.array([left, top], np.float32), 2)).astype(np.float32)
        # a part of an object may look more certain than the whole of it
        parts.append(Detections(moved[shown], score[shown] * np.float32(0.99), np.zeros(int(shown.sum()), np.int32)))
    return parts


@given(GRIDS, SIZES)
def test_tiles_cover_the_picture_and_stay_inside(grid: TileGrid, size: tuple[int, int]) -> None:
    width, height = size
    seen = np.zeros((height, width), np.int32)
    places = grid.places(width, height)
    assert len(places) == grid.columns * grid.rows + 1
    for left, top, right, bottom in places[:-1]:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1


@given(st.integers(2, 5), st.floats(0.1, 0.5), st.integers(300, 4000))
def test_neighbours_share_what_was_asked_for(columns: int, overlap: float, width: int) -> None:
    places = TileGrid(columns, 1, overlap).places(width, 100)[:-1]
    for before, after in itertools.pairwise(places):
        assert before[2] - after[0] >= overlap * (before[2] - before[0]) - 2


@settings(max_examples=examples(150), deadline=None)
@given(GRIDS, SIZES, st.integers(0, 10_000))
def test_every_object_is_found_once_and_whole(grid: TileGrid, size: tuple[int, int], seed: int) -> None:
    width, height = size
    rng = np.random.default_rng(seed)
    tile = grid.places(width, height)[0]
    shared = grid.overlap * min(tile[2] - tile[0], tile[3] - tile[1])
    side = rng.uniform(min(10, shared * 0.5), max(11.0, shared * 0.9), (12, 2))
    place = rng.uniform(0, 1, (12, 2)) * (np.array([width, height]) - side)
    boxes = np.concatenate((place, place + side), axis=1).astype(np.float32)
    # objects that hide one another are another matter
    boxes = boxes[(np.triu(iou(boxes, boxes), 1) == 0).all(axis=0)]
    score = rng.uniform(0.5, 1, len(boxes)).astype(np.float32)
    large_px = shared * 3
    found = grid.merge(seen_in(grid, boxes, score, width, height, large_px), width, height, 0.5)
    if shared > 24:
        whole = iou(boxes, found.xyxy) > 0.99
        assert (whole.sum(axis=1) == 1).all()
        assert len(found) == len(boxes)


def test_an_object_larger_than_the_overlap_is_found_in_the_whole_picture() -> None:
    grid = TileGrid(3, 2)
    boxes = np.array([[100, 80, 1100, 700]], np.float32)
    found = grid.merge(seen_in(grid, boxes, np.array([0.9], np.float32), 1280, 720, 100), 1280, 720, 0.5)
    assert found.xyxy.tolist() == boxes.tolist()


def test_an_object_that_only_tiles_show_in_parts_is_not_lost() -> None:
    grid = TileGrid(2, 1, 0.1)
    boxes = np.array([[300, 80, 900, 200]], np.float32)
    found = grid.merge(seen_in(grid, boxes, np.array([0.9], np.float32), 1280, 720, 5000), 1280, 720, 0.5)
    assert len(found) == 2


def test_objects_of_two_classes_at_one_place_both_stay() -> None:
    grid = TileGrid(1, 1)
    both = Detections(
        np.array([[10, 10, 60, 90]] * 2, np.float32), np.array([0.9, 0.8], np.float32), np.array([0, 1], np.int32)
    )
    assert sorted(grid.merge([both, both], 200, 100, 0.5).class_id.tolist()) == [0, 1]


def test_nothing_is_an_ordinary_case() -> None:
    grid = TileGrid(2, 2)
    empty = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
    assert len(grid.merge([empty] * 5, 200, 100, 0.5)) == 0


@pytest.mark.parametrize("tiles", [[0, 1], [9, 1], [2], "2x2"])
def test_impossible_tiles_are_a_config_error(tiles: object) -> None:
    stream = {"name": "a", "source": "x.mp4", "tiles": tiles}
    with pytest.raises(ConfigError, match="tiles"):
        parse_config({"model": {"path": str(Path("m.onnx"))}, "streams": [stream]}, where="x")
