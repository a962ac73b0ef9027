"""Detections go into supervision's form and come back."""

from __future__ import annotations

import numpy as np
import pytest
from unit.test_detections import found

from edge.types import Detections


def test_supervisions_form_and_back() -> None:
    supervision = pytest.importorskip("supervision")
    theirs = found().to_supervision()
    assert isinstance(theirs, supervision.Detections)
    back = Detections.from_supervision(theirs)
    assert back.class_names == found().class_names
    assert np.array_equal(back.xyxy, found().xyxy) and np.array_equal(back.score, found().score)
