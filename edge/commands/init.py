"""``edge init``: a commented edge.toml for the cameras that it is told or finds."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

TEMPLATE = Path(__file__).parents[1] / "systemd" / "edge.toml"
SCENE = "synthetic://street?seed=7&live=1"
PROBE_S = 5.0


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
    from edge.config.load import load_config
    from edge.files import write_atomic
    from edge.models.shipped import demo_model

    if config.exists() and not force:
        raise UsageError(f"{config} exists; name another file, or replace it with --force")
    if not config.parent.is_dir():
        raise UsageError(f"{config.parent}: no such folder; run: mkdir -p {config.parent}")
    found = source or plugged_in()
    if not found:
        err.print("no camera is plugged in: the built-in street takes its place; name cameras with --source")
    sources = found or [SCENE]
    chosen = model or demo_model(sources[0])
    cameras = [Camera(name, address) for name, address in zip(_names(sources), sources, strict=True)]
    folder = config.parent.absolute()
    token = folder / "token"
    text = filled_in(TEMPLATE.read_text(encoding="utf-8"), chosen.absolute(), cameras, folder)
    write_atomic(config, with_page(text if mqtt is None else with_broker(text, mqtt), token))
    written = [config, *(path for camera in cameras if (path := camera.write_password(folder)))]
    if not token.exists():
        written.append(_write_secret(token, secrets.token_urlsafe(24)))
    load_config(config)
    if as_json:
        print_json({"files": [str(path) for path in written], "streams": [camera.name for camera in cameras]})
        return
    for path in written:
        out.print(f"wrote {path}", markup=False)
    err.print(
        f"next: edge check {config}, then edge run {config}; the page asks for the token in {token}", markup=False
    )


class Camera:
    """An address taken apart: what a password file holds does not stand in the configuration."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.source, self.username, self.password = address, "", ""
        parts = re.fullmatch(r"(\w+://)([^/@:]*)(?::([^@]*))?@(.*)", address)
        if parts is not None:
            self.source = parts[1] + parts[4]
            self.username, self.password = unquote(parts[2]), unquote(parts[3] or "")

    def write_password(self, folder: Path) -> Path | None:
        """Keep the password in a file that only its owner reads."""
        if not self.password:
            return None
        return _write_secret(self.password_file(folder), self.password)

    def password_file(self, folder: Path) -> Path:
        return folder / f"{self.name}.password"

    def lines(self, folder: Path) -> str:
        """The keys of its ``[[streams]]`` table."""
        text = f"name = {_toml(self.name)}\nsource = {_toml(self.source)}\n"
        if self.username:
            text += f"username = {_toml(self.username)}\n"
        if self.password:
            text += f"password_file = {_toml(str(self.password_file(folder)))}\n"
        return text


def _write_secret(path: Path, text: str) -> Path:
    """A file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
    return path


def plugged_in() -> list[str]:
    """The numbers of the cameras of this machine that give a picture."""
    from edge.errors import EdgeError
    from edge.sources.choose import open_source
    from edge.sources.deadlines import Deadlines

    found = []
    for node in sorted(Path("/dev").glob("video[0-9]*"), key=lambda path: int(path.name[5:])):
        number = node.name.removeprefix("video")
        try:
            source = open_source(number, deadlines=Deadlines(PROBE_S, PROBE_S))
        except EdgeError:
            # the second node of a camera carries no pictures
            continue
        try:
            has_picture = source.read() is not None
        except EdgeError:
            has_picture = False
        finally:
            source.close()
        if has_picture:
            found.append(number)
    return found


def filled_in(template: str, model: Path, cameras: list[Camera], folder: Path) -> str:
    """The shipped file with this model, these cameras, a place for its state and the live page switched on."""
    first, *others = cameras
    text = re.sub(r'(?m)^path = ".*"$', lambda _: f"path = {_toml(str(model))}", template, count=1)
    text = re.sub(r'(?m)^name = ".*"\n', "", text, count=1)
    text = re.sub(r'(?m)^source = ".*"\n', lambda _: first.lines(folder), text, count=1)
    more = "".join(f"\n[[streams]]\n{camera.lines(folder)}" for camera in others)
    text = re.sub(r"(?m)^# -+\n# The live page and API", lambda found: f"{more.lstrip()}\n{found[0]}", text, count=1)
    return re.sub(r"(?m)^# state_dir = .*$", lambda _: f"state_dir = {_toml(str(folder / 'state'))}", text, count=1)


def with_page(text: str, token: Path) -> str:
    """The live page switched on, for who has the token; what is drawn there is saved."""
    for before, after in (
        ("enabled = false", "enabled = true"),
        ('# token_file = "token"', f"token_file = {_toml(str(token))}"),
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
    keys = f"host = {_toml(found[1].strip('[]'))}" + (f"\nport = {found[2]}" if found[2] else "")
    return re.sub(r"(?m)^# \[mqtt\]$", lambda _: f"[mqtt]\n{keys}", text, count=1)


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _names(sources: list[str]) -> list[str]:
    from edge.addresses.uris import short_name

    names: list[str] = []
    for source in sources:
        plain = f"camera{source}" if source.isdigit() else re.sub(r"[^A-Za-z0-9_-]", "-", short_name(source))[:56]
        names.append(plain if plain not in names else f"{plain}-{len(names) + 1}")
    return names
