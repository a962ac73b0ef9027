"""A model on a KServe v2 server (Triton, OpenVINO Model Server, MLServer), which may be away for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge.engines.kserve_link import DYNAMIC_MAX_BATCH, CheckModel, Link, Place, WrongAnswerError
from edge.errors import EdgeError, EngineError
from edge.interfaces import TensorInfo
from edge.threads.backoff import Backoff
from edge.threads.worker import LATE_S, Worker

if TYPE_CHECKING:
    from edge.config.remote import RemoteSettings
    from edge.models.manifest import InputSpec
    from edge.types import Array

log = logging.getLogger(__name__)
# how often a server that is away is looked for
LOOK_BASE_S, LOOK_CAP_S = 0.2, 0.8
# a server that answers wrongly soon after it came back is given more and more time
STABLE_S = 10.0
RELAPSE_BASE_S, RELAPSE_CAP_S = 0.5, 30.0
# a batch that takes so many times as long as nearly all others is sent again
HEDGE_TIMES = 2.0
HEDGE_LEAST_S = 0.02
MIN_TIMES = 20
# over which it is said how busy a server is
BUSY_S = 5.0


class KserveEngine:
    """See ``edge.interfaces.RemoteEngine``. After a failure nothing is sent until a trial went well."""

    def __init__(self, place: Place, settings: RemoteSettings, spec: InputSpec, max_batch: int | None) -> None:
        """Args: where, how, what the model takes, the most rows of a batch. Call ``connect`` next."""
        self._place = place
        self._settings = settings
        self._spec = spec
        self._asked_batch = max_batch
        size = (spec.height, spec.width)
        shape = (None, *size, 3) if spec.layout == "nhwc" else (None, 3, *size)
        self.inputs: Sequence[TensorInfo] = [TensorInfo(spec.name, shape, spec.dtype)]
        self.outputs: Sequence[TensorInfo] = []
        self.max_batch = max_batch or DYNAMIC_MAX_BATCH
        self.is_fixed_batch = False
        # whether others know the size of its batches, which does not change any more
        self._is_settled = False
        self._check: CheckModel = lambda inputs, outputs: None
        self._link: Link | None = None
        # closed by the thread that looks for the server: nobody who has frames waits for it
        self._old: deque[Link] = deque()
        self._has_left = threading.Event()
        self._reason = "not connected yet"
        self._since_s = time.monotonic()
        self._num_left = 0
        self._hold_s = 0.0
        self._relapses = Backoff(base_s=RELAPSE_BASE_S, cap_s=RELAPSE_CAP_S)
        self._times_s: deque[float] = deque(maxlen=100)
        # end and duration of each
        self._batches: deque[tuple[float, float]] = deque(maxlen=1000)
        self._watcher = Worker(f"server of {place.model}", self._watch)

    def connect(self, check: CheckModel, *, may_wait: bool) -> None:
        """Connect, and look for the server from now on whenever it is away.

        Args:
            check: see ``Link``.
            may_wait: whether the server may be away now.

        Raises:
            ModelError: it has another model than the manifest says.
            EngineError: it is away.
        """
        self._check = check
        try:
            link = self._linked()
        except EngineError as error:
            if not may_wait:
                raise
            self._reason = str(error)
            log.warning("%s", self._reason)
            self._has_left.set()
        else:
            self.outputs, self.max_batch, self.is_fixed_batch = link.outputs, link.max_batch, link.is_fixed_batch
            self._link = link
        self._is_settled = True
        self._watcher.start()

    @property
    def name(self) -> str:
        link = self._link
        way = "" if link is None else ", shared memory" if link.is_shared else ", network"
        return f"kserve {self._place}{way}"

    @property
    def is_away(self) -> bool:
        return self._link is None

    def state(self) -> Mapping[str, object]:
        link = self._link
        return {
            "server": str(self._place),
            "state": "away" if link is None else "connected",
            "reason": self._reason if link is None else "",
            "seconds": round(time.monotonic() - self._since_s, 1),
            "left": self._num_left,
            "busy": round(self._busy(), 3),
            "shared_memory": link is not None and link.is_shared,
            "hedged": 0 if link is None else link.num_hedged,
        }

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        link = self._link
        if link is None:
            raise EngineError(self._reason)
        began_s = time.monotonic()
        try:
            outputs = link.infer(tensor, self._settings.timeout_ms / 1e3, self._hedge_after_s())
        except EngineError as error:
            self._leave(link, error)
            raise
        now_s = time.monotonic()
        self._times_s.append(now_s - began_s)
        self._batches.append((now_s, now_s - began_s))
        return outputs

    def close(self) -> None:
        self._watcher.stop()
        self._has_left.set()
        self._watcher.join(LATE_S)
        link, self._link = self._link, None
        for one in filter(None, (link, *self._old)):
            one.close()
        self._old.clear()

    def _busy(self) -> float:
        """The share of the last seconds in which the server worked for us, or was waited for."""
        now_s = time.monotonic()
        recent = [(end_s, spent_s) for end_s, spent_s in tuple(self._batches) if end_s > now_s - BUSY_S]
        if not recent:
            return 0.0
        return min(1.0, sum(spent_s for _, spent_s in recent) / (now_s - recent[0][0] + recent[0][1]))

    def _hedge_after_s(self) -> float:
        """When a batch is late (Dean and Barroso 2013, "The Tail at Scale"); never before it is known what is usual."""
        if not self._settings.hedge or len(self._times_s) < MIN_TIMES:
            return self._settings.timeout_ms / 1e3
        usual_s = sorted(self._times_s)[int(0.95 * len(self._times_s))]
        return max(HEDGE_LEAST_S, HEDGE_TIMES * usual_s)

    def _leave(self, link: Link, error: EngineError) -> None:
        """Send nothing more until the server has shown that it is well."""
        now_s = time.monotonic()
        is_relapse = isinstance(error, WrongAnswerError) and now_s - self._since_s < STABLE_S
        self._hold_s = self._relapses.next_delay_s() if is_relapse else 0.0
        if not is_relapse:
            self._relapses.reset()
        self._reason, self._since_s, self._link = str(error), now_s, None
        self._num_left += 1
        self._times_s.clear()
        self._old.append(link)
        log.warning("%s; it is looked for from now on", self._reason)
        self._has_left.set()

    def _watch(self, stopping: threading.Event) -> None:
        """Look for the server while it is away; a thread of its own."""
        while not stopping.is_set():
            self._has_left.wait()
            while self._old:
                self._old.popleft().close()
            stopping.wait(self._hold_s)
            self._look(stopping)

    def _look(self, stopping: threading.Event) -> None:
        """Until it is there, or nobody wants it any more."""
        delays = Backoff(base_s=LOOK_BASE_S, cap_s=LOOK_CAP_S)
        while not stopping.is_set():
            try:
                link = self._linked()
            except EdgeError as error:
                self._reason = str(error)
                stopping.wait(delays.next_delay_s())
                continue
            self._has_left.clear()
            self._since_s, self._link = time.monotonic(), link
            log.info("%s: connected", self._place)
            return

    def _linked(self) -> Link:
        """A connection to the very model, which takes the batches that are made here.

        Raises:
            ModelError: see ``Link``; or it takes only smaller batches.
        """
        link = Link(self._place, self._settings, self._spec.dtype, self._asked_batch, self._check)
        if self._is_settled and (link.max_batch < self.max_batch or link.is_fixed_batch != self.is_fixed_batch):
            link.close()
            raise EngineError(
                f"{self._place}: takes batches of {link.max_batch}, expected {self.max_batch} since the start; "
                "set max_batch of the model, or restart"
            )
        return link
