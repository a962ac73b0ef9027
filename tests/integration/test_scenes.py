"""Whole scenes of the synthetic street: of many seeds, and the same in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from edge.scene.street import Street, render_sample
from edge.scene.truth import CLASSES

_HASH = """
import hashlib
from edge.scene.street import Street, render_sample
picture, truth = Street(3, 320, 180, 30, 8).render(77)
sample, labels = render_sample(5, 320, 180)
parts = (picture, truth.xyxy, truth.track_id, truth.visibility, truth.class_map, sample, labels.xyxy)
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


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
