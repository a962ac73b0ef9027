"""What may be asked of a running daemon: read the file again, change a model. One job at a time, in its own thread."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.daemon.questions import Questions
from edge.daemon.state import keep_good, keep_swapped
from edge.errors import ConfigError, EdgeError, UsageError
from edge.pipeline.swap.report import Phase, SwapReport
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.daemon.edit import ConfigEditor
    from edge.daemon.reload import Reloader
    from edge.daemon.run import Run

log = logging.getLogger(__name__)
POLL_S = 0.2
MAX_WAITING = 4


@dataclass(frozen=True, slots=True)
class _Job:
    """An order, and who is told when it fails in a way that nobody foresaw."""

    name: str
    act: Callable[[], None]
    on_failure: Callable[[str], None]


class Operations:
    """Takes orders from any thread; ``run`` carries them out one after the other.

    Attributes:
        questions: about the past, which wait for no order.

    Args:
        pipeline: that runs.
        reloader: None where the configuration came from arguments.
        config_path: the file, to keep a copy of it when it proves good.
        folder: where state is kept, None for nowhere.
        safe_reason: why the last good configuration runs instead of the file's, empty if it does not.
    """

    def __init__(
        self,
        pipeline: Run,
        reloader: Reloader | None,
        config_path: Path | None,
        folder: Path | None,
        safe_reason: str = "",
    ) -> None:
        self._pipeline = pipeline
        self._reloader = reloader
        self._config_path = config_path
        self._folder = folder
        self._safe_reason = safe_reason
        self.questions = Questions(pipeline, self.editor)
        self._jobs: queue.Queue[_Job] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._phases: dict[str, Phase | str] = {}
        self._reports: dict[str, SwapReport] = {}
        # since when what the file says runs; None where it does not, or where a copy of it is kept already
        self._unproven_since_s = None if safe_reason else time.monotonic()

    def run(self, stopping: threading.Event) -> None:
        """Carry out what comes until asked to stop; an order that fails is reported, and the next one is taken."""
        while not stopping.is_set():
            try:
                job = self._jobs.get(timeout=POLL_S)
            except queue.Empty:
                continue
            # a worker of its own lets no failure through, whatever it is
            worker = Worker(job.name, lambda _, job=job: job.act())  # type: ignore[misc]
            worker.start()
            while not worker.join(POLL_S) and not stopping.is_set():
                pass
            if worker.failure is not None:
                job.on_failure(f"{worker.failure}; the log says more")
        self.questions.stop()

    def order_reload(self) -> None:
        """Read the file again soon.

        Raises:
            EdgeError: there is no file, or too much waits already.
        """
        if self._reloader is None:
            raise UsageError("this daemon was started from arguments; there is no file to read again")
        self._put(_Job("reload", self._reload, self._reloader.note_failure))

    def editor(self) -> ConfigEditor | None:
        """What changes the file from the page; None where there is no file."""
        from edge.daemon.edit import ConfigEditor

        if self._reloader is None or self._config_path is None:
            return None
        return ConfigEditor(self._config_path, self._folder, self._pipeline, self.order_reload)

    def order_swap(self, name: str, file_name: str, classes: Mapping[str, str]) -> None:
        """Change a model soon.

        Args:
            name: of the model in the configuration.
            file_name: a file in the folder of the model that runs; nothing outside it can be named.
            classes: new class name → old one.

        Raises:
            ConfigError: there is no such model or file.
            EdgeError: a swap of this model is under way, or too much waits already.
        """
        self._order_swap(name, self._candidate(name, file_name), classes)

    def order_swap_to(self, name: str, path: Path) -> None:
        """Change a model soon to a file of the night shift's, wherever it lies.

        Raises:
            EdgeError: the file is gone, a swap of this model is under way, or too much waits already.
        """
        if not path.is_file():
            raise ConfigError(f"{path.name}: is gone; nothing can take over")
        self._order_swap(name, path, {})

    def configured_model(self, name: str) -> Path:
        """The file that the configuration names for a model, whatever was swapped in since."""
        running = {model.name: model.path for model in self._pipeline.config.models}
        return running[name] if self._reloader is None else self._reloader.model_paths.get(name, running[name])

    def _order_swap(self, name: str, path: Path, classes: Mapping[str, str]) -> None:
        with self._lock:
            if name in self._phases:
                raise EdgeError(f"a swap of {name} is under way; wait for its end")
            self._phases[name] = "waiting"
            self._reports.pop(name, None)
        try:
            self._put(_Job("swap", lambda: self._swap(name, path, classes), lambda why: self._refuse(name, path, why)))
        except EdgeError:
            self._forget_phase(name)
            raise

    def swap_state(self, name: str) -> dict[str, Any]:
        """``phase`` of the swap under way, None if there is none; ``report`` of the last one, None before the first."""
        with self._lock:
            report = self._reports.get(name)
            return {"phase": self._phases.get(name), "report": None if report is None else report.as_dict()}

    def models(self) -> dict[str, Any]:
        """The models that run, by name."""
        paths = {model.name: model.path for model in self._pipeline.config.models}
        return {
            name: {
                "file": paths[name].name,
                "engine": model.engine.name,
                "task": model.manifest.task,
                "precision": model.manifest.precision,
                "classes": list(model.manifest.classes),
                "swap": self.swap_state(name),
            }
            for name, model in list(self._pipeline.models.items())
        }

    def config_state(self) -> dict[str, Any]:
        """Whether the file's configuration runs, and what the last reload did."""
        last = self._reloader.last if self._reloader is not None else None
        reason = (last.refused if last is not None else "") or self._safe_reason
        state = {"state": "safe" if reason else "good", "reason": reason}
        return {**state, **({} if last is None else {"last_reload": last.as_dict()})}

    def keep_proven(self, after_s: float) -> None:
        """Keep a copy of the file once what it says has run for so many seconds; from any thread."""
        with self._lock:
            since_s = self._unproven_since_s
            if since_s is None or time.monotonic() - max(since_s, self._pipeline.started_ns / 1e9) < after_s:
                return
            self._unproven_since_s = None
        # an edit that was not read yet proves nothing
        if self._config_path is not None and self._reloader is not None and self._reloader.has_read_the_file():
            keep_good(self._config_path, self._folder)

    def _put(self, job: _Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise EdgeError(f"{MAX_WAITING} orders wait already; try again later") from None

    def _candidate(self, name: str, file_name: str) -> Path:
        running = {model.name: model.path for model in self._pipeline.config.models}
        if name not in self._pipeline.models:
            raise ConfigError(f"no model is called {name!r}; running: {', '.join(self._pipeline.models)}")
        if not file_name or Path(file_name).name != file_name or file_name.startswith("."):
            raise ConfigError("expected the name of a file in the folder of the model that runs, without any folder")
        path = running[name].parent / file_name
        if not path.is_file() or path.is_symlink():
            raise ConfigError(f"{file_name}: no such file next to {running[name].name}; copy it there first")
        return path

    def _swap(self, name: str, path: Path, classes: Mapping[str, str]) -> None:
        def tell(phase: Phase) -> None:
            with self._lock:
                self._phases[name] = phase

        try:
            report = self._pipeline.swap_model(name, path, renamed=classes, on_phase=tell)
        except EdgeError as error:
            report = SwapReport(name, str(path), "refused", str(error), "trial")
        self._end_swap(report)
        if report.outcome == "kept" and self._reloader is not None:
            keep_swapped(name, self._reloader.model_paths.get(name, path), path, self._folder)

    def _refuse(self, name: str, path: Path, reason: str) -> None:
        """Close a swap that broke off; one that has its report keeps it."""
        with self._lock:
            is_open = name in self._phases
        if is_open:
            self._end_swap(SwapReport(name, str(path), "refused", reason, "trial"))

    def _end_swap(self, report: SwapReport) -> None:
        with self._lock:
            self._reports[report.model] = report
            self._phases.pop(report.model, None)

    def _forget_phase(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)

    def _reload(self) -> None:
        assert self._reloader is not None
        report = self._reloader.reload()
        if report.refused:
            return
        self._safe_reason = ""
        with self._lock:
            self._unproven_since_s = None if report.failed else time.monotonic()
