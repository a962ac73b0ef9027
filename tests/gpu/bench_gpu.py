"""Times a model on this GPU and prints rows for docs/gpu.md: ``python tests/gpu/bench_gpu.py [MODEL.engine]``.

Without an engine, one is built of the shipped model; where no TensorRT builds for this GPU, the CUDA provider and the
kernels are timed. Speed is given as a ratio to the bare engine in the same run: execution on a batch on the GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.engines.cuda.build import kernels_for
from edge.engines.cuda.capability import find_compute_capability
from edge.engines.cuda.context import open_driver
from edge.engines.cuda.frames import FrameFitter
from edge.engines.cuda.memory import TensorMemory
from edge.engines.ort import OrtEngine
from edge.engines.trt import api as trt_api
from edge.engines.trt.engine import TrtEngine
from edge.errors import EdgeError, MissingError
from edge.models.manifest import Manifest, read_sidecar
from edge.models.preprocess import Preprocessor
from edge.types import UInt8
from export.build.engine import build_engine, parse_batch
from export.build.options import BuildOptions

MODELS = Path(__file__).parents[2] / "edge" / "models"
SHIPPED = {"fp32": "street-nano.onnx", "int8": "street-nano-int8-trt.onnx"}
WARM_UP = 50
BATCHES = (1, 4, 8, 16)
CAMERA = (1280, 720)


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times)) / 1e6, float(np.percentile(times, 99)) / 1e6


def overlapped_fps(submit: Callable[[], object], collect: Callable[[], object], frames: int, repeats: int) -> float:
    """Frames per second with two batches in flight."""
    submit()
    start = time.perf_counter()
    for _ in range(repeats):
        submit()
        collect()
    seconds = time.perf_counter() - start
    collect()
    return repeats * frames / seconds


def bare_ms(engine: TrtEngine, batch: UInt8, repeats: int) -> float:
    """Median of execution alone: shape set, memory bound, no copies, no graph."""
    engine.infer(batch)
    slot = engine._slots[0]
    rows = next(size for size in slot._sizes if size >= len(batch))
    context, replay = slot._context(rows), slot.replay

    def run() -> None:
        context.execute_async_v3(replay.handle)
        engine._driver.record(replay._done, replay.stream)
        replay.wait()

    return measure(run, repeats)[0]


def device_line() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        model = Path("/proc/device-tree/model")
        return model.read_text(encoding="utf-8").strip("\0\n") if model.is_file() else "unknown device"


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def time_engine(path: Path, manifest: Manifest, repeats: int) -> None:
    spec = manifest.input
    print(f"\n{path.name}, {manifest.precision}, {spec.width}x{spec.height}")
    row("batch", "graphs", "bare ms", "infer ms (p99)", "frames/s in flight", "of bare", "720p frames/s", "of bare")
    row(*["---"] * 8)
    for use_graphs in (True, False):
        engine = TrtEngine(path, manifest, use_graphs=use_graphs)
        for count in [size for size in BATCHES if size <= engine.max_batch]:
            time_batch(engine, count, use_graphs, repeats)
        engine.close()


def time_batch(engine: TrtEngine, count: int, use_graphs: bool, repeats: int) -> None:
    random = np.random.default_rng(0)
    shape = tuple(size or 1 for size in engine.inputs[0].shape[1:])
    batch = random.integers(0, 256, (count, *shape)).astype(engine.inputs[0].dtype)
    frames = [random.integers(0, 256, (CAMERA[1], CAMERA[0], 3), np.uint8) for _ in range(count)]
    bare = bare_ms(engine, batch, repeats)
    median, worst = measure(lambda: engine.infer(batch), repeats)
    tensors = overlapped_fps(lambda: engine.submit(batch), engine.collect, count, repeats)
    whole = overlapped_fps(lambda: engine.submit_frames(frames), engine.collect, count, repeats)
    limit = count / bare * 1000
    cells = (f"{bare:.3f}", f"{median:.3f} ({worst:.3f})", f"{tensors:.0f}", f"{tensors / limit:.2f}")
    row(count, "on" if use_graphs else "off", *cells, f"{whole:.0f}", f"{whole / limit:.2f}")


def time_provider(model: Path, repeats: int) -> None:
    """ONNX Runtime's CUDA provider with bound memory, against its plain run in the same process."""
    try:
        engine = OrtEngine(model, kind="ort-cuda", max_batch=max(BATCHES))
    except MissingError as error:
        print(f"\nort-cuda: {error}")
        return
    print(f"\n{model.name} with {engine.name}")
    row("batch", "bound ms (p99)", "plain run ms (p99)")
    row("---", "---", "---")
    for count in BATCHES:
        size = [length or 1 for length in engine.inputs[0].shape[1:]]
        batch = np.random.default_rng(0).integers(0, 256, (count, *size)).astype(engine.inputs[0].dtype)
        feed = {engine.inputs[0].name: batch}
        bound = measure(lambda batch=batch: engine.infer(batch), repeats)
        plain = measure(lambda feed=feed: engine._session.run(None, feed), repeats)
        row(count, *(f"{median:.3f} ({worst:.3f})" for median, worst in (bound, plain)))
    engine.close()


