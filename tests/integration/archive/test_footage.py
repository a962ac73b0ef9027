"""Real footage that is read in parts gives what it gives as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from integration.archive.test_clips import in_parts, whole

from edge.archive.clips import split


def test_real_footage_in_parts_is_the_whole_too(shared_data: Path) -> None:
    path = shared_data / "videos" / "intel-car-detection.mp4"
    cut = split(str(path), part_frames=60)
    expected, found = whole(path), in_parts(path, cut)
    assert len(cut.parts) > 1
    assert [time for _, time in found] == [time for _, time in expected]
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(found, expected, strict=True))
