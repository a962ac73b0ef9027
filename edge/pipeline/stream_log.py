"""What the track store asks of a stream: the head of its parts, and how it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge.addresses.secrets import redacted, redacted_value
from edge.analytics.anchors import anchors_of
from edge.pipeline.build import score_of, tracker_settings
from edge.trackers.tracker import MotionTracker
from edge.trackstore.parts import Head
from edge.trackstore.store import Stand, StreamFacts, head_of

if TYPE_CHECKING:
    from edge.pipeline.stream import Stream


def facts_of(stream: Stream, run: str, faults: Callable[[], Mapping[str, str]]) -> StreamFacts:
    """What the store may ask.

    Args:
        stream: whose facts. run: tells runs of the program apart, as in the events' ids.
        faults: what keeps its events and recordings from being written, and why.
    """
    config: dict[str, Any] = redacted_value(stream.config.model_dump(mode="json", exclude_none=True))

    def head(width: int, height: int) -> Head:
        manifest = stream.manifest
        tracker = stream.analysis.tracker
        ours = tracker_settings(score_of(stream.config, manifest), manifest)
        wanted = tracker.settings if isinstance(tracker, MotionTracker) else ours
        return head_of(
            stream.name,
            run,
            {"name": manifest.name, "sha256": manifest.sha256 or ""},
            config,
            classes=tuple(manifest.classes),
            model_anchors=tuple(manifest.anchors),
            anchors=tuple(sorted(anchors_of(stream.config.analytics) & set(manifest.anchors))),
            width=width,
            height=height,
            thresholds={
                "low": wanted.score_low,
                "high": wanted.score_high,
                "new": wanted.score_new,
                "model_score": manifest.thresholds.score,
                "model_track_score": manifest.thresholds.track_score,
            },
        )

    def stand() -> Stand:
        status = stream.status
        counts = stream.metrics.counters.snapshot()
        found = {"analytics": stream.analysis.fault, **faults()}
        told = {name: redacted(reason) for name, reason in found.items() if reason}
        heard = None if stream.loud is None else stream.loud.take_heard()
        loud = {} if heard is None else {"dbfs": round(heard[0], 1), "came": heard[1]}
        return Stand(counts, status.state, redacted(status.reason), status.health, told, loud)

    return StreamFacts(head, stand)
