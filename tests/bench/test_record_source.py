"""What it costs to analyse the small picture of a camera and record the large one, against analysing the large one.

flock /tmp/measure.lock pytest tests/bench/test_record_source.py -m bench -s
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest
from camera_rig import capture_children, emitted, wait_for
from needs import need

from edge.config.load import parse_config
from edge.pipeline import Pipeline

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]
MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
CAMERA = Path(__file__).parents[1] / "servers" / "film_camera.py"
MEASURED_S = 6.0
ROUNDS = 6
MOST_SHARE, MOST_SHARE_WITH_MODEL = 0.35, 0.5


def film(folder: Path, name: str, size: str, fps: int) -> str:
    """Three seconds of a scene with a sensor's noise, 4 Mbit/s at 1440p."""
    scene = f"testsrc2=size={size}:rate={fps}:duration=3,noise=alls=6:allf=t"
    rate = "4M" if fps == 20 else "400k"
    options = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-b:v",
        rate,
        "-g",
        str(fps),
        "-pix_fmt",
    ]
    command = [need("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", scene, *options, "yuv420p", str(folder / name)]
    subprocess.run(command, check=True)
    return f"{folder / name}@{fps}"


def spent_s() -> float:
    """Processor seconds of this process and its decoders, not of the camera."""
    times = [process.cpu_times() for process in (psutil.Process(), *capture_children())]
    return float(sum(one.user + one.system for one in times))


def share_of_a_core(engine: str, nominal_fps: int, stream: dict[str, Any]) -> float:
    """How much of a core a camera takes at this rate, once it runs."""
    model = {"path": MODEL, "engine": engine, "threads": 1}
    pipeline = Pipeline(parse_config({"model": model, "streams": [{"name": "cam0", **stream}]}, where="bench"))
    with pipeline:
        wait_for(lambda: emitted(pipeline)["cam0"] > 20, 30, "the camera runs")
        before_s, began_s, frames = spent_s(), time.monotonic(), emitted(pipeline)["cam0"]
        time.sleep(MEASURED_S)
        share = (spent_s() - before_s) / (time.monotonic() - began_s)
        fps = (emitted(pipeline)["cam0"] - frames) / MEASURED_S
        # a machine that others use drops pictures, of the large one first: both are counted at their own rate
        full = share * nominal_fps / max(fps, 1.0)
        print(
            f"{stream['source'].split('/')[-2]}: {share:.3f} of a core at {fps:.1f} fps, so {full:.3f} at {nominal_fps}"
        )
    return float(full)


@pytest.mark.parametrize("engine", ["null", "ort"])
def test_the_small_picture_costs_a_third_of_the_large_one(tmp_path: Path, engine: str) -> None:
    """Without a model, which sees half as many pictures and so costs half in any case, and with the shipped one."""
    # as the daemon does
    cv2.setNumThreads(1)
    films = [film(tmp_path, "main.h264", "2560x1440", 20), film(tmp_path, "sub.h264", "640x360", 10)]
    camera = subprocess.Popen([sys.executable, str(CAMERA), *films], stdout=subprocess.PIPE, text=True)
    try:
        assert camera.stdout is not None
        address = f"rtsp://127.0.0.1:{int(camera.stdout.readline())}"
        main, sub = f"{address}/main/source", f"{address}/sub/source"
        record = {"folder": tmp_path, "content": "source", "reserve_mb": 0}
        small, large = [], []
        for _ in range(ROUNDS):
            large.append(share_of_a_core(engine, 20, {"source": main}))
            small.append(share_of_a_core(engine, 10, {"source": sub, "record_source": main, "record": record}))
    finally:
        camera.kill()
        camera.wait()
    share = sum(small) / sum(large)
    rounds = sorted(one / other for one, other in zip(small, large, strict=True))
    print(f"{engine}: {share:.3f} ({rounds[0]:.3f} to {rounds[-1]:.3f})")
    assert share <= (MOST_SHARE if engine == "null" else MOST_SHARE_WITH_MODEL)
