"""What this process takes of the machine: memory, threads, open files, processor time, child processes."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_facts(proc: Path = Path("/proc/self")) -> dict[str, float]:
    """``rss_mb``, ``threads``, ``open_files``, ``cpu_s``, ``children_cpu_s``; what cannot be read is left out."""
    times = os.times()
    facts = {
        "threads": float(threading.active_count()),
        "cpu_s": round(times.user + times.system, 2),
        "children_cpu_s": round(times.children_user + times.children_system, 2),
    }
    try:
        facts["rss_mb"] = round(int((proc / "statm").read_text(encoding="utf-8").split()[1]) * _PAGE_BYTES / 2**20, 1)
        facts["open_files"] = float(sum(1 for _ in (proc / "fd").iterdir()))
    except (OSError, ValueError, IndexError):
        # not Linux: what the kernel has counted at most
        facts["rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return facts
