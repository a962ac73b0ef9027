"""Clip tests in a process of their own: ``python -m edge.cliptests.child``, a JSON request in, a JSON answer out.

Whatever a new model, a new configuration or a new version does to its process, the daemon that asked goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cliptests.case import cases_in
from edge.cliptests.compare import Difference
from edge.cliptests.report import page
from edge.cliptests.run import Verdict, judge, refuse_empty
from edge.config.load import parse_config
from edge.errors import ClipTestError, EdgeError
from edge.files import write_atomic
from edge.threads.python_process import Answer, Asked, serve_request

if TYPE_CHECKING:
    from edge.config.schema import Config

SLOWER = 10
# loading models, and the part that is looked at when the time is up
GRACE_S = 120


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
    answer = Asked("edge.cliptests.child").answer(request, timeout_s)
    if answer.is_late:
        raise ClipTestError(f"{folder}: the tests took longer than {timeout_s:g} s")
    return _verdicts(answer, folder)


def rehearse_apart(
    before: Config,
    after: Config,
    *,
    since_ns: int,
    for_s: float,
    mapped: Mapping[str, Any] | None = None,
    html: Path | None = None,
) -> list[Verdict]:
    """``edge.cliptests.rehearse.rehearsed`` in another process.

    Raises:
        ClipTestError: the process crashes, or takes much longer than ``for_s``.
    """
    request = {
        "before": before.model_dump(mode="json", exclude_none=True),
        "config": after.model_dump(mode="json", exclude_none=True),
        "since_ns": since_ns,
        "for_s": for_s,
        "mapped": mapped or {},
        "html": None if html is None else str(html),
    }
    answer = Asked("edge.cliptests.child").answer(request, for_s + GRACE_S)
    if answer.is_late:
        raise ClipTestError(f"the rehearsal took longer than {for_s + GRACE_S:g} s")
    return _verdicts(answer, Path("recordings"))


def keep_apart(config: Config, folder: Path, *, since_ns: int, for_s: float) -> int:
    """``edge.cliptests.rehearse.keep`` in another process.

    Raises:
        ClipTestError: it crashes, or takes much longer than ``for_s``.
    """
    request = {
        "config": config.model_dump(mode="json", exclude_none=True),
        "keep": str(folder),
        "since_ns": since_ns,
        "for_s": for_s,
    }
    answer = Asked("edge.cliptests.child").answer(request, for_s + GRACE_S)
    if answer.value is None or answer.value["error"]:
        why = "it took too long" if answer.is_late else (answer.value or {}).get("error", f"code {answer.code}")
        raise ClipTestError(f"{folder}: what is seen now could not be kept ({why})")
    return int(answer.value["count"])


def _verdicts(answer: Answer, folder: Path) -> list[Verdict]:
    try:
        if answer.value["error"]:
            raise ClipTestError(answer.value["error"])
        return [
            Verdict(
                one["name"],
                one["seconds"],
                tuple(Difference(item["text"], tuple(item["times_s"])) for item in one["differences"]),
            )
            for one in answer.value["verdicts"]
        ]
    except (LookupError, TypeError):
        raise ClipTestError(
            f"{folder}: the process of the tests ended with code {answer.code} and no verdict"
        ) from None


def _served(request: Mapping[str, Any]) -> dict[str, Any]:
    from edge.pipeline.inference import FAULTS

    try:
        config = parse_config(request["config"], where="the configuration")
        if "keep" in request:
            return {"error": "", "count": _kept(request, config)}
        verdicts = _rehearsed(request, config) if "before" in request else _tested(request, config)
    except FAULTS as error:
        return {"error": str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"}
    return {"error": "", "verdicts": [asdict(one) | {"seen": None} for one in verdicts]}


def _tested(request: Mapping[str, Any], config: Config) -> list[Verdict]:
    folder = Path(request["folder"])
    names = list(cases_in(folder))
    refuse_empty(names, folder)
    verdicts = [judge(name, config, request["mapped"]) for name in names]
    if request["html"] and any(one.differences for one in verdicts):
        write_atomic(Path(request["html"]), page(folder, verdicts, config), mode=0o600)
    return verdicts


def _kept(request: Mapping[str, Any], config: Config) -> int:
    from edge.cliptests.rehearse import keep

    return keep(config, Path(request["keep"]), request["since_ns"], request["for_s"])


def _rehearsed(request: Mapping[str, Any], config: Config) -> list[Verdict]:
    from edge.cliptests.rehearse import rehearsed

    before = parse_config(request["before"], where="the configuration that runs")
    html = None if request["html"] is None else Path(request["html"])
    return rehearsed(before, config, request["mapped"], request["since_ns"], request["for_s"], html)


if __name__ == "__main__":
    serve_request(_served, SLOWER)
