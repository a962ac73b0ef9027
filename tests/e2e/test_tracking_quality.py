"""The figures of docs/tracking.md on real sequences, and what missing frames cost; opt-in, it takes minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trackeval")
from tracking_data import follow, load, score, thinned

from edge.trackers.choose import open_tracker

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "mot"
pytestmark = [
    pytest.mark.bench,
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason="the data next to the project is not here"),
]


def mean_figures(how: str, *, has_motion: bool) -> dict[str, float]:
    sequences = [thinned(sequence, how) for sequence in load(DATA)]
    scores = score(sequences, [follow(sequence, open_tracker(), has_motion) for sequence in sequences])
    return {key: float(np.mean([row[key] for row in scores.values()])) for key in ("HOTA", "IDF1")}


@pytest.mark.parametrize(("has_motion", "hota", "idf1"), [(False, 64.5, 75.6), (True, 64.5, 75.6)])
def test_quality_on_the_tuning_half(has_motion: bool, hota: float, idf1: float) -> None:
    figures = mean_figures("all", has_motion=has_motion)
    assert figures["HOTA"] >= hota and figures["IDF1"] >= idf1


def test_a_shaking_camera_is_understood_by_the_boxes() -> None:
    assert mean_figures("shaken", has_motion=False)["HOTA"] >= 50


# of docs/tracking.md, with half a point to spare
@pytest.mark.parametrize(("how", "most"), [("div2", 1.0), ("div3", 3.5), ("drop", 2.6)])
def test_missing_frames_cost_little(how: str, most: float) -> None:
    assert mean_figures("all", has_motion=False)["HOTA"] - mean_figures(how, has_motion=False)["HOTA"] <= most
