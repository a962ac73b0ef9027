"""How child processes are begun: they load what this process does, and nothing from the current folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

# ``-m`` and ``-c`` put the current folder first, where anybody may have left a numpy.py; ``-P`` is of Python 3.11
START = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
# an empty or relative folder in one of these means the current folder; OpenCV's Python package leaves an empty one
SEARCHED = ("PYTHONPATH", "LD_LIBRARY_PATH")


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours as ``python -m`` does, but for the current folder."""
    return [sys.executable, "-c", START, module, *arguments]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment and ``more``; where libraries are searched, only folders from the root on are left."""
    found = {**os.environ, **(more or {})}
    for name in SEARCHED:
        folders = [folder for folder in found.pop(name, "").split(os.pathsep) if folder.startswith("/")]
        if folders:
            found[name] = os.pathsep.join(folders)
    return found
