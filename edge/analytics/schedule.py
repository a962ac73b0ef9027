"""Tells whether a line or zone is watched at a moment of the wall clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge.config.analytics import DAYS, ScheduleSettings
from edge.errors import ConfigError


class Schedule:
    """Several periods of the week; without any, always."""

    def __init__(self, periods: Sequence[ScheduleSettings], where: str) -> None:
        self._periods = [(period, _zone(period.time_zone, where)) for period in periods]

    def is_on(self, now: datetime) -> bool:
        """Whether any period covers this moment, an aware ``datetime`` (a naive one is taken as local time)."""
        return not self._periods or any(_covers(period, now.astimezone(zone)) for period, zone in self._periods)


def utc(wall_ns: int) -> datetime:
    """The moment so many nanoseconds after 1970."""
    return datetime.fromtimestamp(wall_ns / 1e9, timezone.utc)


def _covers(period: ScheduleSettings, now: datetime) -> bool:
    at = now.time()
    today = DAYS[now.weekday()] in period.days
    if period.start_at < period.end_at:
        return today and period.start_at <= at < period.end_at
    if period.start_at == period.end_at == at.min:
        return today
    yesterday = DAYS[(now - timedelta(days=1)).weekday()] in period.days
    return (today and at >= period.start_at) or (yesterday and at < period.end_at)


def _zone(name: str, where: str) -> tzinfo | None:
    """The time zone, None for that of the machine."""
    if name == "local":
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"{where}: unknown time zone {name!r}, expected 'local' or an IANA name such as 'Europe/Berlin' "
            "(on a machine without time zone data, run: pip install tzdata)"
        ) from None
