"""Reading the configuration again while the cameras run: apply what can be, say what needs a restart, break nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config.load import load_config
from edge.daemon.credentials import with_secrets
from edge.errors import EdgeError

if TYPE_CHECKING:
    from edge.config.schema import Config, ModelSettings, StreamSettings
    from edge.daemon.run import Run

log = logging.getLogger(__name__)
# keys of the file that are read once
NEEDS_RESTART = (
    "server",
    "rtsp",
    "state_dir",
    "memory_budget_mb",
    "encoder",
    "governor",
    "workers",
    "mqtt",
    "webhooks",
    "notify",
    "events",
    "track_store",
    "night",
    "log",
    "watch_log",
)
# what may go wrong with a stream or a model: the daemon goes on
OUTSIDE = (EdgeError, OSError)


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two configurations."""

    added: tuple[StreamSettings, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[StreamSettings, ...] = ()
    swapped: tuple[ModelSettings, ...] = ()
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
    """What has to be done to get from the configuration that runs to another."""
    before = {stream.name: stream for stream in old.streams}
    after = {stream.name: stream for stream in new.streams}
    return Changes(
        added=tuple(stream for name, stream in after.items() if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(stream for name, stream in after.items() if name in before and before[name] != stream),
        swapped=tuple(model for model in new.models if _is_swap(old, model)),
        needs_restart=(
            *_model_restarts(old, new),
            *_moved_streams(old, new),
            *(f"{key} is read at the start" for key in NEEDS_RESTART if getattr(old, key) != getattr(new, key)),
        ),
    )


class Reloader:
    """Brings a running pipeline to what its file says now. Used by one thread at a time.

    Args:
        path: the file.
        config: what runs, secrets read in, without the models that were swapped in later.
        pipeline: that runs it.
        announce: told of a stream before it begins, for the live page.

    Attributes:
        last: what the last reload did.
        model_paths: model → path that the file named when it was read last, which a swap does not change.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        pipeline: Run,
        announce: Callable[[StreamSettings], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._read = config
        self._config = config
        self._pipeline = pipeline
        self._announce = announce
        self.last = ReloadReport()
        self.model_paths: Mapping[str, Path] = _paths(config)
        self._can_turn = any(stream.ptz for stream in config.streams)

    def reload(self) -> ReloadReport:
        """Read the file and apply it. A broken file changes nothing."""
        report = ReloadReport()
        try:
            new = with_secrets(load_config(self._path))
        except EdgeError as error:
            report.refused = str(error)
            log.error("%s; nothing was changed, the last good configuration goes on", error)
        else:
            self._bring_to(new, report)
        self.last = report
        return report

    def note_failure(self, reason: str) -> None:
        """Report a reload that broke off in a way that nobody foresaw."""
        self.last = ReloadReport(failed=[f"the reload broke off: {reason}"])

    def has_read_the_file(self) -> bool:
        """Whether the file still says what it said when it was read last; it may be edited at any time."""
        try:
            return with_secrets(load_config(self._path)) == self._read
        except EdgeError:
            return False

    def _bring_to(self, new: Config, report: ReloadReport) -> None:
        # what could not be done is tried again by the next reload
        running = self._config.model_copy(update={"streams": self._pipeline.config.streams})
        changes = changes_between(running, new)
        report.refused = self._lost(changes, new)
        if report.refused:
            log.error("%s; nothing was changed", report.refused)
            return
        self._read, self.model_paths = new, _paths(new)
        self._pipeline.config = self._pipeline.config.model_copy(
            update={"swap": new.swap, "stop_timeout_s": new.stop_timeout_s, "tests": new.tests}
        )
        self._apply_streams(changes, report)
        swapped = {model.name: model for model in changes.swapped if self._swap(model, report)}
        report.needs_restart += changes.needs_restart
        turning = next((stream.name for stream in new.streams if stream.ptz is not None), None)
        if turning is not None and not self._can_turn:
            report.needs_restart.append(f"streams.{turning}.ptz: the first camera that turns needs a start")
        # what needs a restart is told by every reload until there was one
        unread = {key: getattr(self._config, key) for key in NEEDS_RESTART}
        models = tuple(swapped.get(model.name, model) for model in self._config.models)
        self._config = new.model_copy(update={**unread, "models": models})
        for sentence in (*report.applied, *(f"needs a restart: {key}" for key in report.needs_restart)):
            log.info("reload: %s", sentence)
        for sentence in report.failed:
            log.error("reload: %s", sentence)

    def _lost(self, changes: Changes, new: Config) -> str:
        """What the clip tests miss with the new streams; a model that changes too is tested when it takes over."""
        if not (changes.changed or changes.removed):
            return ""
        running = {model.name: model for model in self._pipeline.config.models}
        models = tuple(running.get(model.name, model) for model in new.models)
        try:
            self._pipeline.rehearse(new.model_copy(update={"models": models}), {})
        except EdgeError as error:
            return str(error)
        return ""

    def _apply_streams(self, changes: Changes, report: ReloadReport) -> None:
        for name in changes.removed:
            self._try(report, f"stream {name} was removed", partial(self._pipeline.remove_stream, name))
        for stream in changes.changed:
            if self._differs_in_analytics_only(stream):
                watch = partial(self._pipeline.change_analytics, stream)
                self._try(report, f"stream {stream.name} was given other lines and zones", watch)
            else:
                self._try(report, f"stream {stream.name} was started again", partial(self._restart, stream))
        for stream in changes.added:
            self._try(report, f"stream {stream.name} was added", partial(self._add, stream))

    def _differs_in_analytics_only(self, stream: StreamSettings) -> bool:
        running = next(one for one in self._pipeline.config.streams if one.name == stream.name)
        return running.model_copy(update={"analytics": stream.analytics}) == stream

    def _try(self, report: ReloadReport, done: str, act: Callable[[], object]) -> None:
        try:
            act()
        except OUTSIDE as error:
            report.failed.append(f"{done.replace(' was ', ' was not ')}: {error}")
        else:
            report.applied.append(done)

    def _add(self, stream: StreamSettings) -> None:
        self._announce(stream)
        self._pipeline.add_stream(stream)

    def _restart(self, stream: StreamSettings) -> None:
        old = self._pipeline.streams[stream.name].config if stream.name in self._pipeline.streams else None
        if old is not None:
            self._pipeline.remove_stream(stream.name)
        try:
            self._pipeline.add_stream(stream)
        except OUTSIDE:
            # better the camera as it was than none
            if old is not None:
                self._pipeline.add_stream(old)
            raise

    def _swap(self, model: ModelSettings, report: ReloadReport) -> bool:
        """Whether the model runs now."""
        try:
            swap = self._pipeline.swap_model(model.name, model.path)
        except OUTSIDE as error:
            report.failed.append(f"model {model.name} was not changed: {error}")
            return False
        if swap.outcome == "kept":
            report.applied.append(f"model {model.name} runs {model.path.name} now")
            return True
        report.failed.append(f"model {model.name} was {swap.outcome}: {swap.reason}")
        return False


def _paths(config: Config) -> dict[str, Path]:
    return {model.name: model.path for model in config.models}


def _is_swap(old: Config, model: ModelSettings) -> bool:
    """Whether a running model can be brought to these settings: only its file is another, and only frames go to it."""
    known = next((known for known in old.models if known.name == model.name), model)
    return known != model and _differs_in_path_only(known, model) and _is_for_frames_only(old, known)


def _model_restarts(old: Config, new: Config) -> Iterator[str]:
    """What differs between the models and is no swap."""
    before = {model.name: model for model in old.models}
    for model in new.models:
        known = before.pop(model.name, None)
        if known is None:
            yield f"models.{model.name}: new models are loaded at the start"
        elif known == model or _is_swap(old, model):
            continue
        elif _differs_in_path_only(known, model):
            yield f"models.{model.name}: only a model that frames alone go to is changed while it runs"
        else:
            yield f"models.{model.name}: engine, threads and batches are set at the start"
    yield from (f"models.{name}: a model that is gone is let go at the start" for name in before)


def _moved_streams(old: Config, new: Config) -> Iterator[str]:
    """The streams that name no model, where another model is the first one now."""
    for stream in new.streams:
        before, after = old.model_of(stream).name, new.model_of(stream).name
        if stream.model is None and before != after:
            yield f"streams.{stream.name}: {before} runs it until the start, then the first model, {after}"


def _is_for_frames_only(config: Config, model: ModelSettings) -> bool:
    at_objects = {stream.second_stage.model for stream in config.streams if stream.second_stage is not None}
    at_objects |= {name for stream in config.streams if (name := stream.track.appearance_model) is not None}
    return config.has_frames(model) and model.name not in at_objects


def _differs_in_path_only(one: ModelSettings, other: ModelSettings) -> bool:
    return one.model_copy(update={"path": other.path}) == other
