"""Child processes of ours: they load what this process does, nothing from the current folder; JSON in, JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.files import parse_json

# ``-m`` and ``-c`` put the current folder first, where anybody may have left a numpy.py; ``-P`` is of Python 3.11
START = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
# an empty or relative folder in one of these means the current folder; OpenCV's Python package leaves an empty one
SEARCHED = ("PYTHONPATH", "LD_LIBRARY_PATH")


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours as ``python -m`` does, except for the current folder."""
    return [sys.executable, "-c", START, module, *arguments]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment and ``more``; where libraries are searched, only folders from the root on are left."""
    found = {**os.environ, **(more or {})}
    for name in SEARCHED:
        folders = [folder for folder in found.pop(name, "").split(os.pathsep) if folder.startswith("/")]
        if folders:
            found[name] = os.pathsep.join(folders)
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child process said.

    Attributes:
        value: the JSON value of its last line; None where it gave none.
        code: that it ended with; negative: the signal that ended it.
        is_late: it took too long and was ended.
    """

    value: Any
    code: int
    is_late: bool = False


class Asked:
    """A JSON request to a module of ours, which answers it in a process of its own with ``serve_request``.

    Whatever happens to that process, this one goes on. ``answer`` is for one thread, ``cancel`` for any.
    """

    def __init__(self, module: str) -> None:
        """Begin the process; it waits for its request."""
        self._process = subprocess.Popen(
            python_command(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=child_environment(),
        )

    def answer(self, request: Mapping[str, Any], timeout_s: float) -> Answer:
        """Give the request and wait for the answer; the process has ended then. Called once."""
        with self._process as process:
            try:
                text, _ = process.communicate(json.dumps(request), timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                return Answer(None, process.wait(), is_late=True)
        lines = text.strip().splitlines()
        try:
            return Answer(parse_json(lines[-1]) if lines else None, process.returncode)
        except ValueError:
            return Answer(None, process.returncode)

    def cancel(self) -> None:
        """End the process; ``answer`` returns at once, with no value."""
        self._process.kill()


def serve_request(act: Callable[[Any], Any], slower: int = 0) -> None:
    """The other side: answer the request that waits on standard input.

    Args:
        act: makes the answer of the request.
        slower: what the process adds to its niceness, so that the cameras come first.
    """
    # if memory runs out, this process goes and not the daemon
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(OSError):
        os.nice(slower)
    # what libraries print must not be taken for the answer
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(act(json.load(sys.stdin))), file=out, flush=True)
