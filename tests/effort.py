"""How many examples a property test tries: all of them in CI, a sixteenth where somebody waits for the answer."""

from __future__ import annotations

import os

# EDGELOOP_ALL_EXAMPLES=1 gives all of them anywhere
IS_WHOLE = bool(os.environ.get("CI") or os.environ.get("EDGELOOP_ALL_EXAMPLES"))
DEFAULT_EXAMPLES = 100


def examples(count: int = DEFAULT_EXAMPLES) -> int:
    """Of ``count`` examples, those to try here."""
    return count if IS_WHOLE else min(count, max(5, count // 16))
