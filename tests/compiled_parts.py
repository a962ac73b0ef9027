"""Both ways of what is built in C: with it, and with NumPy alone, as where no compiler was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from needs import COMPILED, need

# where the modules in C are kept by those who call them
USERS = {"_boxes": ("edge.boxes", "edge.heads.candidates")}


def without(name: str) -> Iterator[None]:
    """Until it is resumed, NumPy does what this module does."""
    with pytest.MonkeyPatch.context() as patch:
        for user in USERS[name]:
            patch.setattr(f"{user}._compiled", None)
        yield


@pytest.fixture(params=["in C", "NumPy"], scope="module")
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of boxes and heads runs twice."""
    if request.param == "in C":
        need(COMPILED)
        yield
    else:
        yield from without("_boxes")
