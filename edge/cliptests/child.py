"""Clip tests in a process of their own: ``python -m edge.cliptests.child``, a JSON request in, a JSON answer out.

Whatever a new model, a new configuration or a new version does to its process, the daemon that asked goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cliptests.case import cases_in
from edge.cliptests.compare import Difference
from edge.cliptests.report import page
from edge.cliptests.run import Verdict, judge, refuse_empty
from edge.config.load import parse_config
from edge.errors import ClipTestError, EdgeError
from edge.files import parse_json, write_atomic
from edge.threads.python_process import child_environment, python_command

if TYPE_CHECKING:
    from edge.config.schema import Config

SLOWER = 10


def run_apart(
    config: Config,
    folder: Path,
    timeout_s: float,
    *,
    mapped: Mapping[str, Any] | None = None,
    html: Path | None = None,
) -> list[Verdict]:
    """Run all tests of a folder in another process.

    Args:
        config: what they run with.
        folder: of the tests.
        timeout_s: for all of them.
        mapped: see ``edge.cliptests.run.look``.
        html: where the page goes, if anything differs.

    Raises:
        ClipTestError: the process crashes, or takes too long.
    """
    request = {
        "config": config.model_dump(mode="json", exclude_none=True),
        "folder": str(folder),
        "mapped": mapped or {},
        "html": None if html is None else str(html),
    }
    with subprocess.Popen(
        python_command("edge.cliptests.child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(),
    ) as process:
        try:
            text, _ = process.communicate(json.dumps(request), timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ClipTestError(f"{folder}: the tests took longer than {timeout_s:g} s") from None
    return _answer(text, process.returncode, folder)


def _answer(text: str, code: int, folder: Path) -> list[Verdict]:
    try:
        answer = parse_json(text.strip().splitlines()[-1])
        if answer["error"]:
            raise ClipTestError(answer["error"])
        return [
            Verdict(
                one["name"],
                one["seconds"],
                tuple(Difference(item["text"], tuple(item["times_s"])) for item in one["differences"]),
            )
            for one in answer["verdicts"]
        ]
    except (ValueError, LookupError, TypeError):
        raise ClipTestError(f"{folder}: the process of the tests ended with code {code} and no verdict") from None


def main() -> None:
    """Serve one request."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    with suppress(OSError):
        os.nice(SLOWER)
    # what libraries print must not be taken for the answer
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer = _served(json.load(sys.stdin))
    print(json.dumps(answer), file=out, flush=True)


def _served(request: Mapping[str, Any]) -> dict[str, Any]:
    from edge.pipeline.inference import FAULTS

    folder = Path(request["folder"])
    try:
        config = parse_config(request["config"], where="the configuration")
        names = list(cases_in(folder))
        refuse_empty(names, folder)
        verdicts = [judge(name, config, request["mapped"]) for name in names]
        if request["html"] and any(one.differences for one in verdicts):
            write_atomic(Path(request["html"]), page(folder, verdicts, config), mode=0o600)
    except FAULTS as error:
        return {"error": str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"}
    return {"error": "", "verdicts": [asdict(one) | {"seen": None} for one in verdicts]}


if __name__ == "__main__":
    main()
