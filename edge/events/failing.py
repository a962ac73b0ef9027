"""What a delivery says of its failures, and how long it waits after them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.errors import SinkError
from edge.threads.backoff import Backoff

log = logging.getLogger(__name__)
REPORT_EVERY_S = 60.0


@dataclass(slots=True)
class Failing:
    """Used by the thread that delivers; others may read ``last_error``.

    Attributes:
        name: of the target, for the log.
        backoff: the pauses after a failure.
        last_error: why the last attempt failed, empty while all is well.
    """

    name: str
    backoff: Backoff = field(default_factory=Backoff)
    clock_s: Callable[[], float] = time.monotonic
    last_error: str = ""
    _reported_s: float = float("-inf")

    def note(self, error: SinkError) -> float:
        """An attempt failed: log it, the first time and then once a minute. Returns the seconds to wait now."""
        is_new, self.last_error = not self.last_error, str(error)
        if is_new or self.clock_s() - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = self.clock_s()
            log.warning("%s: %s; events wait in the outbox", self.name, error)
        return self.backoff.next_delay_s()

    def is_over(self, things: str) -> None:
        """An attempt went well; ``things`` ("events") are what is delivered again if the last one did not."""
        if self.last_error:
            log.info("%s: %s are delivered again", self.name, things)
        self.last_error = ""
        self.backoff.reset()
