"""How this copy of Edgeloop was installed, so that a message names the command that adds a part to it."""

from __future__ import annotations

import functools
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PACKAGE = "edgeloop"


def add_extra(extra: str) -> str:
    """The command that brings an extra such as ``train`` to this installation: ``pip install -e '.[train]'``."""
    return f"{_pip()} install {_target(extra)}"


def requirement() -> str:
    """What pip installs to get this very version: the checkout, or the package with its version."""
    return str(_checkout() or f"{PACKAGE}=={version(PACKAGE)}")


def _target(extra: str) -> str:
    folder = _checkout()
    if folder is None:
        return f"'{PACKAGE}[{extra}]'"
    place = "." if folder == _here() else str(folder)
    return f"{'-e ' if _origin()['dir_info'].get('editable') else ''}'{place}[{extra}]'"


def _checkout() -> Path | None:
    """The folder that it was installed from, if it is still there."""
    origin = _origin()
    folder = Path(unquote(urlsplit(origin.get("url", "")).path))
    return folder if "dir_info" in origin and folder.is_dir() else None


@functools.lru_cache
def _origin() -> dict[str, Any]:
    """What pip wrote down about where the package came from (PEP 610); empty if it was a package index."""
    try:
        text = distribution(PACKAGE).read_text("direct_url.json")
    except PackageNotFoundError:
        return {}
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def _pip() -> str:
    """Pip of this Python, as short as it works in this shell."""
    if sys.prefix == sys.base_prefix or os.environ.get("VIRTUAL_ENV") == sys.prefix:
        return "pip"
    program = Path(sys.prefix) / "bin" / "pip"
    return str(program.relative_to(_here()) if program.is_relative_to(_here()) else program)


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:
        # the folder was removed under us
        return Path("/")
