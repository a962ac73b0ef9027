"""Has what waits written: a question is often about what has just happened, and whoever asks is another process.

A file in the stream's folder asks; whoever keeps the stream writes, and takes the file away.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ASKED = "write-now"
POLL_S = 0.02


def have_written(folders: Iterable[Path], timeout_s: float) -> bool:
    """Ask for each of the streams, and wait.

    Args:
        folders: of the streams.
        timeout_s: nobody may be there who writes.

    Returns:
        Whether all was written; False also where the folders cannot be written to.
    """
    until_s = time.monotonic() + timeout_s
    asked = [folder / ASKED for folder in folders if _ask(folder / ASKED)]
    while (waiting := [path for path in asked if path.exists()]) and time.monotonic() < until_s:
        time.sleep(POLL_S)
    for path in waiting:
        with suppress(OSError):
            path.unlink()
    return bool(asked) and not waiting


def _ask(path: Path) -> bool:
    with suppress(OSError):
        path.touch()
        return True
    return False
