"""Every error that Edgeloop raises on purpose, and the exit code each one ends the command with.

    EdgeError                      1  the work failed
    ├── UsageError                 2  wrong arguments
    │   └── ConfigError            2  wrong key or value in a TOML file
    ├── MissingError               3  the machine lacks something (a library, a device, a driver)
    ├── SourceError                1  a camera, file or address cannot be read
    ├── SinkError                  1  an output cannot be written
    │   └── DiskError              1  … because its disk is full, read-only or broken, which may pass
    ├── PartError                  1  an installed part failed, came too late or is switched off
    ├── ModelError                 1  a model file cannot be used
    │   ├── ManifestError          1  the manifest is wrong or does not match its model
    │   └── EngineError            1  the engine failed while building or running
    ├── ClipTestError              1  what a clip test expects is not seen any more
    └── DataError                  1  a data set is wrong
        └── AccuracyError          1  a measured accuracy is outside the budget that was asked for

A message is one sentence: what, where, what was expected, what was found, what to run. ``ValueError`` is for wrong
arguments inside the program, ``assert`` for our own mistakes.
"""

import errno
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# of the disk, not of the path: full, over quota, read-only (what ext4 becomes after an error), broken
DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class EdgeError(Exception):
    """The outside world is not as it should be; the message is for the person who can fix it."""

    exit_code = 1


class UsageError(EdgeError):
    """The command was given wrong arguments."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file has a wrong key or value."""


class MissingError(EdgeError):
    """The machine lacks a library, a device or a driver; the message says how to get it."""

    exit_code = 3


class SourceError(EdgeError):
    """A source cannot be opened or read."""


class SinkError(EdgeError):
    """A sink cannot be opened or written."""


class DiskError(SinkError):
    """A disk is full, read-only or broken; nothing is wrong with what was asked for, so it may be asked again."""


class PartError(EdgeError):
    """A part that an installed package brings cannot be used, failed, came too late, or is switched off."""


class ModelError(EdgeError):
    """A model file cannot be used."""


class ManifestError(ModelError):
    """A manifest is wrong, or does not describe the model next to it."""


class EngineError(ModelError):
    """An engine could not be built, or failed while running."""


class ClipTestError(EdgeError):
    """What a clip test expects is not seen any more, so what is new does not take over."""


class DataError(EdgeError):
    """A data set is missing, unreadable or inconsistent."""


class AccuracyError(DataError):
    """A measured accuracy lies outside the budget that was asked for."""


def sink_error(message: str, error: OSError) -> SinkError:
    """What to raise where something cannot be written: a ``DiskError`` if the disk is to blame."""
    return (DiskError if error.errno in DISK_FAULTS else SinkError)(message)


def look_up(kind: str, name: str, running: Mapping[str, T]) -> T:
    """The running stream, model, … of this name.

    Raises:
        ConfigError: there is none; the message lists those that run.
    """
    if name not in running:
        raise ConfigError(f"no {kind} is called {name!r}; running: {', '.join(running) or 'none'}")
    return running[name]
