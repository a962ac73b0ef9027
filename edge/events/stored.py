"""What the outbox gives out, and how much it keeps."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_DAY = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the outbox. ``number`` grows; it is no part of what a target gets."""

    number: int
    id: str
    stream: str
    kind: str
    body: str


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How much is kept.

    Delivered events go when they are older than ``max_age_days``. Where the file is full, the oldest go: first those
    that all targets have, then, counted as lost, those that some target lacks. Age alone never removes an undelivered
    event, because a device without a battery clock may date its events to 1970.
    """

    max_bytes: int = 64 << 20
    max_age_days: float = 14.0


DEFAULT_LIMITS = OutboxLimits()
