"""The work of an archive on processes of this machine; a process that dies costs no file but the one that killed it."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Generic, TypeVar

from edge.archive.clips import Clip, Split
from edge.archive.job import Detector, Job, detect_part
from edge.archive.work import KILLED, Work, split_clip
from edge.errors import EdgeError

Given = TypeVar("Given")
Answer = TypeVar("Answer")
# of one process: it never waits for the next one
AHEAD = 2


class LocalRunner:
    """See ``edge.archive.work.Runner``."""

    def __init__(self, job: Job, num_workers: int) -> None:
        self._job = job
        self._num_workers = num_workers

    @property
    def name(self) -> str:
        return f"{self._num_workers} processes of this machine"

    def split(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, Split | str]]:
        return _Pool(self._num_workers, partial(split_clip, part_frames=self._job.part_frames), None).run(clips)

    def detect(self, work: Sequence[Work]) -> Iterator[tuple[Work, bytes | str]]:
        return _Pool(min(self._num_workers, len(work) or 1), _detect, self._job).run(work)


class _Pool(Generic[Given, Answer]):
    """Processes that do one thing with many, each for itself."""

    def __init__(self, size: int, do: Callable[[Given], Answer], job: Job | None) -> None:
        """Args: how many, what they do, the job whose model each loads first."""
        self._size = size
        self._do = do
        self._job = job

    def run(self, given: Sequence[Given]) -> Iterator[tuple[Given, Answer | str]]:
        """The answers as they come; ``KILLED`` for what ends its process each time, alone too."""
        suspects: list[Given] = []
        yield from self._try(deque(given), self._size, suspects)
        # what was under way when a process died: one of them did it, and alone it cannot hide
        while suspects:
            alone, guilty = suspects.pop(), list[Given]()
            yield from self._try(deque([alone]), 1, guilty)
            if guilty:
                yield alone, KILLED

    def _try(self, waiting: deque[Given], size: int, suspects: list[Given]) -> Iterator[tuple[Given, Answer]]:
        """Answer all but those that were under way when a process died, which are added to ``suspects``."""
        while waiting:
            with self._started(size) as pool:
                under_way: dict[Future[Answer], Given] = {}
                try:
                    yield from self._answers(pool, waiting, size, under_way)
                except BrokenProcessPool:
                    suspects += under_way.values()

    def _answers(
        self, pool: ProcessPoolExecutor, waiting: deque[Given], size: int, under_way: dict[Future[Answer], Given]
    ) -> Iterator[tuple[Given, Answer]]:
        while waiting or under_way:
            while waiting and len(under_way) < size * AHEAD:
                under_way[pool.submit(self._do, waiting[0])] = waiting[0]
                waiting.popleft()
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                answer = future.result()
                yield under_way.pop(future), answer

    def _started(self, size: int) -> ProcessPoolExecutor:
        # a fork would share the threads' locks of libraries that are loaded here
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(size, context, initializer=_prepare, initargs=(self._job,))
        try:
            pool.submit(_nothing).result()
        except BrokenProcessPool:
            raise EdgeError("no process can be started on this machine; see the messages above") from None
        return pool


class _Loaded:
    """What a process of the pool knows: the job, and its model from the first part on."""

    job: Job | None = None
    detector: Detector | None = None


def _prepare(job: Job | None) -> None:
    _Loaded.job = job


def _nothing() -> None:
    """What a process that works can do."""


def _detect(work: Work) -> bytes | str:
    if _Loaded.detector is None:
        assert _Loaded.job is not None
        _Loaded.detector = Detector(_Loaded.job)
    return detect_part(_Loaded.detector, work.clip, work.part)
