"""Triton killed and started again under four cameras, which always get fresh results."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from model_servers import Triton
from tiny_models import tiny_model
from watched_pipeline import FALLBACK, MAX_AGE_MS, REMOTE, remote_config, watched

FALLBACK_S, BACK_S = 1.0, 2.0


def kill_and_restart(
    folder: Path, times: int, on_back: Callable[[], object] = lambda: None
) -> list[tuple[float, float]]:
    """Seconds until the fallback answered for all cameras, and from the server's return until it did, of each time.

    Args:
        folder: empty.
        times: how often.
        on_back: called each time when the server answers again.
    """
    (folder / "server").mkdir()
    tiny_model(folder / "tiny.onnx")
    spent = []
    with Triton(folder / "server", folder / "tiny.onnx") as server, watched(remote_config(folder, server.url)) as seen:
        seen.wait_for(REMOTE, time.monotonic(), streams=4, limit_s=20)
        for _ in range(times):
            killed_s = time.monotonic()
            server.kill()
            fallback_s = seen.wait_for(FALLBACK, killed_s, streams=4, limit_s=FALLBACK_S)
            server.start()
            back_s = seen.wait_for(REMOTE, time.monotonic(), streams=4, limit_s=BACK_S)
            spent.append((fallback_s, back_s))
            on_back()
        assert all(one.age_ms <= MAX_AGE_MS for one in seen.answers)
        assert {one.score for one in seen.answers} == {REMOTE, FALLBACK}
        for name in ("a", "b", "c", "d"):
            numbers = [one.seq for one in list(seen.answers) if one.stream == name]
            assert numbers == sorted(set(numbers))
    return spent
