"""What is switched off of which stream: analysis, recording. It stays so over a restart."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError
from edge.files import load_object, write_atomic

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.interfaces import SwitchPart

log = logging.getLogger(__name__)
FILE_NAME = "switches.json"
PARTS: tuple[SwitchPart, ...] = ("analysis", "recording")


class Switches:
    """Any thread may ask and set.

    Args:
        folder: where they are kept; None: they are forgotten at the end.
        off: stream → what begins switched off, in place of what was kept.
    """

    def __init__(self, folder: Path | None, off: Mapping[str, Sequence[str]] | None = None) -> None:
        self._path = None if folder is None else folder / FILE_NAME
        self._changing = threading.Lock()
        # replaced as a whole
        self._off: Mapping[str, frozenset[SwitchPart]] = _known(self._kept() if off is None else off)

    def off(self, stream: str) -> frozenset[SwitchPart]:
        """What is switched off of this stream."""
        return self._off.get(stream, frozenset())

    def put(self, stream: str, off: Sequence[str]) -> None:
        """Another process says what is switched off of a stream."""
        with self._changing:
            self._off = {**self._off, **_known({stream: list(off)})}

    def change(self, stream: StreamSettings, part: SwitchPart, *, is_on: bool) -> bool:
        """Switch, and remember it; whether that is news.

        Raises:
            ConfigError: the stream records nothing.
        """
        if part == "recording" and stream.record is None:
            raise ConfigError(f"stream {stream.name!r} records nothing; expected [streams.record] in the configuration")
        with self._changing:
            before = self.off(stream.name)
            after = before - {part} if is_on else before | {part}
            if after == before:
                return False
            self._off = {**self._off, stream.name: after}
            self._write()
        log.info("%s: %s is switched %s", stream.name, part, "on" if is_on else "off")
        return True

    def _kept(self) -> Mapping[str, Any]:
        try:
            return {} if self._path is None else load_object(self._path)
        except OSError as error:
            log.warning("%s: cannot be read (%s); everything is switched on", self._path, error.strerror)
            return {}

    def _write(self) -> None:
        if self._path is None:
            return
        kept = {stream: sorted(off) for stream, off in self._off.items() if off}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps(kept))
        except OSError as error:
            log.warning("%s: cannot be written (%s); a restart switches on again", self._path, error.strerror)


def _known(kept: Mapping[str, Any]) -> dict[str, frozenset[SwitchPart]]:
    """What can be understood of a file; what is damaged is worth less than a daemon that starts."""
    return {
        stream: frozenset(part for part in PARTS if part in off)
        for stream, off in kept.items()
        if isinstance(off, list)
    }
