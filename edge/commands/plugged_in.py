"""The cameras of this machine: V4L2 nodes, and a Jetson's CSI sensors, that give a picture now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEVICES, NAMES = Path("/dev"), Path("/sys/class/video4linux")
PROBE_S = 5.0
# a Jetson's sensor gives raw pictures there; its image processor gives pictures at csi://NUMBER
CSI_NAME = "vi-output"


@dataclass(frozen=True, slots=True)
class Plugged:
    """A camera that gives a picture: its address, the name that its driver gives it, size and rate as it opens."""

    source: str
    name: str
    width: int
    height: int
    fps: float


def plugged_in(devices: Path = DEVICES, names: Path = NAMES) -> list[Plugged]:
    """Every camera of this machine that gives a picture; one that another program holds is not seen."""
    found = [_tried(source, name) for source, name in candidates(devices, names)]
    return [one for one in found if one is not None]


def candidates(devices: Path, names: Path) -> list[tuple[str, str]]:
    """Address and name of what may be a camera, in the order of the nodes."""
    found, num_csi = [], 0
    for node in sorted(devices.glob("video[0-9]*"), key=lambda path: int(path.name[5:])):
        try:
            name = (names / node.name / "name").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            name = ""
        if name.startswith(CSI_NAME):
            found.append((f"csi://{num_csi}", name))
            num_csi += 1
        else:
            found.append((node.name.removeprefix("video"), name))
    return found


def _tried(source: str, name: str) -> Plugged | None:
    from edge.errors import EdgeError
    from edge.sources.choose import open_source
    from edge.sources.deadlines import Deadlines

    try:
        opened = open_source(source, deadlines=Deadlines(PROBE_S, PROBE_S))
    except EdgeError:
        # the second node of a camera carries no pictures
        return None
    try:
        has_picture = opened.read() is not None
    except EdgeError:
        has_picture = False
    finally:
        opened.close()
    info = opened.info
    return Plugged(source, name, info.width, info.height, info.fps) if has_picture else None
