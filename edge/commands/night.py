"""``edge night``: the night shift by hand, and how it stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import ConfigError, EdgeError, UsageError

if TYPE_CHECKING:
    from edge.config.schema import Config

POLL_S = 0.5
ACTIONS = "run --now, status, stop, forget CAMERA or roll-back"


def night(
    action: Annotated[str, typer.Argument(help=f"{ACTIONS}.")] = "status",
    camera: Annotated[str, typer.Argument(help="With forget: whose frames.", show_default=False)] = "",
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration.")] = Path("edge.toml"),
    now: Annotated[bool, typer.Option("--now", help="With run: outside the window too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let the site's model learn by night; how it stands; undo it."""
    from edge.config.load import load_config
    from edge.daemon.state import state_dir, with_state_dir
    from edge.pipeline.shared_outputs import night_folder

    loaded = load_config(config)
    if loaded.night is None:
        raise ConfigError(f"{config.name}: has no [night]; docs/night.md tells what it needs")
    loaded = with_state_dir(loaded, state_dir(loaded))
    folder = night_folder(loaded)
    match action, camera:
        case "status", "":
            _status(folder, as_json)
        case "run", "":
            _run(loaded, folder, now, as_json)
        case "stop" | "roll-back", "":
            _order(loaded, folder, action)
        case "forget", name if name:
            _forget(folder, name)
        case _:
            raise UsageError(f"expected edge night {ACTIONS}")


def _status(folder: Path, as_json: bool) -> None:
    from edge.night.report import told

    found = told(folder)
    if as_json:
        print_json(found)
        return
    frames = ", ".join(f"{count} of {camera}" for camera, count in found["frames"].items()) or "none"
    out.print(f"{found['phase']}{': ' if found['reason'] else ''}{found['reason']}; kept frames: {frames}")
    if (shift := found["shift"]) is not None:
        out.print(f"shift {shift['night']}: {shift['stage']}, {shift['cpu_s']:.0f} processor seconds so far")
    if report := found["report"]:
        out.print(f"last: {report['night']}: {report['outcome']}: {report['reason']}")


def _is_daemon_there(loaded: Config) -> bool:
    """Whether a daemon holds the state folder."""
    from edge.daemon.state import held

    try:
        with held(loaded.state_dir):
            return False
    except EdgeError:
        return True


def _order(loaded: Config, folder: Path, order: str) -> None:
    from edge.daemon.night import ORDER
    from edge.night.frames import private_folder
    from edge.night.shift import write_json

    if not _is_daemon_there(loaded):
        raise UsageError(f"edge night {order} is for a running daemon; none has {loaded.state_dir}")
    write_json(private_folder(folder) / ORDER, {"order": order})
    err.print("ordered; edge night status tells how it goes")


def _run(loaded: Config, folder: Path, now: bool, as_json: bool) -> None:
    if not now:
        assert loaded.night is not None
        raise UsageError(f"a daemon runs it at {loaded.night.window}; for a shift now: edge night run --now")
    if _is_daemon_there(loaded):
        _order(loaded, folder, "run")
        return
    report = _work(loaded, folder)
    if as_json:
        print_json(report)
    else:
        out.print(f"{report['outcome']}: {report['reason']}")
    if report["outcome"] == "ready":
        err.print("the daemon lets it take over in its next window, or by edge night run --now")


def _work(loaded: Config, folder: Path) -> dict[str, object]:
    """A shift in this terminal; a shift that was broken off goes on."""
    from edge.daemon.state import with_swapped
    from edge.night.report import stand
    from edge.night.shift import MAX_TRIES, Job, Progress, ShiftProcess, night_name, report_of

    assert loaded.night is not None
    running, shown = with_swapped(loaded, loaded.state_dir).night_model, ""
    job = Job.read(folder)
    if job is None:
        job = Job(night_name(), running.name, loaded.night_model.path, running.path, loaded.night)
        job.write(folder)
    while (report := report_of(folder, job.night)) is None:
        if Progress.read(folder).tries >= MAX_TRIES:
            raise EdgeError(f"the shift ended {MAX_TRIES} times without a word; see {folder / 'work' / 'log.txt'}")
        process = ShiftProcess(folder, job)
        try:
            while not process.wait(POLL_S):
                shift = stand(folder)["shift"]
                if shift is not None and shift["stage"] != shown:
                    shown = shift["stage"]
                    err.print(f"  {time.strftime('%H:%M:%S')} {shown}")
        finally:
            process.stop()
    return report


def _forget(folder: Path, camera: str) -> None:
    from edge.night.frames import FRAMES, forget

    if Path(camera).name != camera or not (folder / FRAMES / camera).is_dir():
        raise UsageError(f"no frames are kept of a camera called {camera!r}")
    out.print(f"{forget(folder, camera)} frames of {camera} are deleted, and its pictures in reports")
