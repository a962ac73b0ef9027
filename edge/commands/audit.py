"""``edge audit``: who changed what, and who looked at which recording."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.console import AsJson, out, print_json

FIRST = ("time", "who", "from", "what")


def audit(
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="So many of the newest lines.")] = 50,
    who: Annotated[str, typer.Option(help="Of this user only.")] = "",
    camera: Annotated[str, typer.Option(help="About this camera only.")] = "",
    config: Annotated[Path, typer.Option("--config", help="The daemon's edge.toml.")] = Path("edge.toml"),
    as_json: AsJson = False,
) -> None:
    """Say who changed what or looked at which recording, newest first."""
    from edge.config.load import load_config
    from edge.daemon.serving import audit_file_of
    from edge.daemon.state import state_dir, with_state_dir
    from edge.errors import ConfigError
    from edge.users.audit import read_audit

    loaded = load_config(config)
    path = audit_file_of(with_state_dir(loaded, state_dir(loaded)))
    if path is None:
        raise ConfigError(f"{config}: it keeps no audit log; add audit_file to [server], or users_file and state_dir")
    found = (line for line in read_audit(path) if who in ("", line.get("who")) and camera in ("", line.get("camera")))
    lines = list(islice(found, num))
    if as_json:
        print_json(lines)
        return
    for line in lines:
        out.print(_text(line), markup=False, highlight=False)
    if not lines:
        out.print("nothing yet")


def _text(line: dict[str, Any]) -> str:
    more = ", ".join(f"{key} {value}" for key, value in line.items() if key not in FIRST)
    first = "  ".join(str(line.get(key, "") or "-") for key in FIRST)
    return f"{first}{f' ({more})' if more else ''}"
