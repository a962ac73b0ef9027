"""What this machine has: processor, GPU, libraries, decoders proved by decoding; what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edge.compiled import PARTS, SWITCH, built
from edge.diagnose.jetpack import judge, release_text, tensorrt_version
from edge.packages.installed import add_extra

Level = Literal["ok", "missing", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. Attributes: ``advice``: what to run, empty where nothing is to be done."""

    topic: str
    level: Level
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything that the runtime may use; never fails."""
    return [
        _system(),
        _processor(),
        *_libraries(),
        _parts_in_c(),
        *_providers(),
        _gpu(),
        _jetson(),
        *_decoders(),
        _gstreamer(),
        _cameras(),
    ]


def _system() -> Finding:
    return Finding("system", "ok", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")


def _processor() -> Finding:
    flags = _read(Path("/proc/cpuinfo"))
    fast = [name for name in ("avx2", "avx512_vnni", "avx_vnni", "asimddp", "i8mm") if name in flags]
    cores = len(os.sched_getaffinity(0))
    advice = "" if {"avx512_vnni", "avx_vnni", "asimddp"} & set(fast) else "INT8 will not be faster than FP32 here"
    return Finding("processor", "ok", f"{cores} cores, {', '.join(fast) or 'no vector extensions that matter'}", advice)


def _libraries() -> list[Finding]:
    wanted = {
        "numpy": add_extra("cpu"),
        "opencv": add_extra("cpu"),
        "onnxruntime": add_extra("cpu"),
        "av": add_extra("cpu"),
        "openvino": f"{add_extra('openvino')}  (optional: faster on some CPUs)",
        "tensorrt": f"{add_extra('gpu')}  (optional; on Jetson it comes with JetPack)",
        "tensorrt_rtx": f"{add_extra('rtx')}  (optional: engines for RTX cards, built without a GPU)",
        "pycuda": f"{add_extra('gpu')}  (optional: needed to run TensorRT engines)",
        "torch": f"{add_extra('train')}  (optional: needed to train)",
    }
    return [_library(name, advice) for name, advice in wanted.items()]


def _library(name: str, advice: str) -> Finding:
    packages = importlib.metadata.packages_distributions().get("cv2" if name == "opencv" else name, [])
    if not packages:
        level: Level = "missing"
        return Finding(name, level, "not installed", advice)
    return Finding(name, "ok", f"{packages[0]} {importlib.metadata.version(packages[0])}")


def _parts_in_c() -> Finding:
    if os.environ.get(SWITCH) == "off":
        return Finding("parts in C", "missing", f"left out by {SWITCH}=off", f"unset {SWITCH}")
    if missing := [part.removeprefix("_") for part in PARTS if built(part) is None]:
        advice = "apt install gcc python3-dev, then install again  (optional: less processor time a frame)"
        return Finding("parts in C", "missing", f"not built: {', '.join(missing)}", advice)
    return Finding("parts in C", "ok", "built")


def _providers() -> list[Finding]:
    try:
        import onnxruntime
    except ImportError as error:
        return [Finding("onnxruntime providers", "missing", str(error), add_extra("cpu"))]
    names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return [Finding("onnxruntime providers", "ok", ", ".join(names))]


def _gpu() -> Finding:
    driver = _read(Path("/proc/driver/nvidia/version"))
    if not driver:
        return Finding("NVIDIA driver", "missing", "no driver loaded", "CPU engines work without; see docs/gpu.md")
    return Finding("NVIDIA driver", "ok", driver.splitlines()[0].split("  ")[1])


def _jetson() -> Finding:
    found = judge(release_text(), tensorrt_version())
    if found is None:
        return Finding("Jetson", "missing", "this is no Jetson")
    return Finding("JetPack and TensorRT", found.level, found.text, found.advice)


def _decoders() -> list[Finding]:
    """Decode a clip that was made a moment ago: a decoder is there when frames come out, not when it says so."""
    return [_proved("OpenCV decodes H.264", _decode_opencv), _proved("PyAV decodes H.264", _decode_av)]


def _proved(topic: str, decode: Callable[[Path], int]) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        try:
            _make_clip(clip)
            count = decode(clip)
        except (ImportError, OSError, ValueError) as error:
            return Finding(topic, "missing", str(error), "pip install --upgrade av opencv-python-headless")
    if count != _CLIP_FRAMES:
        return Finding(
            topic, "wrong", f"{count} of {_CLIP_FRAMES} frames", "pip install --upgrade av opencv-python-headless"
        )
    return Finding(topic, "ok", f"{count} of {_CLIP_FRAMES} frames")


_CLIP_FRAMES = 10


def _make_clip(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(_CLIP_FRAMES):
            picture = np.full((64, 64, 3), index * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(stream.encode(None))


def _decode_opencv(path: Path) -> int:
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def _decode_av(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _gstreamer() -> Finding:
    import cv2

    has_gstreamer = "GStreamer:                   YES" in cv2.getBuildInformation()
    tool = "gst-launch-1.0 installed" if shutil.which("gst-launch-1.0") else "no gst-launch-1.0"
    if has_gstreamer:
        return Finding("GStreamer in OpenCV", "ok", tool)
    return Finding("GStreamer in OpenCV", "missing", tool, "needed for CSI cameras only: see docs/jetson.md")


def _cameras() -> Finding:
    nodes = sorted(Path("/dev").glob("video*"))
    readable = [str(node) for node in nodes if os.access(node, os.R_OK | os.W_OK)]
    if not nodes:
        return Finding("USB cameras", "missing", "none plugged in")
    if len(readable) < len(nodes):
        return Finding(
            "USB cameras", "wrong", f"{len(readable)} of {len(nodes)} readable", "sudo usermod -aG video $USER"
        )
    return Finding("USB cameras", "ok", ", ".join(readable))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
