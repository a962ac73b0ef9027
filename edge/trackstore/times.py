"""Times as people write them on the command line, in the time zone of the machine."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from edge.errors import UsageError

_AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# "02:13" is today, or yesterday where that has not come yet
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")


def wall_ns(text: str, now: datetime | None = None) -> int:
    """Nanoseconds since 1970 of ``2026-11-22T10:00``, of ``02:13`` (the last one), or of ``7d`` (so long ago).

    Raises:
        UsageError: it is none of these.
    """
    at = (now or datetime.now()).astimezone()
    if found := _AGO.fullmatch(text):
        return _ns(at - timedelta(seconds=float(found[1]) * _SECONDS[found[2]]))
    try:
        if _CLOCK.fullmatch(text):
            padded = text if text.index(":") == 2 else f"0{text}"
            moment = datetime.combine(at.date(), datetime.fromisoformat(f"2000-01-01T{padded}").time()).astimezone()
            return _ns(moment if moment <= at else moment - timedelta(days=1))
        moment = datetime.fromisoformat(re.sub(r"Z$", "+00:00", text))
    except ValueError:
        raise UsageError(f"{text!r} is no time; expected 2026-11-22T10:00, 02:13, or 7d, 12h, 30m ago") from None
    return _ns(moment.astimezone())


def span_of(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Both ends of a time; None where none was given. Raises: UsageError: they are no times, or the wrong way round."""
    start, end = (None if text is None else wall_ns(text) for text in (since, until))
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--until {until} is not after --since {since}")
    return start, end


def iso(time_ns: int) -> str:
    """``2026-11-22T10:00:00.123Z``."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000 / 1e3, timezone.utc)
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{time_ns // 1_000_000 % 1000:03d}Z"


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6) * 1000
