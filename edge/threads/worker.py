"""Threads with an owner: started, stopped and waited for, and never dying unseen."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from edge.errors import EdgeError

log = logging.getLogger(__name__)
# for a thread that only has to notice that it is to end
LATE_S = 1.0


def caught(act: Callable[[], object]) -> BaseException | None:
    """Call a function; what it raises, None where all went well. For threads, and for code that is not ours."""
    try:
        act()
    except BaseException as error:  # noqa: BLE001 - a thread must not die unseen: its owner decides what follows
        return error
    return None


def described(failure: BaseException) -> str:
    """What was raised, in one line; what is not an error of ours also with its place."""
    text = " ".join(str(failure).split())
    if isinstance(failure, EdgeError):
        return text
    places = traceback.extract_tb(failure.__traceback__)
    place = f" ({Path(places[-1].filename).name}:{places[-1].lineno})" if places else ""
    return f"{type(failure).__name__}: {text}{place}" if text else f"{type(failure).__name__}{place}"


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
        self.failure = caught(lambda: self._run(self.stopping))
        if isinstance(self.failure, EdgeError):
            log.error("%s: %s", self.name, self.failure)
        elif self.failure is not None:
            log.error("%s: failed", self.name, exc_info=self.failure)
        if self._on_end is not None:
            self._on_end(self)
