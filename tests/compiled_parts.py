"""Both ways of what is built in C: with it, and with NumPy alone, as where no compiler was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from needs import COMPILED, need

# where the modules in C are kept by those who call them
USERS = ("edge.boxes", "edge.heads.candidates", "edge.result_json")


@contextmanager
def without_c() -> Iterator[None]:
    """NumPy and Python alone."""
    with pytest.MonkeyPatch.context() as patch:
        for user in USERS:
            patch.setattr(f"{user}._compiled", None)
        yield


def both(work: Callable[[], Any]) -> tuple[Any, Any]:
    """What it gives with the parts in C, and without."""
    in_c = work()
    with without_c():
        return in_c, work()


@pytest.fixture(params=["in C", "NumPy"], scope="module")
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test runs twice."""
    if request.param == "in C":
        need(COMPILED)
        yield
    else:
        with without_c():
            yield
