"""What tests need of a machine besides Python. Run as a script it prints the Debian packages that bring it."""

from __future__ import annotations

import ctypes.util
import functools
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

RTSP_SERVER = "an RTSP server"
LIBSRT = "libsrt"
MODEL_SERVERS = "model servers"
HOME_ASSISTANT = "Home Assistant"
COMPILED = "the parts in C"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# what a test asks for → Debian packages
PACKAGES = {
    "ffmpeg": ("ffmpeg",),
    "ffprobe": ("ffmpeg",),
    "mosquitto": ("mosquitto",),
    "mosquitto_passwd": ("mosquitto",),
    "chromium": ("chromium",),
    "chromedriver": ("chromium-driver",),
    "g++": ("g++",),
    "openssl": ("openssl",),
    "systemd-analyze": ("systemd",),
    "strace": ("strace",),
    "git": ("git",),
    "mmdebstrap": ("mmdebstrap",),
    "buildah": ("buildah",),
    LIBSRT: ("libsrt1.5-gnutls",),
    # Triton runs models in this Python; the servers themselves are in a folder next to .venv (make servers)
    MODEL_SERVERS: (f"lib{PYTHON}",),
    # in a folder next to .venv too
    HOME_ASSISTANT: (),
    # pip builds them where it finds a compiler and Python's headers
    COMPILED: ("g++", f"{PYTHON}-dev"),
    RTSP_SERVER: (
        "gir1.2-gst-rtsp-server-1.0",
        "python3-gi",
        "gstreamer1.0-plugins-good",
        "gstreamer1.0-plugins-bad",
        "gstreamer1.0-plugins-ugly",
    ),
}
PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_PYTHON = "/usr/bin/python3"
REASON = "not installed here: "
NO_SHARED = "the data next to the project is not here"
_PROBE = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert Gst.ElementFactory.find("x264enc")
"""


def need(name: str) -> str:
    """The path of a program that tests run; skips the test where it is not installed."""
    found = find(name)
    if found is None:
        import pytest

        pytest.skip(REASON + name)
    return found


@functools.lru_cache
def find(name: str) -> str | None:
    """Where a program of the table is; None where it is not installed."""
    assert name in PACKAGES
    if name == LIBSRT:
        return ctypes.util.find_library("srt-gnutls") or ctypes.util.find_library("srt")
    if name == COMPILED:
        folder = Path(__file__).parents[2] / "edge" / "compiled"
        parts = [next(folder.glob(f"{name}*.so"), None) for name in ("_boxes", "_lines", "_tracks")]
        return str(folder) if all(parts) else None
    if name == HOME_ASSISTANT:
        installed = Path(__file__).parents[2] / ".venv-home" / "ready"
        return str(installed.with_name("bin") / "python") if installed.is_file() else None
    if name == MODEL_SERVERS:
        installed = Path(__file__).parents[2] / ".venv-servers" / "ready"
        has_library = ctypes.util.find_library(PYTHON) is not None
        return str(installed.with_name("bin") / "python") if installed.is_file() and has_library else None
    if name != RTSP_SERVER:
        return shutil.which(name) or shutil.which(name, path=PLACES)
    try:
        subprocess.run([SYSTEM_PYTHON, "-c", _PROBE], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return SYSTEM_PYTHON


def summed_up(missing: Mapping[str, int]) -> str:
    """The skipped tests in one sentence. Args: reason → tests that it cost."""
    programs = {reason.removeprefix(REASON): count for reason, count in missing.items() if reason.startswith(REASON)}
    data = sum(count for reason, count in missing.items() if NO_SHARED in reason)
    others = sum(missing.values()) - sum(programs.values()) - data
    parts = []
    if programs:
        parts.append(f"{sum(programs.values())} for want of {', '.join(sorted(programs))} (make servers brings them)")
    if data:
        parts.append(f"{data} for want of the data next to the project (../shared/data)")
    if others:
        parts.append(f"{others} for reasons that -rs tells")
    return f"{sum(missing.values())} tests were skipped: {'; '.join(parts)}"


if __name__ == "__main__":
    print(*dict.fromkeys(package for packages in PACKAGES.values() for package in packages))
