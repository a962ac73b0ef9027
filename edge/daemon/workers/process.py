"""The daemon's side of one worker process: begun, heard, and ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.daemon.workers.link import Link, LinkClosedError, Message, raised
from edge.daemon.workers.pages import PageMemory
from edge.errors import EdgeError
from edge.models.manifest import Manifest
from edge.threads.python_process import child_environment, python_command
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.config.workers import WorkerSettings

log = logging.getLogger(__name__)
POLL_S = 0.05
# loading may build an engine or try several
START_LIMIT_S = 300.0
# from a worker that is neither loading nor stopped one hears five times a second
SILENT_S = 10.0
# one that was stopped from outside (SIGSTOP, a debugger, a frozen container) is not waited for
STOPPED_S = 0.3
# a stage that makes no progress for so long has hung
STUCK_S = 15.0
KILLED_S = 2.0


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known of an engine in another process."""

    name: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model in another process; see ``edge.model.Model``."""

    manifest: Manifest
    engine: EngineFacts


@dataclass(slots=True)
class Heard:
    """What a worker has said so far; written by the thread of its link.

    Attributes:
        is_ready: its models are loaded.
        status: the newest one.
        facts: of the process, the governor and the event desk.
        models, crop_models: by name.
        ended: its last word, None before.
        failure: why it could not begin, None where it could.
        at_s: when it was heard last.
    """

    is_ready: threading.Event = field(default_factory=threading.Event)
    status: Message = field(default_factory=dict)
    facts: Message = field(default_factory=dict)
    models: dict[str, ModelFacts] = field(default_factory=dict)
    crop_models: dict[str, Manifest] = field(default_factory=dict)
    ended: Message | None = None
    failure: Message | None = None
    at_s: float = field(default_factory=time.monotonic)


class ChildWorker:
    """A worker process. Its owner watches, stops and kills it; any thread may ask it over ``link``.

    Attributes:
        heard: what it has said.
        link: to it.
        memory: for its pictures.
        on_phase: told of the phases of a swap.
    """

    def __init__(self, setup: Message, place: WorkerSettings, handle: Callable[[ChildWorker, Message], None]) -> None:
        """Begin the process.

        Args:
            setup: see ``edge.daemon.workers.worker``.
            place: where it runs.
            handle: told of every message that is none of its own state.

        Raises:
            EdgeError: there are too many processes or files, or too little memory.
        """
        self.heard = Heard()
        self.on_phase: Callable[[Any], None] = lambda _: None
        self._handle_other = handle
        self._stopped_since_s: float | None = None
        self.started_s = time.monotonic()
        try:
            with ExitStack() as undo:
                self.memory = PageMemory()
                undo.callback(self.memory.close)
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(ours.close)
                with theirs:
                    self._process = _begun(theirs.fileno(), self.memory.fd, setup, place)
                undo.pop_all()
        except OSError as error:
            raise EdgeError(f"a worker cannot be begun ({error.strerror}); are there too many processes?") from None
        self.memory.close()
        self.link = Link(ours, self._handle)
        Worker(f"link {self.pid}", self.link.run).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def has_ended(self) -> bool:
        """Whether all its streams have come to their end."""
        return self.heard.ended is not None and not self.heard.ended["failures"]

    def wait_until_ready(self, is_stopping: Callable[[], bool]) -> None:
        """Wait until its models are loaded.

        Raises:
            EdgeError: they cannot be, it died, or it takes too long.
        """
        while not self.heard.is_ready.wait(POLL_S):
            if self.heard.failure is not None or not self.is_alive:
                self._process.wait()
                raise self._why_not()
            is_late = time.monotonic() - self.started_s > START_LIMIT_S
            if is_late or is_stopping():
                self.kill()
                raise EdgeError(f"a worker did not begin within {START_LIMIT_S:g} s" if is_late else "it was stopped")

    def trouble(self) -> str:
        """What is wrong with it, as a sentence; empty while all is well."""
        code = self._process.poll()
        if code is not None:
            return "" if self.has_ended else f"its process ended {_how(code)}"
        status, now_s = self.heard.status, time.monotonic()
        if failure := status.get("failure"):
            return f"it failed: {failure}"
        if self._is_stopped_for(now_s) > STOPPED_S:
            return "its process was stopped from outside"
        if now_s - self.heard.at_s > SILENT_S:
            return f"its process gives no sign of life for {SILENT_S:g} s"
        if status.get("unfed_s", 0.0) > STUCK_S:
            return status.get("stuck") or "a stage makes no progress"
        return ""

    @property
    def is_sick(self) -> bool:
        """Whether it cannot infer any more, and still captures and records."""
        return self.is_alive and bool(self.heard.status.get("failure"))

    def stop(self, seconds: float, grace_s: float = KILLED_S) -> bool:
        """Have it drain and end; it is killed after this time and that of grace. Whether it ended as it should."""
        try:
            self.link.send("stop", seconds=max(0.1, seconds))
            self._process.wait(max(0.1, seconds) + grace_s)
        except (LinkClosedError, subprocess.TimeoutExpired):
            log.debug("worker %d did not take or obey the order to stop", self.pid)
        is_clean = self.heard.ended is not None and bool(self.heard.ended["is_clean"])
        self.kill()
        return is_clean

    def kill(self) -> None:
        """End it at once and reap it; may be called twice. Its decoders end by themselves."""
        if self.is_alive:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.link.close()

    def _handle(self, message: Message) -> None:
        self.heard.at_s = time.monotonic()
        match message["kind"]:
            case "ready":
                self.heard.is_ready.set()
            case "status":
                self.heard.status = message
            case "facts":
                self.heard.facts = message
            case "model":
                facts = ModelFacts(Manifest.model_validate(message["manifest"]), EngineFacts(message["engine"]))
                self.heard.models = {**self.heard.models, message["name"]: facts}
            case "crop model":
                self.heard.crop_models[message["name"]] = Manifest.model_validate(message["manifest"])
            case "phase":
                self.on_phase(message["phase"])
            case "failed":
                self.heard.failure = message
            case "ended":
                self.heard.ended = message
            case _:
                self._handle_other(self, message)

    def _why_not(self) -> EdgeError:
        if self.heard.failure is None:
            return EdgeError(f"a worker ended {_how(self._process.returncode)} before it began; the log says more")
        return raised(self.heard.failure)

    def _is_stopped_for(self, now_s: float) -> float:
        """Seconds for which the system holds the process, 0 while it may run."""
        if _state_of(self.pid) not in ("T", "t"):
            self._stopped_since_s = None
            return 0.0
        self._stopped_since_s = self._stopped_since_s or now_s
        return now_s - self._stopped_since_s


def _begun(channel: int, page: int, setup: Message, place: WorkerSettings) -> subprocess.Popen[bytes]:
    # passwords may stand in it: neither command line nor environment
    file = os.memfd_create("edge-setup", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as writer:
            writer.write(json.dumps({**setup, "cores": place.cores}).encode())
        os.lseek(file, 0, os.SEEK_SET)
        more = {}
        if place.device is not None:
            more = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(place.device)}
        return subprocess.Popen(
            python_command("edge.daemon.workers.worker", str(channel), str(page), str(file)),
            env=child_environment(more),
            pass_fds=(channel, page, file),
            stdin=subprocess.DEVNULL,
        )
    finally:
        os.close(file)


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
    return f"with code {code}"


def _state_of(pid: int) -> str:
    """The state that the kernel names, such as ``R``; empty where it cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
