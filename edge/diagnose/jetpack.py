"""Which TensorRT belongs to which JetPack: what NVIDIA ships together, and what to do where something else is found.

The pairs were read in NVIDIA's documents and packages (docs/jetson.md); none of them was run on a device by us yet.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

RELEASE_FILE = Path("/etc/nv_tegra_release")
_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ((\d+)[\d.]*)")


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of the table. Attributes: JetPack; the CUDA and TensorRT that it ships; what to build engines from."""

    jetpack: str
    cuda: str
    tensorrt: str
    build_from: str


# L4T's release and its least revision; the last row that fits counts
PAIRS: Mapping[tuple[int, int], Pair] = {
    (36, 2): Pair("6.0", "12.2", "8.6", "opset 17, FP32 with FP32 Q/DQ"),
    (36, 4): Pair("6.1 or 6.2", "12.6", "10.3", "opset 17 to 20, FP32 with FP32 Q/DQ"),
    (38, 0): Pair("7.0 or 7.1", "13.0", "10.13", "FP16 with Q/DQ, opset 19 or 20"),
    (39, 0): Pair("7.2", "13.2", "10.16", "FP16 with Q/DQ, opset 19 or 20"),
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What there is to say about a Jetson's software. Attributes: ``advice``: empty where nothing is to be done."""

    level: Literal["ok", "missing", "wrong"]
    text: str
    advice: str = ""


def judge(release: str, tensorrt: str | None) -> Judgement | None:
    """Whether this TensorRT belongs to this JetPack.

    Args:
        release: text of ``/etc/nv_tegra_release``; empty where this is no Jetson.
        tensorrt: version of the Python package, None where there is none.

    Returns:
        None where this is no Jetson.
    """
    if not release:
        return None
    pair = pair_of(release)
    found = _RELEASE.search(release)
    label = f"L4T R{found[1]}.{found[2]}" if found else "L4T of an unknown form"
    if pair is None:
        known = ", ".join(f"R{major}.{minor} and later" for major, minor in PAIRS)
        return Judgement("wrong", f"{label}: no JetPack that we know; known: {known}", "see docs/jetson.md")
    shipped = f"JetPack {pair.jetpack} ({label}) ships TensorRT {pair.tensorrt} and CUDA {pair.cuda}"
    if tensorrt is None:
        advice = "sudo apt install nvidia-jetpack; make the environment with --system-site-packages"
        return Judgement("missing", f"{shipped}; none is seen from this Python", advice)
    if not _is_of(tensorrt, pair.tensorrt):
        advice = "pip uninstall tensorrt: it hides the system's own; then build the engines again: edge build MODEL"
        return Judgement("wrong", f"{shipped}; found {tensorrt}", advice)
    return Judgement(
        "ok", f"{shipped}; found {tensorrt}; engines from {pair.build_from}; not yet run by us on a device"
    )


def pair_of(release: str) -> Pair | None:
    """The row of the table for the text of ``/etc/nv_tegra_release``."""
    found = _RELEASE.search(release)
    if found is None:
        return None
    major, minor = int(found[1]), int(found[3])
    rows = [pair for (row_major, row_minor), pair in PAIRS.items() if row_major == major and row_minor <= minor]
    return rows[-1] if rows else None


@lru_cache(maxsize=1)
def jetson_facts() -> dict[str, Any] | None:
    """The judgement of this machine as JSON values, None where it is no Jetson; read once."""
    judgement = judge(release_text(), tensorrt_version())
    return None if judgement is None else asdict(judgement)


def release_text() -> str:
    """What this machine says of its L4T; empty where it is no Jetson."""
    try:
        return RELEASE_FILE.read_text(encoding="utf-8")
    except OSError:
        return ""


def tensorrt_version() -> str | None:
    """Of the package that this Python sees."""
    try:
        return importlib.metadata.version("tensorrt")
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_of(version: str, series: str) -> bool:
    return version.split(".")[: series.count(".") + 1] == series.split(".")
