"""Property tests of units: a part of their examples here, all of them in CI, no limit that a busy machine breaks."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from compiled_parts import both_ways  # noqa: F401 - a fixture
from effort import examples
from hypothesis import settings

settings.register_profile("unit", settings(), max_examples=examples(), deadline=None)
settings.load_profile("unit")
# collecting the tests makes objects that stay
gc.disable()
TESTS = Path(__file__).parents[1]
USUAL, SELDOM = gc.get_threshold(), (200_000, 20, 20)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays: no later collection of garbage looks at these million objects again.

    A unit makes thousands of objects and drops them by count. Other tests wait for what only a collection ends.
    """
    gc.collect()
    gc.freeze()
    has_units_alone = all(item.path.relative_to(TESTS).parts[0] in ("unit", "contract") for item in session.items)
    gc.set_threshold(*(SELDOM if has_units_alone else USUAL))
    gc.enable()


def pytest_unconfigure() -> None:
    """Pytest collects five times at the end, for what a destructor may still raise: the first one finds it."""
    gc.collect()
    gc.freeze()
