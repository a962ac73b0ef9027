"""What the daemon keeps over a restart: the last good configuration, swapped models, how often it began."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config.load import load_config
from edge.errors import ConfigError
from edge.files import sha256_of, write_atomic

if TYPE_CHECKING:
    from edge.config.schema import Config

log = logging.getLogger(__name__)
STATE_VARIABLE = "STATE_DIRECTORY"
LAST_GOOD = "last-good.toml"
MODELS = "swapped-models.json"
STARTS = "starts.json"
# so many starts without a clean end in so many seconds are a crash loop
CALM_STARTS = 3
WINDOW_S = 900.0
MAX_DELAY_S = 120.0


def state_dir(config: Config | None) -> Path | None:
    """Where state is kept: as configured, else where systemd says (StateDirectory=), else nowhere."""
    if config is not None and config.state_dir is not None:
        return config.state_dir
    named = os.environ.get(STATE_VARIABLE, "").partition(":")[0]
    return Path(named) if named else None


def with_state_dir(config: Config, folder: Path | None) -> Config:
    """The configuration with the place for state that is used where it names none."""
    return config if config.state_dir is not None else config.model_copy(update={"state_dir": folder})


def load_or_last_good(path: Path) -> tuple[Config, str]:
    """The configuration, or the last good one where this is broken and one is kept.

    Returns:
        It, and why it is not that of the file; empty if it is.

    Raises:
        ConfigError: it is broken, and none is kept.
    """
    try:
        return load_config(path), ""
    except ConfigError as error:
        folder = state_dir(None)
        kept = None if folder is None else folder / LAST_GOOD
        if kept is None or not kept.is_file():
            raise
        log.error("%s; the last good configuration runs: %s", error, kept)
        return load_config(kept), str(error)


def keep_good(path: Path, folder: Path | None) -> None:
    """Keep a copy of a configuration that works."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / LAST_GOOD, path.read_bytes())
        # it may hold what the file holds
        (folder / LAST_GOOD).chmod(0o600)
    except OSError as error:
        log.warning("%s: no copy of the configuration can be kept there (%s)", folder, error.strerror)


def with_swapped(config: Config, folder: Path | None) -> Config:
    """The configuration with the models that were swapped in, where the file still names the one before."""
    stored = _read(folder, MODELS)
    models = []
    for model in config.models:
        found = stored.get(model.name) or {}
        path = Path(str(found.get("path", "")))
        is_wanted = found.get("configured") == str(model.path) and path.is_file()
        if is_wanted and _sha256_or_none(path) == found.get("sha256", ""):
            log.info("%s: runs %s, swapped in earlier in place of %s", model.name, path.name, model.path.name)
            model = model.model_copy(update={"path": path, "manifest": None})  # noqa: PLW2901
        models.append(model)
    return config.model_copy(update={"models": tuple(models)})


def keep_swapped(name: str, configured: Path, path: Path, folder: Path | None) -> None:
    """Note that a model was swapped in, so that it also runs after a restart."""
    if folder is None:
        return
    sha256 = _sha256_or_none(path)
    if sha256 is None:
        log.warning("%s: %s runs until the next restart only", name, path.name)
        return
    stored = _read(folder, MODELS)
    stored[name] = {"configured": str(configured), "path": str(path), "sha256": sha256}
    _write(folder, MODELS, stored)


class CrashLoopGuard:
    """Counts starts that had no clean end, and makes a crash loop slow instead of endless or over."""

    def __init__(self, folder: Path | None, clock_s: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock_s = clock_s

    def begin(self) -> float:
        """Note a start; how many seconds to wait before it, 0 unless many went wrong lately."""
        now_s = self._clock_s()
        starts = [start for start in self._starts() if 0 <= now_s - start < WINDOW_S]
        _write(self._folder, STARTS, {"unclean": [*starts, now_s]})
        if len(starts) < CALM_STARTS:
            return 0.0
        return float(min(MAX_DELAY_S, 2.0 ** (len(starts) - CALM_STARTS + 1)))

    def end(self) -> None:
        """Note a clean end."""
        _write(self._folder, STARTS, {"unclean": []})

    def _starts(self) -> list[float]:
        stored = _read(self._folder, STARTS).get("unclean")
        return [float(start) for start in stored if isinstance(start, (int, float))] if isinstance(stored, list) else []


def _sha256_or_none(path: Path) -> str | None:
    """The hash of a model file, None (and a warning) where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        log.warning("%s: cannot be read (%s)", path, error.strerror)
        return None


def _read(folder: Path | None, name: str) -> dict[str, Any]:
    """A kept JSON table; empty where there is none. What is damaged is worth less than a daemon that starts."""
    if folder is None:
        return {}
    try:
        value = json.loads((folder / name).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(folder: Path | None, name: str, value: dict[str, Any]) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, json.dumps(value))
    except OSError as error:
        log.warning("%s: cannot be written (%s)", folder / name, error.strerror)
