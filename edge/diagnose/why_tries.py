"""The settings of rules and tracker, made milder one at a time, the mildest change of each first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.analytics.geometry import ANCHOR_SHARES
from edge.trackers.settings import TrackerSettings

if TYPE_CHECKING:
    from edge.config.analytics import AnalyticsSettings, LineSettings, ZoneSettings

# shares of a setting's value that are tried, mildest first
LADDER = (0.75, 0.5, 0.25, 0.1)
# a line is made longer by so much at each end, a zone larger by so much of its size
LONGER = (0.1, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Try:
    """One milder setting.

    Attributes:
        cause: what it is if this lets an event through. part: name of the line or zone.
        key: of the setting, below the part's table. value: that is tried. told: what an object did, as a clause.
        analytics: with it.
    """

    cause: str
    part: str
    word: str
    key: str
    value: Any
    told: str
    analytics: AnalyticsSettings

    def setting_of(self, stream: str) -> str:
        """The key in the file."""
        return f"streams.{stream}.analytics.{self.word}.{self.part}.{self.key}"

    @property
    def shown(self) -> str:
        """The value, as TOML would have it."""
        if isinstance(self.value, float):
            return f"{self.value:g}"
        if isinstance(self.value, str):
            return f'"{self.value}"'
        return (
            "[]"
            if self.value == ()
            else str([list(point) for point in self.value])
            if isinstance(self.value, tuple)
            else str(self.value)
        )


def with_part(analytics: AnalyticsSettings, name: str) -> AnalyticsSettings:
    """The same with the parts of this name alone."""
    return analytics.model_copy(
        update={
            "lines": tuple(line for line in analytics.lines if line.name == name),
            "zones": tuple(zone for zone in analytics.zones if zone.name == name),
        }
    )


def rule_tries(analytics: AnalyticsSettings, name: str, kind: str, size: tuple[int, int]) -> Iterator[Try]:
    """What can be tried for the lines and zones of this name (empty: all), the likeliest setting first."""
    drawn: dict[str, tuple[LineSettings | ZoneSettings, ...]] = {"lines": analytics.lines, "zones": analytics.zones}
    for word, parts in drawn.items():
        for number, part in enumerate(parts):
            if name not in ("", part.name) or ((kind == "line_crossed") != (word == "lines") and kind):
                continue
            for cause, told, key, changes in _changes(part, word == "zones", kind, size):
                others = (*parts[:number], part.model_copy(update=changes), *parts[number + 1 :])
                changed = with_part(analytics.model_copy(update={word: others}), part.name)
                yield Try(cause, part.name, word, key, changes[key], told, changed)


Change = tuple[str, str, str, dict[str, Any]]


def _changes(part: LineSettings | ZoneSettings, is_zone: bool, kind: str, size: tuple[int, int]) -> Iterator[Change]:
    if part.schedules:
        yield "schedule", f"was there while the schedule of '{part.name}' was off", "schedules", {"schedules": ()}
    if part.classes:
        yield (
            "class",
            f"is none of the classes of '{part.name}' ({', '.join(part.classes)})",
            "classes",
            {"classes": ()},
        )
    if is_zone:
        yield from _stays(part, kind)
    for share in (*LADDER, 0.0):
        told = f"was beyond the band of '{part.name}' for less than settle_s = {part.settle_s:g}"
        yield "settle", told, "settle_s", {"settle_s": round(share * part.settle_s, 3)}
    for share in (*LADDER, 0.0):
        told = f"did not leave the band of '{part.name}' (band_box_share = {part.band_box_share:g})"
        changes = {"band_box_share": round(share * part.band_box_share, 3), "band_px": min(part.band_px, 1.0)}
        yield "band", told, "band_box_share", changes
    for share in (0.5, 0.1):
        told = f"did not leave the band of '{part.name}' (band_px = {part.band_px:g})"
        yield "band", told, "band_px", {"band_px": share * part.band_px, "band_box_share": 0.0}
    yield from _shapes(part, is_zone, size)
    for anchor in ANCHOR_SHARES:
        if anchor != part.anchor:
            told = f"passed '{part.name}' with its {anchor}, not with its {part.anchor}"
            yield "anchor", told, "anchor", {"anchor": anchor}


def _stays(zone: Any, kind: str) -> Iterator[Change]:
    """How long somebody must stay, and how many."""
    for share in LADDER:
        if zone.loiter_s and kind in ("", "zone_loitering"):
            told = f"stayed in '{zone.name}' for less than loiter_s = {zone.loiter_s:g}"
            yield "loiter", told, "loiter_s", {"loiter_s": share * zone.loiter_s}
        if zone.stopped_s and kind in ("", "object_stopped"):
            told = f"stood still in '{zone.name}' for less than stopped_s = {zone.stopped_s:g}"
            yield "stopped", told, "stopped_s", {"stopped_s": share * zone.stopped_s}
            speed = zone.stopped_heights_per_s
            told = f"moved in '{zone.name}' faster than stopped_heights_per_s = {speed:g}"
            yield "moving", told, "stopped_heights_per_s", {"stopped_heights_per_s": min(10.0, speed / share)}
        if zone.crowd_count and kind in ("", "zone_crowded"):
            told = f"fewer than crowd_count = {zone.crowd_count} were in '{zone.name}'"
            yield "crowd", told, "crowd_count", {"crowd_count": max(1, int(share * zone.crowd_count))}
            told = f"a crowd was in '{zone.name}' for less than crowd_s = {zone.crowd_s:g}"
            yield "crowd_time", told, "crowd_s", {"crowd_s": max(0.001, share * zone.crowd_s)}
    asked = {"zone_loitering": "loiter_s", "object_stopped": "stopped_s", "zone_crowded": "crowd_count"}.get(kind)
    if asked and getattr(zone, asked) is None:
        yield (
            "not_watched",
            f"was in '{zone.name}', which has no {asked}",
            asked,
            {asked: 1 if asked == "crowd_count" else 1.0},
        )


def _shapes(part: LineSettings | ZoneSettings, is_zone: bool, size: tuple[int, int]) -> Iterator[Change]:
    width, height = size
    points = part.pixels(width, height)
    middle = [sum(point[axis] for point in points) / len(points) for axis in (0, 1)]
    ways = [(axis_x, axis_y) for more in LONGER for axis_x, axis_y in ((0.0, more), (more, 0.0), (more, more))]
    for more_x, more_y in ways if is_zone else [(more, more) for more in LONGER]:
        grown = tuple(
            (
                min(max(middle[0] + (x - middle[0]) * (1 + more_x), 0.0), float(width)),
                min(max(middle[1] + (y - middle[1]) * (1 + more_y), 0.0), float(height)),
            )
            for x, y in points
        )
        cause, told = (
            ("outside", f"stayed outside '{part.name}'")
            if is_zone
            else ("ends", f"passed next to the ends of '{part.name}'")
        )
        yield (
            cause,
            told,
            "points_px",
            {"points_px": tuple((round(x, 1), round(y, 1)) for x, y in grown), "points_share": None},
        )


def score_tries(thresholds: Mapping[str, float]) -> Iterator[tuple[str, TrackerSettings, float]]:
    """Cause, tracker and score, the mildest first."""
    low, high, new = thresholds["low"], thresholds["high"], thresholds["new"]
    for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
        score = round(max(low, share * high), 3)
        yield "score", TrackerSettings.for_scores(score, low), score
    once = TrackerSettings(score_low=low, score_high=high, score_new=new, confirm_hits=1)
    yield "unconfirmed", once, high
