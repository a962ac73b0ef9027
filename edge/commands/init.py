"""``edge init``: a commented edge.toml for the cameras that it is told or finds."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Annotated

import typer

from edge.commands.plugged_in import plugged_in
from edge.config.camera import Camera, named, toml_text, write_secret
from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

TEMPLATE = Path(__file__).parents[1] / "systemd" / "edge.toml"
SCENE = "synthetic://street?seed=7&live=1"
TOKEN = "token"


def init(
    config: Annotated[Path, typer.Argument(help="The file to write.")] = Path("edge.toml"),
    source: Annotated[
        list[str] | None, typer.Option("--source", "-s", help="A camera; again for more. Not given: those plugged in.")
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Instead of the shipped model.")] = None,
    mqtt: Annotated[str | None, typer.Option("--mqtt", help="Send events to this broker: HOST or HOST:PORT.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented edge.toml for your cameras."""
    if config.exists() and not force:
        raise UsageError(f"{config} exists; name another file, or replace it with --force")
    if not config.parent.is_dir():
        raise UsageError(f"{config.parent}: no such folder; run: mkdir -p {config.parent}")
    found = source or [one.source for one in plugged_in()]
    if not found:
        err.print("no camera is plugged in: the built-in street takes its place; name cameras with --source")
    cameras = named(found or [SCENE])
    written = write_new(config, cameras, model, mqtt)
    if as_json:
        print_json({"files": [str(path) for path in written], "streams": [camera.name for camera in cameras]})
        return
    for path in written:
        out.print(f"wrote {path}", markup=False)
    say_next(config)


def say_next(config: Path) -> None:
    """What to do with a new file."""
    token = config.parent.absolute() / TOKEN
    err.print(
        f"next: edge check {config}, then edge run {config}; the page asks for the token in {token}", markup=False
    )


def write_new(config: Path, cameras: list[Camera], model: Path | None = None, mqtt: str | None = None) -> list[Path]:
    """Write a commented file for these cameras, their passwords and the page's token; the files that were written.

    Args:
        config: the file.
        cameras: one at least.
        model: None: the shipped one.
        mqtt: a broker for events.

    Raises:
        UsageError: ``mqtt`` is no HOST or HOST:PORT.
    """
    from edge.config.load import parse_text
    from edge.files import write_atomic
    from edge.models.shipped import demo_model

    chosen = model or demo_model(cameras[0].source)
    folder = config.parent.absolute()
    token = folder / TOKEN
    text = filled_in(TEMPLATE.read_text(encoding="utf-8"), chosen.absolute(), cameras, folder)
    text = with_page(text if mqtt is None else with_broker(text, mqtt), token)
    parse_text(text, config.name)
    write_atomic(config, text)
    written = [config, *(path for camera in cameras if (path := camera.write_password(folder)))]
    if not token.exists():
        written.append(write_secret(token, secrets.token_urlsafe(24)))
    return written


def filled_in(template: str, model: Path, cameras: list[Camera], folder: Path) -> str:
    """The shipped file with this model, these cameras, a place for its state and the live page switched on."""
    first, *others = cameras
    text = re.sub(r'(?m)^path = ".*"$', lambda _: f"path = {toml_text(str(model))}", template, count=1)
    text = re.sub(r'(?m)^name = ".*"\n', "", text, count=1)
    text = re.sub(r'(?m)^source = ".*"\n', lambda _: first.lines(folder), text, count=1)
    more = "".join(f"\n[[streams]]\n{camera.lines(folder)}" for camera in others)
    text = re.sub(r"(?m)^# -+\n# The live page and API", lambda found: f"{more.lstrip()}\n{found[0]}", text, count=1)
    return re.sub(r"(?m)^# state_dir = .*$", lambda _: f"state_dir = {toml_text(str(folder / 'state'))}", text, count=1)


def with_page(text: str, token: Path) -> str:
    """The live page switched on, for who has the token; what is drawn there is saved."""
    for before, after in (
        ("enabled = false", "enabled = true"),
        ('# token_file = "token"', f"token_file = {toml_text(str(token))}"),
        ("# can_edit = false", "can_edit = true"),
    ):
        text = re.sub(f"(?m)^{re.escape(before)}$", lambda _, after=after: after, text, count=1)  # type: ignore[misc]
    return text


def with_broker(text: str, address: str) -> str:
    """Events sent to this broker.

    Raises:
        UsageError: it is no HOST or HOST:PORT.
    """
    found = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:]+\])(?::(\d{1,5}))?", address)
    if found is None:
        raise UsageError(f"--mqtt: expected HOST or HOST:PORT, found {address!r}")
    keys = f"host = {toml_text(found[1].strip('[]'))}" + (f"\nport = {found[2]}" if found[2] else "")
    return re.sub(r"(?m)^# \[mqtt\]$", lambda _: f"[mqtt]\n{keys}", text, count=1)
