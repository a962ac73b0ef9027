"""One shift as files: what it is asked to do, how far it came, what became of it.

The daemon, the command and the process that learns speak through them; each is written whole or not at all, so any of
the three may be killed at any time. Below the night's folder: ``frames/`` (kept by day), ``work/`` (of the shift under
way: its job, a JSON file per stage that is done), ``models/``, ``reports/``, ``chain.json`` (which networks followed
which).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.config.night import NightSettings
from edge.files import load_object, write_atomic
from edge.night.frames import private_folder
from edge.threads.python_process import child_environment, python_command

STAGES = ("collect", "teachers", "label", "learn", "quantize", "judge")
WORK, REPORTS, MODELS = "work", "reports", "models"
# a shift that was killed so often is given up: something in it kills it
MAX_TRIES = 5
MODULE = "export.night.child"
# what can be gone back to, and looked up
KEPT_MODELS, KEPT_REPORTS = 5, 60


@dataclass(frozen=True, slots=True)
class Job:
    """What a shift is asked to do.

    Attributes:
        night: its name, the local time at which it began.
        name: of the model in the configuration.
        configured: the model file that the configuration names.
        model: the one that runs.
        settings: ``[night]``.
    """

    night: str
    name: str
    configured: Path
    model: Path
    settings: NightSettings

    def write(self, folder: Path) -> None:
        """Begin a shift with a clean folder of work."""
        work = folder / WORK
        shutil.rmtree(work, ignore_errors=True)
        private_folder(folder)
        private_folder(work)
        paths = {"configured": str(self.configured), "model": str(self.model)}
        facts = {"night": self.night, "name": self.name, **paths, "settings": self.settings.model_dump(mode="json")}
        write_json(work / "job.json", facts)

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """The job under way; None where there is none."""
        match load_object(folder / WORK / "job.json"):
            case {"night": str(night), "name": str(name), "configured": configured, "model": model, "settings": known}:
                return cls(night, name, Path(configured), Path(model), NightSettings.model_validate(known))
        return None


@dataclass(slots=True)
class Progress:
    """How far a shift came. Attributes: ``tries``: times it was begun; ``cpu_s``: processor seconds that it used."""

    tries: int = 0
    cpu_s: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> Progress:
        found = load_object(folder / WORK / "progress.json")
        return cls(int(found.get("tries", 0)), float(found.get("cpu_s", 0.0)))

    def write(self, folder: Path) -> None:
        write_json(folder / WORK / "progress.json", asdict(self))

    def note(self, folder: Path, cpu_s: float) -> None:
        """Write how many processor seconds are used now."""
        self.cpu_s = round(cpu_s, 2)
        self.write(folder)


@dataclass(frozen=True, slots=True)
class Chain:
    """Which networks followed which.

    Attributes:
        configured: the model file of the configuration that they began with.
        links: model file, checkpoint and night of each network that took over, oldest first.
    """

    configured: str = ""
    links: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def read(cls, folder: Path, configured: Path) -> Chain:
        """That of this model; a new one where the configuration names another file now."""
        match load_object(folder / "chain.json"):
            case {"configured": str(before), "links": list(links)} if before == str(configured):
                return cls(before, tuple(links))
        return cls(str(configured))

    def write(self, folder: Path) -> None:
        write_json(folder / "chain.json", {**asdict(self), "links": list(self.links)})

    def before(self, model: Path) -> Path | None:
        """The file that ran before this one; None where it is none of the chain's."""
        files = [self.configured, *(link["model"] for link in self.links)]
        place = files.index(str(model)) if str(model) in files else 0
        return Path(files[place - 1]) if place else None

    def checkpoint_of(self, model: Path) -> Path | None:
        """What a model of the chain was exported from; None for one that is not of the chain."""
        return next((Path(link["checkpoint"]) for link in self.links if link["model"] == str(model)), None)

    def with_link(self, model: str, checkpoint: str, night: str) -> Chain:
        """With one more network; what came after the one that it learned from is no longer part of it."""
        return Chain(self.configured, (*self.links, {"model": model, "checkpoint": checkpoint, "night": night}))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file that this user alone may read. Raises: OSError: it cannot be written."""
    write_atomic(path, json.dumps(value, indent=1), mode=0o600)


def report_of(folder: Path, night: str) -> dict[str, Any] | None:
    """The report of a shift; None where it has not come to an end."""
    return load_object(folder / REPORTS / f"{night}.json") or None


def adopt(folder: Path, report: Mapping[str, Any], configured: Path) -> None:
    """Note that the network of a shift has taken over: the next one learns from it."""
    chain = Chain.read(folder, configured)
    chain.with_link(report["candidate"], report["checkpoint"], report["night"]).write(folder)


def sweep(folder: Path, configured: Path) -> None:
    """Delete models that took over nowhere or long ago, and the oldest reports with their pictures."""
    links = Chain.read(folder, configured).links[-KEPT_MODELS:]
    kept = {Path(link[key]).stem for link in links for key in ("model", "checkpoint")}
    for path in (folder / MODELS).glob("*"):
        if path.name.partition(".")[0] not in kept:
            path.unlink(missing_ok=True)
    for path in sorted((folder / REPORTS).glob("*.json"))[:-KEPT_REPORTS]:
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink(missing_ok=True)


def done_stages(folder: Path) -> list[str]:
    """The stages of the shift under way that are done."""
    return [stage for stage in STAGES if (folder / WORK / f"{stage}.json").is_file()]


def stage_facts(folder: Path, stage: str) -> dict[str, Any]:
    """What a stage wrote when it was done; empty before."""
    return load_object(folder / WORK / f"{stage}.json")


class ShiftProcess:
    """The process that labels, learns and judges: it has the processor only when nobody else wants it."""

    def __init__(self, folder: Path, job: Job) -> None:
        """Begin it, or go on with what a killed one left."""
        place = private_folder(folder / WORK)
        command = python_command(MODULE, str(folder))
        if (ionice := shutil.which("ionice")) is not None:
            command = [ionice, "-c", "3", "-t", *command]
        threads = {"OMP_NUM_THREADS": str(job.settings.threads), "OPENBLAS_NUM_THREADS": str(job.settings.threads)}
        handle = os.open(place / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, env=child_environment(threads)
            )
        finally:
            os.close(handle)
        self._is_paused = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def ended(self) -> bool:
        return self._process.poll() is not None

    def pause(self, is_paused: bool) -> None:
        """Hold it, or let it go on."""
        if is_paused != self._is_paused and not self.ended():
            self._process.send_signal(signal.SIGSTOP if is_paused else signal.SIGCONT)
            self._is_paused = is_paused

    def stop(self) -> None:
        """End it; what it has done is kept for the next one."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False if the time is over first."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.ended()


def night_name() -> str:
    """Of a shift that begins now."""
    return time.strftime("%Y-%m-%dT%H%M%S")