def time_letterbox(manifest: Manifest, repeats: int) -> None:
    """Upload and letterbox of one frame on the GPU, against the letterbox on one core of the CPU."""
    driver: Any = open_driver()
    kernels = driver.load_kernels(kernels_for(driver.compute_capability))
    spec = manifest.input
    shape = (1, spec.height, spec.width, 3) if spec.layout == "nhwc" else (1, 3, spec.height, spec.width)
    target = TensorMemory(driver, shape, spec.dtype)
    fitter, preprocessor = FrameFitter(driver, kernels, spec), Preprocessor(spec, 1)
    stream, done = driver.new_stream(), driver.new_event()
    print(f"\nletterbox, {type(driver).__name__}")
    row("frame", "GPU ms (p99), copy and upload included", "of that the thread is busy", "CPU ms (p99)")
    row("---", "---", "---", "---")
    for width, height in ((1280, 720), (1920, 1080), (3840, 2160)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        busy: list[float] = []

        def on_gpu(image: UInt8 = image, busy: list[float] = busy) -> None:
            start = time.perf_counter_ns()
            fitter.write([image], target.address, stream)
            driver.record(done, stream)
            busy.append((time.perf_counter_ns() - start) / 1e6)
            driver.wait(done)

        gpu = measure(on_gpu, repeats)
        cpu = measure(lambda image=image: preprocessor.write(image, 0), repeats)
        figures = [f"{median:.3f} ({worst:.3f})" for median, worst in (gpu, cpu)]
        row(f"{width}x{height}", figures[0], f"{np.median(busy):.3f}", figures[1])
    with driver.scope():
        fitter.close()


def build_shipped(folder: Path, repeats: int) -> None:
    """Engines of the shipped models with whatever TensorRT builds for this GPU."""
    capability = find_compute_capability()
    for flavour in trt_api.FLAVOURS:
        try:
            api = trt_api.load(flavour)
            if api.is_rtx and capability not in api.targets():
                print(f"\n{api.title} builds for {', '.join(api.targets())}, not for {capability}")
                continue
            for precision, name in SHIPPED.items():
                options = BuildOptions(profiles=(parse_batch("1:4:16"),))
                out = folder / f"{precision}-{flavour}.engine"
                built = build_engine(MODELS / name, out, options, api, capability=capability)
                time_engine(built.engine, built.manifest, repeats)
        except EdgeError as error:
            print(f"\n{flavour}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    if find_compute_capability() is None:
        sys.exit("no NVIDIA GPU here; run: edge doctor")
    print(f"{device_line()}, compute capability {find_compute_capability()}; {' '.join(sys.argv)}")
    if options.engine is not None:
        manifest = read_sidecar(options.engine)
        if manifest is None:
            sys.exit(f"{options.engine}: has no manifest next to it; run: edge build MODEL.onnx")
        time_engine(options.engine, manifest, options.repeats)
    else:
        with tempfile.TemporaryDirectory() as name:
            build_shipped(Path(name), options.repeats)
    shipped = read_sidecar(MODELS / SHIPPED["fp32"])
    assert shipped is not None
    time_letterbox(shipped, options.repeats)
    time_provider(MODELS / SHIPPED["fp32"], max(1, options.repeats // 5))


if __name__ == "__main__":
    main()
