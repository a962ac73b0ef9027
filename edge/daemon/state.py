"""What the daemon keeps over a restart: the last good configuration, swapped models, how often it began."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config.load import load_config
from edge.errors import ConfigError, EdgeError
from edge.files import load_object, sha256_of, write_atomic

if TYPE_CHECKING:
    from edge.config.schema import Config

log = logging.getLogger(__name__)
STATE_VARIABLE = "STATE_DIRECTORY"
RUNTIME_VARIABLE = "RUNTIME_DIRECTORY"
LAST_GOOD = "last-good.toml"
MODELS = "swapped-models.json"
STARTS = "starts.json"
# so many starts without a clean end in so many seconds are a crash loop
CALM_STARTS = 3
WINDOW_S = 900.0
MAX_DELAY_S = 120.0
# before a start that could not be counted
BLIND_DELAY_S = 10.0


def state_dir(config: Config | None) -> Path | None:
    """Where state is kept: as configured, else where systemd says (StateDirectory=), else nowhere."""
    if config is not None and config.state_dir is not None:
        return config.state_dir
    return _named_by(STATE_VARIABLE)


def _named_by(variable: str) -> Path | None:
    """The first folder of a variable that systemd sets."""
    named = os.environ.get(variable, "").partition(":")[0]
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
        # it may hold what the file holds, passwords too
        write_atomic(folder / LAST_GOOD, path.read_bytes(), mode=0o600)
    except OSError as error:
        log.warning("%s: no copy of the configuration can be kept there (%s)", folder, error.strerror)


def with_swapped(config: Config, folder: Path | None) -> Config:
    """The configuration with the models that were swapped in, where the file still names the one before."""
    stored = _read(folder, MODELS)
    models = []
    for model in config.models:
        path = _swapped(stored.get(model.name), model.path)
        if path is not None:
            log.info("%s: runs %s, swapped in earlier in place of %s", model.name, path.name, model.path.name)
            model = model.model_copy(update={"path": path, "manifest": None})  # noqa: PLW2901
        models.append(model)
    return config.model_copy(update={"models": tuple(models)})


def _swapped(entry: object, configured: Path) -> Path | None:
    """The model file of a kept entry, where it took the place of the configured one and has not changed since."""
    match entry:
        case {"configured": str(before), "path": str(name), "sha256": str(sha256)} if before == str(configured):
            path = Path(name)
            return path if os.path.isfile(path) and _sha256_or_none(path) == sha256 else None  # noqa: PTH113
    return None


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
    """Counts starts that had no clean end, and makes a crash loop slow instead of endless or over.

    Kept where systemd gives a folder in memory (RuntimeDirectory=, kept over restarts), which no full or read-only disk
    concerns; else with the other state.
    """

    def __init__(self, folder: Path | None, clock_s: Callable[[], float] = time.time) -> None:
        self._folder = _named_by(RUNTIME_VARIABLE) or folder
        self._clock_s = clock_s

    def begin(self) -> float:
        """Note a start; how many seconds to wait before it, 0 unless many went wrong lately."""
        now_s = self._clock_s()
        starts = [start for start in self._starts() if 0 <= now_s - start < WINDOW_S]
        if not _write(self._folder, STARTS, {"unclean": [*starts, now_s]}):
            return BLIND_DELAY_S
        if len(starts) < CALM_STARTS:
            return 0.0
        return float(min(MAX_DELAY_S, 2.0 ** (len(starts) - CALM_STARTS + 1)))

    def end(self) -> None:
        """Note a clean end."""
        _write(self._folder, STARTS, {"unclean": []})

    def _starts(self) -> list[float]:
        stored = _read(self._folder, STARTS).get("unclean")
        # numbers beyond a double, which JSON may hold, are no times
        return [start for start in stored if isinstance(start, float)] if isinstance(stored, list) else []


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Keep the folder of the state for this process alone while the block lasts.

    The folder itself is locked, which a full or read-only disk allows.

    Raises:
        EdgeError: another process has it: two of them would write over each other's counts.
    """
    handle = -1 if folder is None else _locked(folder)
    try:
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def _locked(folder: Path) -> int:
    """The handle that holds the lock; negative where the folder cannot be used, which is said."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        log.warning("%s: cannot be used (%s); nothing is kept over a restart", folder, error.strerror)
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise EdgeError(f"state_dir: {folder} is in use by another edge; expected a folder of its own") from None
    except OSError as error:
        log.warning("%s: cannot be locked (%s)", folder, error.strerror)
    return handle


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
        return load_object(folder / name)
    except OSError as error:
        log.warning("%s: cannot be read now (%s)", folder / name, error.strerror)
        return {}


def _write(folder: Path | None, name: str, value: dict[str, Any]) -> bool:
    """False where there is a folder and it cannot be written, which is said."""
    if folder is None:
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, json.dumps(value))
    except OSError as error:
        log.warning("%s: cannot be written (%s)", folder / name, error.strerror)
        return False
    return True
