"""Whether what a stream is to watch can work, before it starts: names at once, geometry when a size is known."""

from __future__ import annotations

from collections.abc import Sequence

from edge.analytics.anchors import check_anchor
from edge.analytics.classes import check_classes
from edge.analytics.lines import check_line
from edge.analytics.schedule import Schedule
from edge.analytics.speed import Ground
from edge.analytics.zones import check_zone
from edge.config.analytics import AnalyticsSettings, LineSettings, ZoneSettings


def check_names(
    settings: AnalyticsSettings, *, stream: str, classes: Sequence[str], model_anchors: Sequence[str] = ()
) -> None:
    """See that the model has the classes and points and this machine the time zones that are named.

    Args:
        settings: what to watch.
        stream: name of the stream, for messages.
        classes: class names of the detector.
        model_anchors: points of an object that the model gives, see ``Manifest.anchors``.

    Raises:
        ConfigError: an unknown class, key point or time zone.
    """
    drawn: tuple[LineSettings | ZoneSettings, ...] = (*settings.lines, *settings.zones)
    for part in drawn:
        where = _where(stream, part)
        check_classes(part.classes, classes, where)
        check_anchor(part.anchor, model_anchors, where)
        Schedule(part.schedules, where)
    if settings.heatmap:
        check_classes(settings.heatmap.classes, classes, f"{stream}: heatmap")


def check_settings(
    settings: AnalyticsSettings,
    *,
    stream: str,
    classes: Sequence[str],
    width: int,
    height: int,
    model_anchors: Sequence[str] = (),
) -> None:
    """See that all that is named and drawn can work in frames of this size.

    Args:
        settings: what to watch.
        stream: name of the stream, for messages.
        classes: class names of the detector.
        width, height: pixels of the frame.
        model_anchors: points of an object that the model gives.

    Raises:
        ConfigError: impossible geometry, or an unknown class, key point or time zone.
    """
    check_names(settings, stream=stream, classes=classes, model_anchors=model_anchors)
    for line in settings.lines:
        check_line(line, _where(stream, line), width, height)
    for zone in settings.zones:
        check_zone(zone, _where(stream, zone), width, height)
    if settings.ground:
        Ground(settings.ground, f"{stream}: ground", width, height)


def _where(stream: str, part: LineSettings | ZoneSettings) -> str:
    return f"{stream}: {'line' if isinstance(part, LineSettings) else 'zone'} '{part.name}'"
