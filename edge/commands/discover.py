"""``edge discover``: the cameras of this network and of this machine, and what they give, into edge.toml if wanted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.addresses.secrets import read_secret, register
from edge.addresses.uris import masked
from edge.commands.init import say_next, write_new
from edge.commands.plugged_in import Plugged, plugged_in
from edge.config.camera import Camera, free_name, streams_in, with_cameras
from edge.console import AsJson, err, out, print_json
from edge.errors import ConfigError, SourceError, UsageError

if TYPE_CHECKING:
    from edge.onvif.device import Device
    from edge.onvif.soap import Login

MAX_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table: one picture of one camera."""

    camera: str
    what: str
    size: str = ""
    fps: str = ""
    codec: str = ""
    address: str = ""
    used_as: str = ""


def discover(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(help="Ask these instead of the whole network: HOST or HOST:PORT, again for more."),
    ] = None,
    username: Annotated[str | None, typer.Option("--username", "-u", help="A user of the cameras.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Holds the user's password; not given: it is asked for.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", "-w", help="Put them into this edge.toml; it is made if it is not there.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0.2, max=MAX_WAIT_S, help="How long to listen, seconds.")] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Find cameras: by ONVIF on the network, and those plugged in."""
    from edge.onvif.device import service_url
    from edge.onvif.discovery import find_devices, look_at_all
    from edge.onvif.soap import Login

    login = Login(username or "", _password(username, password_file))
    urls = [service_url(host) for host in hosts] if hosts else [one.url for one in find_devices(wait)]
    devices = look_at_all(urls, login)
    local = [] if hosts else plugged_in()
    if not devices and not local:
        raise SourceError(
            "no camera answers; ONVIF may be switched off in it (docs/cameras.md says where), or it is on another "
            "network: edge discover HOST"
        )
    if not as_json:
        _print(devices, local)
    written: list[Path] = []
    if write is not None:
        written = _write(write, _cameras(devices, local, login))
    if as_json:
        cameras = [_as_json(device) for device in devices]
        print_json({"cameras": cameras, "plugged_in": list(map(asdict, local)), "files": list(map(str, written))})


def _password(username: str | None, file: Path | None) -> str:
    if username is None:
        if file is not None:
            raise UsageError("--password-file needs the user whose password it holds: --username NAME")
        return ""
    if file is not None:
        return read_secret(file, "--password-file")
    given: str = typer.prompt(f"Password of {username}", hide_input=True, err=True)
    register(given)
    return given


def _cameras(devices: list[Device], local: list[Plugged], login: Login) -> list[Camera]:
    """What can be written, under the address as a name; cameras that told no picture are left out."""
    from edge.onvif.device import small_and_large

    cameras = [Camera("", one.source) for one in local]
    for device in devices:
        try:
            small, large = small_and_large(device.profiles)
        except ValueError:
            continue
        large_address = "" if large is None else large.address
        cameras.append(Camera("", small.address, large_address, login.username, login.password))
    return cameras


def _write(config: Path, cameras: list[Camera]) -> list[Path]:
    """Put cameras into a file that is there, or a new one; those that it has already are left."""
    if not cameras:
        raise SourceError(
            "no camera told its pictures, so nothing was written; most tell them only to a user: --username NAME"
        )
    text = _text_of(config)
    there = [] if text is None else streams_in(text)
    addresses = {str(one.get("source")) for one in there}
    names = [str(one.get("name")) for one in there]
    new: list[Camera] = []
    folder = config.parent.absolute()
    for camera in cameras:
        if camera.source in addresses:
            err.print(f"{masked(camera.source)} is in {config} already", markup=False)
            continue
        name = free_name(camera.source, names)
        names.append(name)
        new.append(replace(camera, name=name))
    if not new:
        return []
    written = write_new(config, new) if text is None else _add(config, text, new, folder)
    for path in written:
        err.print(f"wrote {path}", markup=False)
    if text is None:
        say_next(config)
    else:
        err.print(f"next: edge check {config}; a daemon that runs reads it again by SIGHUP", markup=False)
    return written


def _add(config: Path, text: str, cameras: list[Camera], folder: Path) -> list[Path]:
    from edge.config.load import parse_text
    from edge.files import write_atomic

    edited = with_cameras(text, cameras, folder)
    parse_text(edited, config.name)
    for camera in cameras:
        if camera.password and camera.password_file(folder).exists():
            raise ConfigError(f"{camera.password_file(folder)} is there already; move it away first")
    files = [path for camera in cameras if (path := camera.write_password(folder))]
    write_atomic(config, edited, config.stat().st_mode & 0o777)
    return [config, *files]


def _text_of(config: Path) -> str | None:
    if not config.parent.is_dir():
        raise UsageError(f"{config.parent}: no such folder; run: mkdir -p {config.parent}")
    if not config.exists():
        return None
    try:
        return config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config}: cannot be read ({error})") from None


def _rows(device: Device) -> list[_Row]:
    from edge.onvif.device import small_and_large

    what = " ".join(filter(None, (device.maker, device.model))) or "ONVIF camera"
    if device.fault:
        return [_Row(device.host, what, address=device.fault)]
    try:
        small, large = small_and_large(device.profiles)
    except ValueError as error:
        return [_Row(device.host, what, address=str(error))]
    rows = []
    for number, one in enumerate(device.profiles):
        use = "source" if one is small else "record_source" if one is large else ""
        size = f"{one.width}x{one.height}" if one.width else ""
        head = (device.host, what) if number == 0 else ("", "")
        rows.append(_Row(*head, size, f"{one.fps:g}" if one.fps else "", one.codec, masked(one.address), use))
    return rows


def _print(devices: list[Device], local: list[Plugged]) -> None:
    from rich.table import Table
    from rich.text import Text

    rows = [row for device in devices for row in _rows(device)]
    rows += [
        _Row("this machine", one.name, f"{one.width}x{one.height}", f"{one.fps:g}", "", one.source, "source")
        for one in local
    ]
    table = Table("camera", "what", "size", "fps", "codec", "address", "used as", box=None)
    for row in rows:
        # what a stranger calls itself is no markup
        table.add_row(*(Text(getattr(row, key)) for key in row.__slots__))
    out.print(table)
    if any(device.wants_login for device in devices):
        err.print("some tell their pictures only to a user of theirs: edge discover --username NAME", markup=False)


def _as_json(device: Device) -> dict[str, Any]:
    profiles = [{**asdict(one), "address": masked(one.address)} for one in device.profiles]
    return {**asdict(device), "profiles": profiles}
