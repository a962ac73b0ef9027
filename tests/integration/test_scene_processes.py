"""The synthetic street is the same in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from edge.scene.street import Street, render_sample

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
