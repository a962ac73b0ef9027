"""The work of an archive on a Ray cluster, through Ray Data: its nodes may come, go and die meanwhile."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import ray
import ray.data

from edge.archive.clips import Clip, Split
from edge.archive.job import Detector, Job, detect_part
from edge.archive.work import KILLED, Work, split_clip
from edge.errors import EdgeError, UsageError

# of a part whose worker or node died
MAX_RETRIES = 3
REACH_TIMEOUT_S = 5.0


class RayRunner:
    """See ``edge.archive.work.Runner``. Every part is a task, so that any node can take what another one left."""

    def __init__(self, job: Job, address: str, gpus: float = 0.0) -> None:
        """Connect to a cluster.

        Args:
            job: what its nodes do; the model and the videos must be at the same place on all of them.
            address: ``auto`` or the cluster's.
            gpus: of each worker; a fraction lets several share one.

        Raises:
            UsageError: there is no cluster.
        """
        try:
            _reach(address)
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError) as error:
            raise UsageError(f"--ray {address}: no cluster ({error}); run: ray start --head") from None
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # a part whose worker dies each time is told of as the others are
        context.max_errored_blocks = -1
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._job = job
        self._resources: dict[str, Any] = {"num_cpus": job.model.threads or 1}
        if gpus:
            # the worker keeps its model: Ray would end it after every task that used a GPU
            self._resources |= {"num_gpus": gpus, "max_calls": 0}

    @property
    def name(self) -> str:
        resources: dict[str, float] = ray.cluster_resources()
        return f"Ray with {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"

    def split(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Split | str]]:
        return _answers(clips, partial(split_clip, part_frames=self._job.part_frames), {"num_cpus": 1})

    def detect(self, work: Sequence[Work]) -> Iterator[tuple[Work, bytes | str]]:
        return _answers(work, partial(_detect, job=ray.put(self._job)), self._resources)


def _reach(address: str) -> None:
    """Ray itself would wait for minutes. Raises: OSError: nothing listens at ``host:port``."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), REACH_TIMEOUT_S).close()


def _answers(given: Sequence[Any], do: Callable[[Any], Any], resources: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Each with its answer; ``KILLED`` for those whose tasks died.

    Raises:
        EdgeError: what the work raised.
    """
    if not given:
        return
    waiting = dict(enumerate(given))

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"number": row["number"], "answer": do(row["given"]), "failure": ""}
        except EdgeError as error:
            return {"number": row["number"], "answer": "", "failure": str(error)}

    rows = [{"number": number, "given": one} for number, one in waiting.items()]
    # a block for each, so that any of them can be done again alone
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    with warnings.catch_warnings():
        # Ray 2.64 takes this way away, and has no other one yet: see pyproject.toml
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        mapped = data.map(answer, max_retries=MAX_RETRIES, **resources)
    for row in mapped.iter_rows():
        if row["failure"]:
            raise EdgeError(row["failure"])
        yield waiting.pop(row["number"]), row["answer"]
    for one in waiting.values():
        yield one, KILLED


@lru_cache(maxsize=1)
def _detector(job: Any) -> Detector:
    return Detector(ray.get(job))


def _detect(work: Work, job: Any) -> bytes | str:
    return detect_part(_detector(job), work.clip, work.part)
