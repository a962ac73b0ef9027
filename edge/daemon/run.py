"""What the daemon asks of that which runs the streams: a pipeline in this process, or workers in others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.models.manifest import Manifest
    from edge.pipeline.progress import Progress
    from edge.pipeline.swap.report import Phase, SwapReport
    from edge.server.recordings import Archive
    from edge.types import UInt8


class RunningStream(Protocol):
    """One stream; see ``edge.pipeline.stream.Stream``."""

    @property
    def config(self) -> StreamSettings: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def num_emitted(self) -> int: ...
    @property
    def num_frames(self) -> int | None: ...
    def stats(self) -> dict[str, object]: ...
    def summary(self) -> dict[str, Any]: ...


class RunningEngine(Protocol):
    """What runs a model."""

    @property
    def name(self) -> str: ...


class RunningModel(Protocol):
    """A model that is loaded; see ``edge.model.Model``."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def engine(self) -> RunningEngine: ...


class Outputs(Protocol):
    """Events and recordings of all streams; see ``edge.pipeline.shared_outputs.SharedOutputs``."""

    def stats(self) -> dict[str, object]: ...
    def archive(self) -> Archive: ...
    def flush_tracks(self, timeout_s: float) -> None: ...


class Run(Protocol):
    """See ``edge.pipeline.Pipeline`` and ``edge.daemon.workers.pool.WorkerPool``."""

    config: Config
    started_ns: int
    rehearse: Callable[[Config, Mapping[str, object]], None]

    @property
    def streams(self) -> Mapping[str, RunningStream]: ...
    @property
    def models(self) -> Mapping[str, RunningModel]: ...
    @property
    def outputs(self) -> Outputs: ...
    @property
    def is_running(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> bool: ...
    def not_ready(self) -> str | None: ...
    def heat(self, name: str) -> UInt8 | None: ...
    def progress(self) -> Mapping[str, Progress]: ...
    def failures(self) -> list[BaseException]: ...
    def add_stream(self, config: StreamSettings) -> object: ...
    def change_analytics(self, config: StreamSettings) -> None: ...
    def remove_stream(self, name: str) -> bool: ...
    def swap_model(
        self,
        name: str,
        path: Path,
        *,
        renamed: Mapping[str, str] | None = None,
        has_trial: bool = True,
        on_phase: Callable[[Phase], None] = lambda phase: None,
    ) -> SwapReport: ...
