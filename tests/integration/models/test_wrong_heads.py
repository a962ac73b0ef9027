"""No model file is accepted under a head that is not its own: every family, every head, a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden.variants import ALL as FAMILIES
from golden.variants import IN_DOUBT
from integration.models.test_golden_families import proved, written

from edge.errors import EdgeError
from edge.heads.choose import HEADS


@pytest.mark.parametrize("name", list(FAMILIES))
def test_no_file_is_accepted_under_a_wrong_head(name: str, tmp_path: Path) -> None:
    family, path = FAMILIES[name], written(name, tmp_path)
    # in doubt either of these may be meant
    right = IN_DOUBT.get(name, {family.head})
    if name.startswith("torchvision"):
        right = {"triple"}
    if name in ("yolov8-seg", "yolov8-pose"):
        # the boxes alone
        right = {name, "yolov8"}
    accepted = []
    for head in HEADS:
        if head in right:
            continue
        try:
            found = proved(path, family, head)
            accepted.append((head, found.output))
        except EdgeError as error:
            assert "\n" not in str(error)
    assert not accepted
