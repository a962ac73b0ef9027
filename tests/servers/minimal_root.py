"""A minimal Debian of its own, made with Debian's packages alone, and what pip needs to work there as it does here."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from needs import need

SUITE = "bookworm"
CERTS = "/mnt/certs"
OPTIONS = ("index-url", "extra-index-url", "find-links", "trusted-host", "default-timeout")


@dataclass(frozen=True)
class PipAccess:
    """Attributes: ``config`` is a pip.conf for the root; ``mounts``: folder here -> folder there, read-only."""

    config: Path
    mounts: dict[str, str]


def make_base(archive: Path) -> None:
    """Write a tar archive of a minimal Debian: only what is essential, and apt."""
    command = [need("mmdebstrap"), "--quiet", "--variant=minbase", SUITE, str(archive)]
    subprocess.run(command, check=True, capture_output=True, timeout=900, stdin=subprocess.DEVNULL)


def pip_access(folder: Path) -> PipAccess:
    """Where pip gets packages on this machine, for a root that has none of its settings."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    mounts: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        # the environment stands above the files, and comes first
        settings.setdefault(key.rpartition(".")[2], " ".join(shlex.split(value)))
    lines = [f"{name} = {settings[name]}" for name in OPTIONS if name in settings]
    if "cert" in settings:
        certificate = Path(settings["cert"])
        mounts[str(certificate.parent)] = CERTS
        lines.append(f"cert = {CERTS}/{certificate.name}")
    places = " ".join(settings.get(name, "") for name in OPTIONS[:3]).split()
    for place in (text.removeprefix("file://") for text in places):
        if place.startswith("/") and Path(place).is_dir():
            # an index of files names its packages next to itself
            parent = str(Path(place).parent if Path(place).name == "simple" else Path(place))
            mounts[parent] = parent
    config = folder / "pip.conf"
    config.write_text("\n".join(["[global]", *lines]) + "\n")
    return PipAccess(config, mounts)
