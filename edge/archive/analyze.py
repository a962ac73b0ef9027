"""An archive from beginning to end: what is finished is left alone, what is broken is told, the rest is done."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.archive.clips import Clip, Split
from edge.archive.results import ResultFolder
from edge.archive.work import Runner, Work
from edge.errors import DataError

if TYPE_CHECKING:
    from edge.archive.job import Job

# done, all of them; in pictures
OnProgress = Callable[[int, int], None]
# videos that wait to be followed: their parts lie on the disk
MAX_FOLLOWED = 4


@dataclass(slots=True)
class Report:
    """What came of an archive.

    Attributes:
        finished: video → its account.
        broken: video → why it cannot be used.
        num_before: how many of the finished were so before this run.
    """

    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    num_before: int = 0


def analyze(
    job: Job, clips: Sequence[Clip], results: ResultFolder, runner: Runner, on_progress: OnProgress = lambda *_: None
) -> Report:
    """Do what is left to do.

    Raises:
        EdgeError: the model cannot be used, or the results cannot be written.
    """
    report = Report()
    for clip in clips:
        if account := results.account(clip):
            report.finished[clip.key] = account
    report.num_before = len(report.finished)
    open_clips = [clip for clip in clips if clip.key not in report.finished]
    course = _Course(job, results, report, _splits(open_clips, results, runner, report), on_progress)
    with course.following:
        for work, found in runner.detect(course.left()):
            course.take(work, found)
        course.settle()
    return report


def _splits(clips: Sequence[Clip], results: ResultFolder, runner: Runner, report: Report) -> dict[Clip, Split]:
    """How each video is cut; by an earlier run where it has begun."""
    known = {clip: begun for clip in clips if (begun := results.split_of(clip)) is not None}
    for clip, found in runner.split([clip for clip in clips if clip not in known]):
        if isinstance(found, str):
            report.broken[clip.key] = found
        else:
            results.keep_split(clip, found)
            known[clip] = found
    return {clip: known[clip] for clip in clips if clip in known}


class _Course:
    """Which parts are there, and which videos are ready to be followed."""

    def __init__(
        self,
        job: Job,
        results: ResultFolder,
        report: Report,
        splits: dict[Clip, Split],
        on_progress: OnProgress,
    ) -> None:
        self._job = job
        self._results = results
        self._report = report
        self._splits = splits
        self._missing = {
            clip: {number for number in range(len(split.parts)) if not results.part(clip, number).is_file()}
            for clip, split in splits.items()
        }
        self._total = sum(part.num_frames for split in splits.values() for part in split.parts)
        self._done = self._total - sum(work.part.num_frames for work in self.left())
        self._on_progress = on_progress
        # in a process of its own: its work is Python's, and would hold up the handing out of parts
        self.following = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._followed: dict[Future[dict[str, Any]], Clip] = {}
        for clip in [clip for clip, numbers in self._missing.items() if not numbers]:
            self._follow(clip)

    def left(self) -> list[Work]:
        """The parts that are not there, video by video."""
        return list(self._left())

    def _left(self) -> Iterator[Work]:
        for clip, numbers in self._missing.items():
            for number in sorted(numbers):
                yield Work(clip, number, self._splits[clip].parts[number])

    def take(self, work: Work, found: bytes | str) -> None:
        """Keep what was found in a part; the last one of a video has it followed."""
        self._done += work.part.num_frames
        self._on_progress(self._done, self._total)
        if isinstance(found, str):
            self._report.broken.setdefault(work.clip.key, found)
            return
        self._results.keep_part(work.clip, work.number, found)
        self._missing[work.clip].discard(work.number)
        if not self._missing[work.clip]:
            self._follow(work.clip)

    def settle(self) -> None:
        """Wait for the videos that are followed."""
        self._collect(0)
        self._on_progress(self._total, self._total)

    def _follow(self, clip: Clip) -> None:
        # with all that analyses: needed in the other process
        from edge.archive.follow import follow

        self._collect(MAX_FOLLOWED)
        future = self.following.submit(follow, self._job, self._results.folder, clip, self._splits[clip])
        self._followed[future] = clip

    def _collect(self, most: int) -> None:
        """Take what is finished, and wait until at most so many are not."""
        while self._followed:
            is_full = len(self._followed) > most
            done = wait(self._followed, None if is_full else 0, FIRST_COMPLETED).done
            for future in done:
                clip = self._followed.pop(future)
                self._report.finished[clip.key] = _account(future, clip)
            if not done:
                return


def _account(future: Future[dict[str, Any]], clip: Clip) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise DataError(f"{clip.key}: the process that follows it was ended; run the command again") from None
    except OSError as error:
        raise DataError(f"{clip.key}: its results cannot be written ({error}); make room and run it again") from None
