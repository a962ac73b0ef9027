"""Threads with an owner: started, stopped and waited for, and never dying unseen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edge.errors import EdgeError

log = logging.getLogger(__name__)
# for a thread that only has to notice that it is to end
LATE_S = 1.0


class Worker:
    """One thread that runs a function until it returns, fails or is asked to stop."""

    def __init__(
        self, name: str, run: Callable[[threading.Event], None], on_end: Callable[[Worker], None] | None = None
    ) -> None:
        """Args: its name, what it does (given the event that asks it to stop), who is told when it has ended."""
        self.name = name
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self._run = run
        self._on_end = on_end
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; does not wait."""
        self.stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; False if it has not ended in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _main(self) -> None:
        try:
            self._run(self.stopping)
        except EdgeError as error:
            self.failure = error
            log.error("%s: %s", self.name, error)
        except BaseException as error:  # a thread must not die unseen: its owner decides what follows
            self.failure = error
            log.exception("%s: failed", self.name)
        if self._on_end is not None:
            self._on_end(self)
