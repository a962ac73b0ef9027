"""What a card shows in a quarter of an hour where TensorRT cannot be installed: ``python tests/gpu/quarter_hour.py``.

Each step has a limit and prints what it found; one that fails stops no other, and a table stands at the end. It needs
what ``edge`` itself needs, pytest, and pycuda or cuda-bindings; no network. docs/gpu.md says what each step settles.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTEST = (sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-q", "-x")
FACTS = "nvidia-smi --query-gpu=name,driver_version,memory.total,mig.mode.current --format=csv"
RULES = HERE / "test_gpu_driver.py"

DECODE = """
import tempfile, av, numpy as np
from av.codec.hwaccel import HWAccel
from edge.engines.cuda.context import open_driver
driver = open_driver()
path = tempfile.mkdtemp() + "/clip.mp4"
with av.open(path, "w") as out:
    stream = out.add_stream("libx264", 30)
    stream.width, stream.height, stream.pix_fmt = 640, 384, "yuv420p"
    for index in range(60):
        picture = np.full((384, 640, 3), 4 * index, np.uint8)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
    out.mux(stream.encode(None))
accelerator = HWAccel("cuda", is_hw_owned=True, allow_software_fallback=False)
count = 0
for frame in av.open(path, hwaccel=accelerator).decode(video=0):
    if count == 0:
        luma = frame.planes[0]
        print(frame.format.name, luma.line_size, hasattr(luma, "__dlpack__") and luma.__dlpack_device__())
    count += 1
print(count, "pictures on the GPU, in the context that our driver holds; lost:", driver.is_lost())
"""

KERNEL_TIMES = """
import time, numpy as np
from edge.engines.cuda import launches
from edge.engines.cuda.build import kernels_for
from edge.engines.cuda.context import open_driver
from edge.engines.cuda.launches import NmsMemory, Picture
from edge.models.manifest import InputSpec
from edge.models.preprocess import fit
driver = open_driver()
kernels = driver.load_kernels(kernels_for(driver.compute_capability))
stream, event = driver.new_stream(), driver.new_event()

def measured(steps):
    times = []
    for _ in range(200):
        start = time.perf_counter_ns()
        for step in steps:
            driver.launch(kernels, step, stream)
        driver.record(event, stream)
        driver.wait(event)
        times.append(time.perf_counter_ns() - start)
    return f"{np.median(times) / 1e3:.1f} us, p99 {np.percentile(times, 99) / 1e3:.1f} us"

spec = InputSpec(name="x", width=640, height=640, layout="nchw", dtype="float32", colour="rgb")
for width, height in ((1280, 720), (1920, 1080), (3840, 2160)):
    source = driver.device_memory(width * height * 3)
    target = driver.device_memory(16 * 640 * 640 * 3 * 4)
    frames = [(fit(width, height, spec), Picture(int(source), width * 3))] * 16
    launch = launches.letterboxes(spec, frames, int(target))
    print(f"letterbox of 16 frames of {width}x{height}, one launch:", measured(launch))
for num in (30, 100, 300):
    made = {name: driver.pinned((size,), "uint8") for name, size in launches.nms_bytes(16, num).items()}
    xyxy, score = driver.pinned((16, num, 4), "float32"), driver.pinned((16, num), "float32")
    random = np.random.default_rng(0)
    xyxy[..., :2] = random.integers(0, 300, (16, num, 2))
    xyxy[..., 2:] = xyxy[..., :2] + 60
    score[...] = random.random((16, num))
    held = {name: driver.device_memory(array.nbytes) for name, array in {**made, "xyxy": xyxy, "score": score}.items()}
    for name, array in {"xyxy": xyxy, "score": score}.items():
        driver.upload(int(held[name]), array, stream)
    memory = NmsMemory(class_id=0, **{name: int(memory) for name, memory in held.items()})
    print(f"NMS of 16 x {num} boxes:", measured(list(launches.greedy_nms(memory, 16, num, 0.5))))
"""


@dataclass(frozen=True)
class Step:
    """One thing to find out. Attributes: command: None where what it needs is not here."""

    name: str
    settles: str
    command: tuple[str, ...] | None
    limit_s: int


def steps() -> list[Step]:
    sanitizer, profiler = shutil.which("compute-sanitizer"), shutil.which("ncu")
    kernels = (*PYTEST, str(HERE / "test_gpu_kernels.py"))
    times = (sys.executable, "-c", KERNEL_TIMES)
    memcheck = None if sanitizer is None else (sanitizer, "--error-exitcode", "9", *kernels)
    racecheck = None if sanitizer is None else (sanitizer, "--tool", "racecheck", "--error-exitcode", "9", *kernels)
    profile = ("--clock-control", "none", "--set", "basic", "-k", "regex:letterbox|nms_greedy", "-c", "8")
    has_av = importlib.util.find_spec("av") is not None
    return [
        Step("the card", "which driver and card", tuple(FACTS.split()) if shutil.which("nvidia-smi") else None, 30),
        Step("kernels", "letterbox, NV12, NMS against OpenCV and numpy", kernels, 120),
        Step(
            "driver",
            "recording, streams, failures, and whether the stand-in's rules are the GPU's",
            (*PYTEST, str(RULES)),
            120,
        ),
        Step(
            "sticky error",
            "an illegal address is told as the end of the process",
            (*PYTEST, str(HERE / "test_gpu_engine.py"), "-k", "illegal_address"),
            60,
        ),
        Step("kernel times", "one launch a batch; NMS against the network's own time", times, 90),
        Step(
            "decoder",
            "NVDEC in the shared context, planes on the GPU",
            (sys.executable, "-c", DECODE) if has_av else None,
            60,
        ),
        Step("memcheck", "no address outside its memory", memcheck, 150),
        Step("racecheck", "no kernel depends on the order of threads", racecheck, 150),
        Step(
            "profile",
            "what limits letterbox and nms_greedy",
            None if profiler is None else (profiler, *profile, *times),
            120,
        ),
    ]


def run(step: Step) -> str:
    """What came of it, in a few words."""
    print(f"\n== {step.name}: {step.settles}", flush=True)
    if step.command is None:
        return "not here"
    began_s = time.monotonic()
    try:
        done = subprocess.run(step.command, cwd=ROOT, timeout=step.limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"longer than {step.limit_s} s"
    except OSError as error:
        return str(error)
    return f"{'ok' if done.returncode == 0 else f'FAILED ({done.returncode})'}, {time.monotonic() - began_s:.0f} s"


def main() -> int:
    found = [(step, run(step)) for step in steps()]
    print("\n| step | settles | result |\n| --- | --- | --- |")
    for step, result in found:
        print(f"| {step.name} | {step.settles} | {result} |")
    return int(any("FAILED" in result or "longer" in result for _, result in found))


if __name__ == "__main__":
    sys.exit(main())
