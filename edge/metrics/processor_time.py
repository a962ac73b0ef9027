"""Processor seconds: of this process with its children, and of the whole machine, from Linux' ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Of this process, its living children, and those that ended and were waited for."""
    times = os.times()
    ended_s = times.user + times.system + times.children_user + times.children_system
    tasks = _PROC / "self" / "task"
    if not tasks.is_dir():
        return ended_s
    children = [child for task in tasks.iterdir() for child in _children_of(task)]
    return ended_s + sum(map(_ticks_of, children)) / _TICKS_PER_S


def machine_s() -> tuple[float, float]:
    """Of all cores since the start of the machine: busy, and in total."""
    fields = [int(field) for field in (_PROC / "stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
    # the fourth and fifth are idle and waiting for a disk
    busy = sum(fields) - fields[3] - fields[4]
    return busy / _TICKS_PER_S, sum(fields) / _TICKS_PER_S


def _children_of(task: Path) -> list[str]:
    try:
        return (task / "children").read_text(encoding="utf-8").split()
    except OSError:
        # the thread ended a moment ago, as those of a decoder do
        return []


def _ticks_of(pid: str) -> int:
    try:
        # the name in brackets may hold spaces
        fields = (_PROC / pid / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        # it ended a moment ago
        return 0
    return int(fields[11]) + int(fields[12])
