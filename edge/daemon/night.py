"""The night shift of a daemon: begins it in its window, holds it while the device is hot, lets what it made take over.

Orders come as a file in the night's folder, which this user alone can write: ``edge night`` needs no open port.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.diagnose.gpu_stats import DeviceFacts, read_device
from edge.errors import EdgeError
from edge.files import load_object
from edge.night.frames import private_folder
from edge.night.report import is_working
from edge.night.shift import (
    MAX_TRIES,
    REPORTS,
    WORK,
    Chain,
    Job,
    Progress,
    ShiftProcess,
    adopt,
    night_name,
    report_of,
    sweep,
    write_json,
)
from edge.types import Event

if TYPE_CHECKING:
    from edge.config.daemon import GovernorSettings
    from edge.config.night import NightSettings
    from edge.daemon.operations import Operations
    from edge.daemon.run import Run

log = logging.getLogger(__name__)
LOOK_S = 1.0
ORDER, STATE = "order.json", "state.json"
ORDERS = ("run", "stop", "roll-back")
# between two looks at a swap that is under way
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Around:
    """What the night shift asks of its surroundings, so that a test can be them.

    Attributes:
        now: the local time. read: the device's heat and power. report_event: takes the event of the morning.
    """

    now: Callable[[], datetime] = datetime.now
    read: Callable[[], DeviceFacts] = read_device
    report_event: Callable[[Event], None] = lambda event: None


class NightShift:
    """``run`` it in a thread of its own.

    Args:
        run: the pipeline. operations: carry out the swap. folder: of the night. around: see there.
    """

    def __init__(self, run: Run, operations: Operations, folder: Path, around: Around) -> None:
        self._run, self._operations, self._folder, self._around = run, operations, folder, around
        self._process: ShiftProcess | None = None
        self._is_ordered = False
        self._said: dict[str, str] = {}

    @property
    def _settings(self) -> NightSettings:
        assert self._run.config.night is not None
        return self._run.config.night

    def run(self, stopping: threading.Event) -> None:
        """Look until asked to stop; a shift under way is ended then, and goes on at the next start in its window."""
        private_folder(self._folder)
        # an order to a daemon that is gone is none
        (self._folder / ORDER).unlink(missing_ok=True)
        while not stopping.wait(LOOK_S):
            try:
                self.look(stopping)
            except OSError as error:
                # a full disk or a limit of the system: tried again
                self._say("waiting", f"{error.strerror or error}")
        if self._process is not None:
            self._process.stop()

    def look(self, stopping: threading.Event) -> None:
        """Look once: at orders, the clock, the heat, and the process."""
        order = self._take_order()
        is_open = self._is_ordered or (self._settings.enabled and self._settings.is_open(self._around.now().time()))
        if order == "roll-back":
            self._roll_back(stopping)
        elif order == "stop" or (self._process is not None and not is_open):
            self._stop("stopped by order" if order == "stop" else "the window has closed")
        elif self._process is not None:
            self._tend(stopping)
        elif order == "run" or (is_open and self._is_due()):
            self._is_ordered = order == "run" or self._is_ordered
            self._begin(stopping)
        elif not is_open or not self._is_due():
            self._say("waiting", "")

    def _take_order(self) -> str:
        path = self._folder / ORDER
        if not path.is_file():
            return ""
        order = str(load_object(path).get("order", ""))
        path.unlink(missing_ok=True)
        return order if order in ORDERS else ""

    def _window(self) -> str:
        """The day on which the window that is open now opened."""
        now, (begin, end) = self._around.now(), self._settings.hours
        is_after_midnight = begin >= end and now.time() < end
        return (now - timedelta(days=1) if is_after_midnight else now).date().isoformat()

    def _is_due(self) -> bool:
        return is_working(self._folder) or load_object(self._folder / "window.json").get("last") != self._window()

    def _begin(self, stopping: threading.Event) -> None:
        """Go on with the shift that is there, or begin one."""
        job = Job.read(self._folder)
        if job is not None and report_of(self._folder, job.night) is not None:
            self._finish(job, stopping)
            return
        if job is None:
            job = self._new_job()
            job.write(self._folder)
        write_json(self._folder / "window.json", {"last": self._window()})
        self._process = ShiftProcess(self._folder, job)
        self._say("working", "")
        log.info("night: shift %s works", job.night)

    def _new_job(self) -> Job:
        model = self._run.config.night_model
        configured = self._operations.configured_model(model.name)
        return Job(night_name(), model.name, configured, model.path, self._settings)

    def _stop(self, reason: str) -> None:
        self._is_ordered = False
        if self._process is not None:
            self._process.stop()
            self._process = None
            log.info("night: %s; the shift goes on in its next window", reason)
        write_json(self._folder / "window.json", {"last": self._window()})
        self._say("waiting", reason)

    def _tend(self, stopping: threading.Event) -> None:
        """Hold the process while the device is hot; see what it left when it has ended."""
        process = self._process
        assert process is not None
        if not process.ended():
            is_hot = _is_hot(self._around.read(), self._run.config.governor, is_held=process.is_paused)
            process.pause(is_hot)
            self._say("paused" if is_hot else "working", "the device is hot or draws too much" if is_hot else "")
            return
        self._process = None
        job = Job.read(self._folder)
        if job is None:
            return
        if report_of(self._folder, job.night) is not None:
            self._finish(job, stopping)
        elif Progress.read(self._folder).tries >= MAX_TRIES:
            self._end(job, {"night": job.night, "outcome": "dropped", "reason": _killed()})

    def _finish(self, job: Job, stopping: threading.Event) -> None:
        """Let the new model take over where the shift found it better."""
        found = report_of(self._folder, job.night)
        assert found is not None
        if found["outcome"] == "ready":
            candidate = Path(found["candidate"])
            self._say("taking over", "")
            outcome, reason = self._swap(job.name, candidate, stopping)
            if outcome == "":
                # the daemon stops: tried again after its next start
                return
            found |= {"outcome": outcome, "reason": reason or found["reason"]}
            if outcome == "kept":
                adopt(self._folder, found, job.configured)
        self._end(job, found)

    def _swap(self, name: str, path: Path, stopping: threading.Event) -> tuple[str, str]:
        """Outcome and reason of a swap; an empty outcome where the daemon stops before its end."""
        try:
            self._operations.order_swap_to(name, path)
        except EdgeError as error:
            return "refused", str(error)
        while not stopping.wait(POLL_S):
            report = self._operations.swap_state(name)["report"]
            if report is not None:
                return report["outcome"], f"in phase {report['phase']}: {report['reason']}" if report["reason"] else ""
        return "", ""

    def _end(self, job: Job, found: Mapping[str, Any]) -> None:
        self._is_ordered = False
        write_json(private_folder(self._folder / REPORTS) / f"{job.night}.json", found)
        shutil.rmtree(self._folder / WORK, ignore_errors=True)
        sweep(self._folder, job.configured)
        self._say("waiting", "")
        log.info("night: shift %s: %s: %s", job.night, found["outcome"], found["reason"])
        self._tell(found)

    def _tell(self, found: Mapping[str, Any]) -> None:
        """The event of the morning, in the name of the model's first camera."""
        model = self._run.config.night_model.name
        streams = [one.name for one in self._run.config.streams if self._run.config.model_of(one).name == model]
        data = {key: found[key] for key in ("night", "outcome", "reason")}
        if streams:
            self._around.report_event(Event("night_report", streams[0], time.monotonic_ns(), None, data))

    def _roll_back(self, stopping: threading.Event) -> None:
        """Let the model take over again that ran before the last one of a shift."""
        model = self._run.config.night_model
        chain = Chain.read(self._folder, self._operations.configured_model(model.name))
        before = chain.before(model.path)
        if before is None:
            self._say("waiting", f"{model.path.name} was made by no shift: there is nothing to roll back")
            return
        outcome, reason = self._swap(model.name, before, stopping)
        words = f"rolled back to {before.name}" if outcome == "kept" else f"not rolled back to {before.name}: {reason}"
        log.info("night: %s", words)
        self._say("waiting", words)
        night = next((link["night"] for link in chain.links if link["model"] == str(model.path)), "")
        if outcome == "kept" and (found := report_of(self._folder, night)) is not None:
            write_json(self._folder / REPORTS / f"{night}.json", {**found, "outcome": "rolled back", "reason": words})
            self._tell({"night": night, "outcome": "rolled back", "reason": words})

    def _say(self, phase: str, reason: str) -> None:
        """Note what is done, where it changed; a reason stays until something else is done."""
        if phase == "waiting" and not reason and self._said.get("phase") == "waiting":
            return
        said = {"phase": phase, "reason": reason}
        if said != self._said:
            write_json(self._folder / STATE, said)
            self._said = said


def _is_hot(facts: DeviceFacts, limits: GovernorSettings, *, is_held: bool) -> bool:
    """Whether the shift must wait: above the governor's limits, and once it waits, until the device is cool."""
    heat_c = limits.cool_c if is_held else limits.hot_c
    power_w = None if limits.max_power_w is None else limits.max_power_w * (0.9 if is_held else 1.0)
    is_over = power_w is not None and (facts.power_w or 0.0) > power_w
    return bool(facts.is_throttled) or (facts.temperature_c or 0.0) >= heat_c or is_over


def _killed() -> str:
    return f"its process ended {MAX_TRIES} times without a word; work/log.txt may say more"
