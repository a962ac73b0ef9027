"""The clip that the capacity answer measures with."""

from __future__ import annotations

from pathlib import Path

import av

from edge.bench.capacity import make_clip


def test_the_clip_is_h264_of_the_wanted_size_that_goes_on_for_long(tmp_path: Path) -> None:
    with av.open(str(make_clip(tmp_path, (320, 180)))) as container:
        count = 0
        for frame in container.decode(video=0):
            assert (frame.width, frame.height) == (320, 180)
            count += 1
            if count > 200:
                break
    assert count > 200
