"""Property tests of units: a part of their examples here, all of them in CI, no limit that a busy machine breaks."""

from __future__ import annotations

import gc

from effort import examples
from hypothesis import settings

settings.register_profile("unit", settings(), max_examples=examples(), deadline=None)
settings.load_profile("unit")
# collecting the tests makes objects that stay; a test makes thousands and drops them by count
gc.disable()
gc.set_threshold(200_000, 20, 20)


def pytest_collection_finish() -> None:
    """What was imported stays: no later collection of garbage looks at these million objects again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Pytest collects five times at the end, for what a destructor may still raise: the first one finds it."""
    gc.collect()
    gc.freeze()
