"""Reading the configuration anew while the cameras run: apply what can be, say what needs a restart, break nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge.config import Config, ModelConfig, StreamConfig, load_config
from edge.daemon.credentials import with_secrets
from edge.errors import EdgeError
from edge.pipeline import Pipeline

log = logging.getLogger(__name__)
# keys of the file that are read once
NEEDS_RESTART = ("server", "state_dir", "memory_budget_mb", "governor", "record", "mqtt", "webhooks", "events", "log")


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two configurations."""

    added: tuple[StreamConfig, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[StreamConfig, ...] = ()
    swapped: tuple[ModelConfig, ...] = ()
    needs_restart: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.swapped or self.needs_restart)


@dataclass(slots=True)
class ReloadReport:
    """What a reload did, one sentence each; ``refused`` is set where the file is broken and nothing was done."""

    applied: list[str] = field(default_factory=list)
    needs_restart: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def changes_between(old: Config, new: Config) -> Changes:
    """What has to be done to get from one configuration to another."""
    before = {stream.name: stream for stream in old.streams}
    after = {stream.name: stream for stream in new.streams}
    models = {model.name: model for model in old.models}
    swapped, restart = [], []
    for model in new.models:
        known = models.get(model.name)
        if known is None:
            restart.append(f"models.{model.name}: new models are loaded at the start")
        elif known != model and _differs_in_path_only(known, model):
            swapped.append(model)
        elif known != model:
            restart.append(f"models.{model.name}: engine, threads and batches are set at the start")
    restart += [f"{key} is read at the start" for key in NEEDS_RESTART if _differs(old, new, key)]
    return Changes(
        added=tuple(stream for name, stream in after.items() if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(stream for name, stream in after.items() if name in before and before[name] != stream),
        swapped=tuple(swapped),
        needs_restart=tuple(restart),
    )


class Reloader:
    """Brings a running pipeline to what its file says now. Used by one thread at a time.

    Args:
        path: the file.
        config: what runs, secrets read in.
        pipeline: that runs it.
        announce: told of a stream before it begins, for the live page.
    """

    def __init__(
        self, path: Path, config: Config, pipeline: Pipeline, announce: Callable[[StreamConfig], None] = lambda _: None
    ) -> None:
        self._path = path
        self._config = config
        self._pipeline = pipeline
        self._announce = announce
        self.last = ReloadReport()

    def reload(self) -> ReloadReport:
        """Read the file and apply it. A broken file changes nothing."""
        report = ReloadReport()
        try:
            new = with_secrets(load_config(self._path))
        except EdgeError as error:
            report.refused = str(error)
            log.error("%s; nothing was changed, the last good configuration goes on", error)
            self.last = report
            return report
        changes = changes_between(self._config, new)
        self._pipeline.config = self._pipeline.config.model_copy(
            update={"swap": new.swap, "stop_timeout_s": new.stop_timeout_s}
        )
        self._apply(changes, report)
        report.needs_restart += changes.needs_restart
        # what could not be done is tried again by the next reload
        models = [self._model_now(model, report) for model in new.models]
        self._config = new.model_copy(update={"streams": self._pipeline.config.streams, "models": tuple(models)})
        for sentence in (*report.applied, *(f"needs a restart: {key}" for key in report.needs_restart)):
            log.info("reload: %s", sentence)
        for sentence in report.failed:
            log.error("reload: %s", sentence)
        self.last = report
        return report

    def _model_now(self, model: ModelConfig, report: ReloadReport) -> ModelConfig:
        is_failed = any(sentence.startswith(f"model {model.name} was ") for sentence in report.failed)
        return next(known for known in self._config.models if known.name == model.name) if is_failed else model

    def _apply(self, changes: Changes, report: ReloadReport) -> None:
        for name in changes.removed:
            self._try(report, f"stream {name} was removed", lambda name=name: self._pipeline.remove_stream(name))  # type: ignore[misc]
        for stream in changes.changed:
            self._try(report, f"stream {stream.name} was begun anew", lambda stream=stream: self._restart(stream))  # type: ignore[misc]
        for stream in changes.added:
            self._try(report, f"stream {stream.name} was added", lambda stream=stream: self._add(stream))  # type: ignore[misc]
        for model in changes.swapped:
            self._swap(model, report)

    def _try(self, report: ReloadReport, done: str, act: Callable[[], object]) -> None:
        try:
            act()
        except EdgeError as error:
            report.failed.append(f"{done.replace(' was ', ' was not ')}: {error}")
        else:
            report.applied.append(done)

    def _add(self, stream: StreamConfig) -> None:
        self._announce(stream)
        self._pipeline.add_stream(stream)

    def _restart(self, stream: StreamConfig) -> None:
        old = self._pipeline.lanes[stream.name].config if stream.name in self._pipeline.lanes else None
        if old is not None:
            self._pipeline.remove_stream(stream.name)
        try:
            self._pipeline.add_stream(stream)
        except EdgeError:
            # better the camera as it was than none
            if old is not None:
                self._pipeline.add_stream(old)
            raise

    def _swap(self, model: ModelConfig, report: ReloadReport) -> None:
        try:
            swap = self._pipeline.swap_model(model.name, model.path)
        except EdgeError as error:
            report.failed.append(f"model {model.name} was not changed: {error}")
            return
        if swap.outcome == "kept":
            report.applied.append(f"model {model.name} runs {model.path.name} now")
        else:
            report.failed.append(f"model {model.name} was {swap.outcome}: {swap.reason}")


def _differs_in_path_only(one: ModelConfig, other: ModelConfig) -> bool:
    return one.model_copy(update={"path": other.path}) == other


def _differs(old: Config, new: Config, key: str) -> bool:
    return bool(getattr(old, key, None) != getattr(new, key, None))
