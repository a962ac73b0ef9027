"""Remembers costly measurements in a file, so that an interrupted search goes on where it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.files import write_atomic
from edge.models.manifest import content_hash

log = logging.getLogger(__name__)


class Memo:
    """JSON values by what was measured.

    Args:
        path: the file; made with the first figure.
        identity: hash of all that the figures depend on; a file of another identity is ignored and replaced.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity
        self._values = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or content.get("identity") != self._identity:
            return {}
        values: dict[str, Any] = content["values"]
        log.info("%s: %d measurements of an interrupted run are used again", self._path, len(values))
        return values

    def value(self, what: Any, measure: Callable[[], Any]) -> Any:
        """The remembered value, or that of ``measure``, which is then remembered.

        Args:
            what: JSON values that say what is measured.
        """
        key = content_hash(what)
        if key not in self._values:
            self._values[key] = measure()
            write_atomic(self._path, json.dumps({"identity": self._identity, "values": self._values}) + "\n")
        return self._values[key]

    def forget(self) -> None:
        """Remove the file: the work is done."""
        self._path.unlink(missing_ok=True)
