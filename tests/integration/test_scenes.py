"""Whole scenes of the synthetic street: of many seeds, and the same in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit.export.test_outlines import instances

from edge.scene.street import Street, render_sample
from edge.scene.truth import CLASSES, FIRST_OBJECT_CLASS, JOINTS, MIN_VISIBILITY, SEGMENT_CLASSES
from export.data.cache import CachedDataset
from export.data.open_data import open_dataset
from export.data.synthetic import SyntheticDataset, open_synthetic_dataset

_HASH = """
import hashlib
from edge.scene.street import Street, render_sample
picture, truth = Street(3, 320, 180, 30, 8).render(77)
sample, labels = render_sample(5, 320, 180)
parts = (picture, truth.xyxy, truth.track_id, truth.visibility, truth.class_map, sample, labels.xyxy)
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


@pytest.fixture(scope="module")
def street() -> Street:
    return Street(1, 320, 180, 30, 14)


def test_another_process_renders_the_same_bytes() -> None:
    done = subprocess.run([sys.executable, "-c", _HASH], capture_output=True, text=True, check=True)
    picture, truth = Street(3, 320, 180, 30, 8).render(77)
    sample, labels = render_sample(5, 320, 180)
    parts = (picture, truth.xyxy, truth.track_id, truth.visibility, truth.class_map, sample, labels.xyxy)
    assert done.stdout.strip() == hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_all_classes_appear_and_persons_are_no_specks() -> None:
    labels, heights = set(), []
    for seed in range(8):
        _, truth = render_sample(seed, 320, 180)
        labels |= {int(label) for label in truth.class_id[~truth.ignore]}
        whole = (truth.visibility > 0.95) & (truth.class_id == 0)
        heights += list(truth.xyxy[whole, 3] - truth.xyxy[whole, 1])
    assert labels == set(range(len(CLASSES)))
    # children may be smaller than the 40 of 720 rows that grown-ups have at the far end
    assert min(heights) >= 7


def test_joints_lie_on_the_people_that_they_belong_to() -> None:
    on_body = num_seen = 0
    for seed in range(6):
        _, truth = render_sample(seed, 640, 360, wide=False)
        for row in range(len(truth)):
            points = truth.keypoints[row]
            if truth.class_id[row] != CLASSES.index("person"):
                assert not points.any()
                continue
            x1, y1, x2, y2 = truth.xyxy[row]
            inside = points[points[:, 2] > 0]
            # a hand swings no further than its sleeve, a head no higher than its hair
            assert (inside[:, 0] >= x1 - 2).all() and (inside[:, 0] <= x2 + 2).all()
            assert (inside[:, 1] >= y1 - 2).all() and (inside[:, 1] <= y2 + 2).all()
            if truth.visibility[row] > 0.95 and y2 - y1 > 30:
                on_body += int((points[:, 2] == 2).sum())
                num_seen += int((points[:, 2] > 0).sum())
    assert num_seen > 50
    assert on_body > 0.9 * num_seen


def test_a_frame_does_not_depend_on_those_rendered_before(street: Street) -> None:
    for index in (400, 3, 90):
        street.render(index)
    picture, truth = street.render(200)
    fresh, fresh_truth = Street(1, 320, 180, 30, 14).render(200)
    assert np.array_equal(picture, fresh)
    assert np.array_equal(truth.xyxy, fresh_truth.xyxy)
    assert np.array_equal(truth.class_map, fresh_truth.class_map)


def test_seeds_and_frames_differ(street: Street) -> None:
    first, _ = street.render(0)
    assert not np.array_equal(first, street.render(1)[0])
    assert not np.array_equal(first, Street(2, 320, 180, 30, 14).render(0)[0])


@pytest.mark.parametrize("index", [0, 150, 900])
def test_class_map_shows_the_topmost_object(street: Street, index: int) -> None:
    _, truth = street.render(index)
    assert truth.class_map.dtype == np.uint8
    assert truth.class_map.max() < len(SEGMENT_CLASSES)
    owned = truth.owner >= 0
    assert np.array_equal(truth.class_map >= FIRST_OBJECT_CLASS, owned)
    assert np.array_equal(truth.class_map[owned], truth.class_id[truth.owner[owned]] + FIRST_OBJECT_CLASS)
    for row, (x1, y1, x2, y2) in enumerate(truth.xyxy.astype(int)):
        outside = truth.owner == row
        outside[y1:y2, x1:x2] = False
        assert not outside.any()


