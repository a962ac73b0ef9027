"""The synthetic street: the same everywhere, and its truth is exact."""

from __future__ import annotations

import numpy as np
import pytest
from effort import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.errors import DataError
from edge.scene.compose import Sprite, blend, darken, place
from edge.scene.street import Street
from edge.scene.traffic import Traffic
from edge.scene.truth import (
    SceneTruth,
    Silhouette,
)
from edge.scene.variation import draw_variation
from export.data.synthetic import SyntheticDataset, open_synthetic_dataset


def _sprite(seed: int) -> Sprite:
    rng = np.random.default_rng(seed)
    alpha = np.zeros((60, 40), np.uint8)
    alpha[5:-5, 5:-5] = rng.integers(0, 256, (50, 30))
    colour = (alpha[:, :, None] * rng.random(3)).astype(np.uint8)
    return Sprite(np.dstack([colour, alpha]), (20.0, 55.0), 1.0)


def _painted(picture: np.ndarray, sprite: Sprite, at: tuple[float, float], track_id: int, z: float = 5.0) -> Silhouette:
    placed = place(sprite, 0.8, at, blur_px=0.5)
    depth = np.full(picture.shape[:2], 100.0, np.float32)
    depth[:, 60:64] = 2.0  # a lamp post
    shown = blend(picture, placed, (0, 0, 0), 0.0, depth, z)
    return Silhouette(0, track_id, placed.left, placed.top, placed.image[:, :, 3], shown)


def _on_canvas(one: Silhouette, shape: tuple[int, int], mask: np.ndarray) -> np.ndarray:
    """The mask on a canvas of the picture's size, pixel by pixel."""
    canvas = np.zeros(shape, bool)
    corner = [max(0, one.top), max(0, one.left)] if mask is one.shown else [one.top, one.left]
    places = np.argwhere(mask > 0) + corner
    places = places[((places >= 0) & (places < shape)).all(axis=1)]
    canvas[places[:, 0], places[:, 1]] = True
    return canvas


@example(seed=0, x=137.0, y=1.0)  # beyond the right edge
@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 1000), x=st.floats(-20, 150), y=st.floats(0, 140))
def test_every_painted_pixel_lies_in_the_box_and_the_box_is_tight(seed: int, x: float, y: float) -> None:
    picture = np.full((100, 120, 3), 255, np.uint8)
    one = _painted(picture, _sprite(seed), (x, y), 7)
    truth = SceneTruth([one], np.zeros((100, 120), np.uint8))
    changed = (picture != 255).any(axis=2)
    assert np.array_equal(truth.owner >= 0, _on_canvas(one, (100, 120), one.shown))
    assert not (changed & (truth.owner < 0)).any()
    whole = _on_canvas(one, (100, 120), one.mask)
    assert len(truth) == int(whole.any())
    for x1, y1, x2, y2 in truth.xyxy.astype(int):
        rows, columns = np.nonzero(whole)
        assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    hidden_by_post = whole[:, 60:64]
    assert not (truth.owner[:, 60:64][hidden_by_post] >= 0).any()


def test_what_stands_in_front_takes_visibility_away() -> None:
    picture = np.zeros((100, 120, 3), np.uint8)
    solid = Sprite(np.full((40, 20, 4), 255, np.uint8), (10.0, 40.0), 1.0)
    rear, near = _painted(picture, solid, (30.0, 70.0), 1), _painted(picture, solid, (38.0, 74.0), 2)
    background = np.zeros((100, 120), np.uint8)
    alone, both = SceneTruth([rear], background), SceneTruth([rear, near], background)
    assert alone.visibility[0] == 1.0
    assert 0.2 < both.visibility[0] < 0.9
    assert both.visibility[1] == 1.0
    assert np.array_equal(both.xyxy[0], alone.xyxy[0])


def test_what_is_outside_the_picture_counts_as_hidden() -> None:
    picture = np.zeros((100, 120, 3), np.uint8)
    solid = Sprite(np.full((40, 20, 4), 255, np.uint8), (10.0, 40.0), 1.0)
    truth = SceneTruth([_painted(picture, solid, (0.0, 70.0), 1)], np.zeros((100, 120), np.uint8))
    assert truth.visibility[0] == pytest.approx(0.5, abs=0.1)
    assert truth.xyxy[0, 0] == 0


def test_track_ids_are_never_used_again() -> None:
    traffic = Traffic(draw_variation(4, 640, 360, wide=False), 14)
    gone: set[int] = set()
    before: set[int] = set()
    looks: dict[int, object] = {}
    for step in range(600):
        actors = traffic.at(step * 0.5)
        now = {actor.track_id for actor in actors}
        assert len(now) == len(actors)
        gone |= before - now
        assert not now & gone
        for actor in actors:
            assert looks.setdefault(actor.track_id, actor.model) == actor.model
        before = now
    assert len(looks) > 25


def test_movement_is_smooth() -> None:
    traffic = Traffic(draw_variation(4, 640, 360, wide=False), 14)
    before = {actor.track_id: actor for actor in traffic.at(0.0)}
    for frame in range(1, 200):
        now = {actor.track_id: actor for actor in traffic.at(frame / 30)}
        for track_id in before.keys() & now.keys():
            a, b = before[track_id], now[track_id]
            assert np.hypot(a.s - b.s, a.t - b.t) < 0.6
        before = now


@pytest.mark.parametrize("arguments", [(63, 180, 30, 1), (320, 180, 0, 1), (320, 180, 30, -1)])
def test_an_impossible_street_is_refused(arguments: tuple[int, int, float, int]) -> None:
    with pytest.raises(ValueError, match="not possible"):
        Street(1, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthetic:beach", "no such synthetic data set"),
        ("synthetic:street?colour=1", "unknown key 'colour'"),
        ("synthetic:street?count=many", "whole numbers"),
        ("synthetic:street?count=0", "count from 1"),
        ("synthetic:street?size=640", "whole numbers"),
        ("synthetic:street?size=10x10", "size from 64x64"),
    ],
)
def test_a_wrong_data_set_address_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_synthetic_dataset(text, "detect")


def test_a_data_set_address_is_read() -> None:
    data = open_synthetic_dataset("synthetic:street?seed=3&count=20&size=320x180", "segment")
    assert (len(data), data.task, data.name) == (20, "segment", "synthetic:street?seed=3&count=20&size=320x180")
    assert data.fingerprint == SyntheticDataset("x", "segment", 3, 20, 320, 180).fingerprint


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (4, 4), (1, 1)])
def test_a_shadow_may_touch_the_picture_s_edge_anywhere(shape: tuple[int, int]) -> None:
    """OpenCV takes a column of four numbers for a scalar."""
    picture = np.full((*shape, 3), 200, np.uint8)
    darken(picture, np.full((9, 9), 255, np.uint8), 0, 0, np.full(shape, 9.0, np.float32), 3.0)
    assert (picture == 0).all()
    nearer = np.full((*shape, 3), 200, np.uint8)
    darken(nearer, np.full((9, 9), 255, np.uint8), 0, 0, np.full(shape, 2.0, np.float32), 3.0)
    assert (nearer == 200).all()
