"""``edge test``: clips in which everything must be seen as before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import ClipTestError, DataError, UsageError

if TYPE_CHECKING:
    from edge.cliptests.run import Verdict
    from edge.config.schema import Config


def test(
    action: Annotated[str, typer.Argument(help="run, add SOURCE, or accept [TEST…].")] = "run",
    what: Annotated[
        list[str] | None, typer.Argument(help="With add: a clip, a folder made by edge capture, or an event's id.")
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration.")] = Path("edge.toml"),
    folder: Annotated[Path | None, typer.Option(help="Of the tests, where the configuration names none.")] = None,
    stream: Annotated[str, typer.Option(help="With add: whose settings apply.")] = "",
    name: Annotated[str, typer.Option(help="With add: of the test.")] = "",
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Another model than the configured one.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML, for CI.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures side by side.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run clips as tests; add one; accept what is seen now."""
    from edge.config.load import load_config

    read = load_config(config)
    loaded = read if model is None else read.with_model_for_frames(model)
    place = folder or (loaded.tests.folder if loaded.tests else None)
    if place is None:
        raise UsageError(f"{config}: has no [tests] folder; set it, or give --folder")
    match action, what or []:
        case "run", []:
            _run(loaded, place, (junit, html), as_json)
        case "add", [source]:
            _add(source, loaded, place, (stream, name))
        case "accept", names:
            _accept(loaded, place, names)
        case _:
            raise UsageError("expected edge test, edge test add SOURCE, or edge test accept [TEST…]")


def _run(config: Config, folder: Path, written: tuple[Path | None, Path | None], as_json: bool) -> None:
    from edge.cliptests.case import cases_in
    from edge.cliptests.report import junit, page
    from edge.cliptests.run import judge, refuse_empty
    from edge.files import write_atomic

    names = list(cases_in(folder))
    refuse_empty(names, folder)
    verdicts: list[Verdict] = []
    for path in names:
        verdicts.append(judge(path, config))
        if not as_json:
            _tell(verdicts[-1])
    try:
        if written[0] is not None:
            write_atomic(written[0], junit(verdicts))
        if written[1] is not None:
            write_atomic(written[1], page(folder, verdicts, config))
    except OSError as error:
        raise DataError(f"the report cannot be written ({error.strerror}: {error.filename})") from None
    if as_json:
        told = [{"text": item.text, "times_s": item.times_s} for one in verdicts for item in one.differences]
        print_json({"tests": len(verdicts), "failed": sum(bool(one.differences) for one in verdicts), "lost": told})
    failed = sum(bool(one.differences) for one in verdicts)
    if failed:
        raise ClipTestError(f"{failed} of {len(verdicts)} tests lost something; if that is meant: edge test accept")


def _tell(verdict: Verdict) -> None:
    out.print(f"{'FAILED' if verdict.differences else 'ok':7}{verdict.name}  {verdict.seconds:.1f} s")
    for one in verdict.differences:
        out.print(f"       {one.text}")


def _add(source: str, config: Config, folder: Path, names: tuple[str, str]) -> None:
    from edge.cliptests.add import add_test, clip_of_event
    from edge.daemon.state import state_dir, with_state_dir
    from edge.pipeline.shared_outputs import outbox_path

    path = Path(source)
    if not path.exists() and len(source) >= 8 and not path.suffix:
        path = clip_of_event(outbox_path(with_state_dir(config, state_dir(config))), source)
    made, case = add_test(path, config, folder, *names)
    out.print(f"{made}: {case.frames} pictures, {len(case.events)} events, {len(case.objects)} objects to find again")
    for event, count in case.counts.items():
        out.print(f"  {event}: {count}")
    err.print(f"what is seen now is expected from now on; correct it in {made / 'test.json'} where it is wrong")


def _accept(config: Config, folder: Path, names: Sequence[str]) -> None:
    from edge.cliptests.add import accept
    from edge.cliptests.case import cases_in
    from edge.cliptests.run import refuse_empty

    there = {path.name: path for path in cases_in(folder)}
    unknown = [name for name in names if name not in there]
    if unknown:
        raise UsageError(f"{folder}: there is no test {unknown[0]!r}; there are: {', '.join(there) or 'none'}")
    chosen = [there[name] for name in names] or list(there.values())
    refuse_empty(chosen, folder)
    for path in accept(folder, chosen, config):
        out.print(f"{path.name} expects what is seen now")
