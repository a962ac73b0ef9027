"""The process of a night shift, ``python -m export.night.child FOLDER``: idle priority, a budget of time."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from edge.errors import EdgeError
from edge.night.shift import Job, Progress
from export.night.shift import BudgetError, drop, run_shift

log = logging.getLogger(__name__)
# from the warning to the end that the kernel makes
GRACE_S = 60


def stand_back() -> None:
    """Run only when nothing else wants the processor; where memory runs out, this process goes first."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(OSError):
        os.nice(19)
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def limit_time(left_s: float) -> None:
    """End with ``BudgetError`` after so many seconds of processor time."""

    def over(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        raise BudgetError

    signal.signal(signal.SIGXCPU, over)
    seconds = max(1, round(left_s))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + GRACE_S))


def main(folder: Path) -> None:
    """Do what is left of the job in this folder, behind everybody else, and within its budget."""
    stand_back()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    job = Job.read(folder)
    if job is not None:
        limit_time(job.settings.processor_minutes * 60 - Progress.read(folder).cpu_s)
        work(folder, job)


def work(folder: Path, job: Job) -> None:
    """Do what is left of a job; its report is there afterwards."""
    progress = Progress.read(folder)
    progress.tries += 1
    progress.write(folder)
    try:
        run_shift(folder, job, progress)
    except BudgetError:
        drop(folder, job, f"its {job.settings.processor_minutes:g} processor minutes were used up before it was done")
    except EdgeError as error:
        drop(folder, job, str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
