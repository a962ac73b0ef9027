"""Property tests of units: a part of their examples here, all of them in CI, no limit that a busy machine breaks."""

from __future__ import annotations

from effort import examples
from hypothesis import settings

settings.register_profile("unit", settings(), max_examples=examples(), deadline=None)
settings.load_profile("unit")