def test_the_types_are_those_of_the_project(street: Street) -> None:
    picture, truth = street.render(10)
    assert picture.shape == (180, 320, 3)
    assert picture.dtype == np.uint8
    assert (truth.xyxy.dtype, truth.class_id.dtype) == (np.float32, np.int32)
    assert (truth.track_id.dtype, truth.visibility.dtype) == (np.int64, np.float32)
    assert len(truth) == len(truth.xyxy) == len(truth.class_id) == len(truth.track_id) == len(truth.visibility)
    assert ((truth.visibility >= 0) & (truth.visibility <= 1)).all()
    assert np.array_equal(truth.ignore, truth.visibility < MIN_VISIBILITY)


def test_objects_hide_one_another_over_time(street: Street) -> None:
    seen: dict[int, list[float]] = {}
    for index in range(0, 450, 30):
        _, truth = street.render(index)
        for track_id, visibility in zip(truth.track_id, truth.visibility, strict=True):
            seen.setdefault(int(track_id), []).append(float(visibility))
    assert any(max(values) - min(values) > 0.3 for values in seen.values())


def test_the_data_set_is_the_same_every_time_and_marks_what_is_hidden() -> None:
    data = SyntheticDataset("street", "detect", 2, 50, 320, 180)
    first, again = data[7], data[7]
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert len(first.ignore) == len(first.boxes) == len(first.labels) == len(first.weight)
    assert first.image_id != data[8].image_id
    assert any(data[index].ignore.any() for index in range(8))
    assert (data.classes, len(data)) == (CLASSES, 50)
    with pytest.raises(IndexError):
        data[50]


def test_data_sets_of_different_seeds_have_different_fingerprints_and_pictures() -> None:
    one, other = (SyntheticDataset("street", "segment", seed, 50, 320, 180) for seed in (2, 3))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == SyntheticDataset("street", "segment", 2, 50, 320, 180).fingerprint
    a, b = one[0], other[0]
    assert hashlib.sha256(a.image.tobytes()).digest() != hashlib.sha256(b.image.tobytes()).digest()
    assert a.mask is not None
    assert a.mask.shape == (180, 320)
    assert one.classes == SEGMENT_CLASSES


def test_the_head_of_a_walker_is_above_the_ankles() -> None:
    _, truth = render_sample(3, 640, 360, wide=False)
    for points in truth.keypoints[truth.class_id == CLASSES.index("person")]:
        head, ankle = points[JOINTS.index("head")], points[JOINTS.index("left_ankle")]
        if head[2] and ankle[2]:
            assert head[1] < ankle[1]


def test_synthetic_street_takes_the_task_it_is_asked_for() -> None:
    assert open_dataset("synthetic:street?count=2&size=96x64", "segment")[0].mask is not None
    assert open_dataset("synthetic:street?count=2&size=96x64")[1].mask is None


def test_the_synthetic_street_brings_the_masks_of_what_is_seen() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    sample = open_dataset("synthetic:street?seed=3&count=1&size=320x180&variety=plain")[0]
    assert sample.outlines is not None and len(sample.outlines.segmentations) == len(sample.labels) > 2
    masks = np.stack([coco.decode(rle) for rle in sample.outlines.segmentations])
    # a pixel shows one object
    assert masks.sum(axis=0).max() == 1
    for mask, (x1, y1, x2, y2) in zip(masks, sample.boxes.astype(int).tolist(), strict=True):
        assert mask.sum() == mask[y1:y2, x1:x2].sum()
    assert masks[~sample.ignore].any(axis=(1, 2)).all()


def test_what_is_cached_comes_back_the_same(tmp_path: Path) -> None:
    names = (
        "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
        "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle",
    )  # fmt: skip
    street = instances(open_synthetic_dataset("synthetic:street?count=2&size=320x192", "detect"), names)
    cached = CachedDataset(street, tmp_path, (96, 160), has_masks=True)
    first, again = cached[0], cached[0]
    for name in ("image", "boxes", "owner", "points", "labels", "ignore"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.mirror == again.mirror and first.mirror[1] == 4
    assert first.points is not None and first.owner is not None
    whole = street[0]
    assert whole.points is not None
    np.testing.assert_allclose(first.points[..., :2], whole.points[..., :2] / 2, atol=1e-4)
    # every joint that is seen lies on its person
    for row in np.flatnonzero(~whole.ignore):
        points = whole.points[row]
        for x, y in points[points[:, 2] == 2, :2].astype(int):
            assert whole.owner is not None and whole.owner[y, x] == row


def test_an_empty_street_is_a_street() -> None:
    picture, truth = Street(1, 320, 180, 30, 0).render(5)
    assert picture.std() > 10
    assert truth.xyxy.shape == (0, 4)
    assert len(truth.visibility) == 0
    assert not (truth.class_map >= FIRST_OBJECT_CLASS).any()
