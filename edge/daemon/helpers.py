"""What works next to a pipeline in its process: counts are saved, the watch log is kept, the device is kept cool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.daemon.count_saver import CountSaver
from edge.daemon.governor import Governor
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.config.schema import Config
    from edge.pipeline import Pipeline

# a disk that hangs costs the last rows, and no end
WATCH_LOG_END_S = 3.0
END_S = 1.0


class Helpers:
    """Threads that begin and end with a pipeline.

    Attributes:
        governor: None where none is wanted.
    """

    def __init__(self, config: Config, pipeline: Pipeline) -> None:
        """Args: with its ``state_dir``; what they help.

        Raises:
            ConfigError: there is no place for the watch log.
        """
        saver = CountSaver(lambda: [stream.analysis for stream in pipeline.streams.values()])
        self._workers = [Worker("counts", saver.run)]
        self.governor: Governor | None = None
        if config.governor.enabled:
            self.governor = Governor(config.governor, lambda: pipeline.streams)
            self._workers.append(Worker("governor", self.governor.run))
        self._watching: Worker | None = None
        if config.watch_log is not None:
            from edge.daemon.watcher import Watcher, watch_folder

            watcher = Watcher(lambda: pipeline.streams, watch_folder(config), config.watch_log)
            self._watching = Worker("watch log", watcher.run)

    def start(self) -> None:
        """Before the first frame."""
        for worker in (*([self._watching] if self._watching is not None else []), *self._workers):
            worker.start()

    def stop(self) -> None:
        """Ask all to end that need no last frame; does not wait."""
        for worker in self._workers:
            worker.stop()

    def finish(self) -> None:
        """End all, after the last frame."""
        if self._watching is not None:
            self._watching.stop()
            self._watching.join(WATCH_LOG_END_S)
        for worker in self._workers:
            worker.join(END_S)
