"""Which clip an event goes into: events that come close together share one, up to its longest length."""

from __future__ import annotations

from pathlib import Path

from edge.recording.recording import RecordingFolder
from edge.recording.settings import RecordSettings


class ClipNames:
    """Names the clips of one stream. Used by one thread.

    Args:
        settings: of the recording.
        folder: finds unused names.
    """

    def __init__(self, settings: RecordSettings, folder: RecordingFolder) -> None:
        self._settings = settings
        self._folder = folder
        self._clip: Path | None = None
        self._start_ns = 0
        self._until_ns = 0

    def clip_for(self, time_ns: int, wall_ns: int) -> Path | None:
        """The clip of events at this time of the stream (wall clock beside it); None in continuous mode."""
        if self._settings.mode != "events":
            return None
        is_running = self._clip is not None and self._start_ns <= time_ns <= self._until_ns
        if not is_running or time_ns - self._start_ns > self._settings.segment_s * 1e9:
            self._clip = self._folder.path_of(wall_ns, "clip")
            self._start_ns = time_ns
        self._until_ns = time_ns + round(self._settings.post_roll_s * 1e9)
        return self._clip
