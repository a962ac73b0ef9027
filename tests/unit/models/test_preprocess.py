from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.models.manifest import InputSpec
from edge.models.preprocess import Preprocessor, fit


def spec(**changes: object) -> InputSpec:
    base = {"name": "x", "width": 64, "height": 48, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"}
    return InputSpec.model_validate(base | changes)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_frame_of_the_models_size_goes_in_unchanged() -> None:
    image = noise(48, 64)
    tensor, _ = Preprocessor(spec(), 1).images([image])
    assert (tensor[0] == image).all()


def test_the_picture_is_resized_once_and_the_rest_is_padding() -> None:
    image = noise(100, 50)
    tensor, (box,) = Preprocessor(spec(pad=7), 1).images([image])
    left, right = int(box.pad_x), int(box.pad_x) + 24
    assert (tensor[0][:, left:right] == cv2.resize(image, (24, 48), interpolation=cv2.INTER_LINEAR)).all()
    assert (tensor[0][:, :left] == 7).all()
    assert (tensor[0][:, right:] == 7).all()


def test_padding_of_the_last_frame_leaves_no_trace_in_the_next() -> None:
    preprocessor = Preprocessor(spec(pad=9), 1)
    preprocessor.images([noise(48, 64)])
    tensor, _ = preprocessor.images([noise(10, 100)])
    fresh, _ = Preprocessor(spec(pad=9), 1).images([noise(10, 100)])
    assert (tensor == fresh).all()


def test_channels_means_and_layout_are_as_the_manifest_says() -> None:
    image = np.full((48, 64, 3), (10, 20, 30), np.uint8)
    changes = {"layout": "nchw", "dtype": "float32", "colour": "rgb", "mean": (1, 2, 3), "std": (2, 2, 4)}
    tensor, _ = Preprocessor(spec(**changes), 1).images([image])
    assert tensor.shape == (1, 3, 48, 64)
    assert [float(tensor[0, channel, 5, 5]) for channel in range(3)] == [14.5, 9.0, 1.75]


def test_a_fixed_batch_is_padded_with_rows() -> None:
    tensor, boxes = Preprocessor(spec(), 4).images([noise(48, 64)], pad_to=4)
    assert tensor.shape[0] == 4
    assert len(boxes) == 1


def test_top_left_puts_the_picture_in_the_corner() -> None:
    box = fit(50, 100, spec(anchor="top-left"))
    assert (box.pad_x, box.pad_y) == (0, 0)


@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.sampled_from(["letterbox", "stretch"]),
    st.sampled_from(["centre", "top-left"]),
)
def test_boxes_come_back_from_the_model_to_where_they_were(width: int, height: int, resize: str, anchor: str) -> None:
    box = fit(width, height, spec(resize=resize, anchor=anchor))
    corners = np.array([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]], np.float32)
    assert box.to_frame(box.to_model(corners)) == pytest.approx(corners, abs=max(width, height) * 1e-4 + 1e-3)
    inside = box.to_model(corners)[0]
    assert inside[2] <= 64 + 1
    assert inside[3] <= 48 + 1


def test_boxes_beyond_the_frame_are_cut_at_its_edges() -> None:
    box = fit(640, 480, spec())
    found = box.to_frame(np.array([[-50, -50, 500, 500]], np.float32))
    assert found.tolist() == [[0, 0, 640, 480]]
