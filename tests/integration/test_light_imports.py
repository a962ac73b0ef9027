"""What is imported when: ``import edge`` is cheap, and a run on the CPU loads no toolchain and no GPU library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "tensorrt", "tensorrt_rtx", "pycuda", "export", "calib", "scipy.optimize", "scipy.stats", "openvino")


def run_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


def test_import_edge_is_quick_and_loads_nothing_heavy() -> None:
    code = f"""
import sys, time
start = time.process_time()
import edge
print(time.process_time() - start)
start = time.process_time()
edge.Pipeline
print(time.process_time() - start)
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    runs = [run_python(code) for _ in range(3)]
    assert all(len(run) == 2 for run in runs), runs
    assert min(float(run[0]) for run in runs) < 0.05
    assert min(float(run[1]) for run in runs) < 0.15


def test_a_cpu_run_imports_no_toolchain_and_no_gpu_library(tmp_path: Path) -> None:
    code = f"""
import sys
from edge.cli import run_command
model = "edge/models/street-nano-int8.onnx"
source = "synthetic://street?seed=3&size=320x180&frames=5"
assert run_command(["--quiet", "run", "--source", source, "--model", model, "--sink", "jsonl:{tmp_path}/o.jsonl"]) == 0
print("loaded", *[name for name in {HEAVY} if name in sys.modules])
"""
    assert run_python(code)[-1] == "loaded"
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 5
