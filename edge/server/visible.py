"""The part of the statistics that is about the cameras somebody may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.users.rights import Rights

# tables whose keys are the names of streams
_BY_STREAM = ("streams", "live", "recordings", "accuracy")


def visible(stats: Mapping[str, Any], rights: Rights) -> dict[str, Any]:
    """What is told by stream, of those that may be seen; the rest, which may name any, is left out.

    Whether there are events, which the page asks to know, is said without their numbers.
    """
    seen = {
        key: {name: facts for name, facts in (stats.get(key) or {}).items() if rights.may("view", name)}
        for key in _BY_STREAM
        if key in stats
    }
    has_events = bool((stats.get("events") or {}).get("outbox"))
    return {**seen, "revision": stats.get("revision"), **({"events": {"outbox": {}}} if has_events else {})}
