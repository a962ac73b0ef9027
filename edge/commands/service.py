"""``edge service``: the daemon as a service of this machine, by the install script that comes with the package."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from edge.errors import EdgeError, UsageError

SCRIPT = Path(__file__).parents[1] / "systemd" / "install.sh"
ACTIONS = ("install", "uninstall")


def service(
    action: Annotated[str, typer.Argument(help="install (or upgrade), or uninstall.", show_default=False)],
    extra: Annotated[str | None, typer.Option(help="cpu, gpu, rtx, jetson, openvino, events, …; with commas.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove configuration, models and recordings too.")] = False,
    root: Annotated[Path | None, typer.Option(help="Below this folder instead; nothing is started.")] = None,
    start: Annotated[bool, typer.Option(help="Start and enable it.")] = True,
    venv: Annotated[bool, typer.Option(help="Make the environment in /opt/edge.")] = True,
) -> None:
    """Install the daemon as a service with systemd, or remove it."""
    from edge.packages.installed import requirement

    if action not in ACTIONS:
        raise UsageError(f"edge service {action}: expected install or uninstall")
    options = ["--source", requirement()] if action == "install" else ["--uninstall"]
    options += ["--extra", extra] if extra else []
    options += ["--purge"] if purge else []
    options += ["--root", str(root)] if root else []
    options += [] if start else ["--no-start"]
    options += [] if venv else ["--no-venv"]
    done = subprocess.run(["sh", str(SCRIPT.resolve()), *options], check=False)
    if done.returncode:
        raise EdgeError(f"edge service {action} did not succeed; see the lines above")
