"""The real pycuda and cuda-bindings on the stand-in for NVIDIA's driver: what tests/gpu asks of a GPU, in CI."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import cuda_stand_in
import pytest

NOTHING: Mapping[str, str] = MappingProxyType({})
ROOT = Path(__file__).parents[2]
# pycuda is built once, which takes a minute and more on a busy machine
pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]


def run(*command: str, has_pycuda: bool = True, settings: Mapping[str, str] = NOTHING) -> str:
    environment = cuda_stand_in.environment(has_pycuda=has_pycuda, **settings)
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


JETSON = {"STAND_IN_INTEGRATED": "1", "STAND_IN_CAPABILITY": "87"}
RULES = ("test_gpu_driver.py", "test_gpu_stand_in_engine.py")


@pytest.mark.parametrize(
    ("names", "settings"), [(("test_gpu_kernels.py", *RULES), {}), (RULES, JETSON)], ids=["desktop", "Jetson"]
)
def test_what_a_gpu_must_show_passes_with_both_packages(
    tmp_path: Path, names: tuple[str, ...], settings: dict[str, str]
) -> None:
    trace = tmp_path / "trace"
    trace.touch()
    settings = {"STAND_IN_TRACE": str(trace), "STAND_IN_DEVICES": "2", **settings}
    command = ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-rs", "--durations=5"]
    said = run(*command, *(f"tests/gpu/{name}" for name in names), settings=settings)
    assert "[100%]" in said
    assert "SKIPPED" not in said and "skipped" not in said, said


STICKY = """
import importlib, os, sys, numpy as np
from edge.engines.cuda.build import KERNELS
from edge.engines.cuda.context import open_driver
from edge.engines.cuda.errors import GpuError
from edge.engines.cuda.launches import NMS, Launch
driver = open_driver()
kernels, stream, event = driver.load_kernels(KERNELS), driver.new_stream(), driver.new_event()
arguments = np.zeros((), NMS)
arguments["count"], arguments["images"] = 1 << 20, 1
try:
    driver.launch(kernels, Launch("nms_begin", (1, 1, 1), (128, 1, 1), arguments), stream)
    driver.record(event, stream)
    driver.wait(event)
except GpuError as error:
    print(type(driver).__name__, error.is_sticky, driver.is_lost(), error, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("has_pycuda", "driver"), [(True, "PycudaDriver"), (False, "BindingsDriver")])
def test_pycuda_is_taken_where_it_is_and_an_illegal_address_is_a_sticky_error(has_pycuda: bool, driver: str) -> None:
    said = run("-c", STICKY, has_pycuda=has_pycuda)
    assert said.startswith(f"{driver} True True the batch failed on the GPU: ")
    assert "an illegal memory access was encountered; the GPU's context is lost" in said


def test_a_pycuda_that_does_not_fit_the_driver_makes_room_for_cuda_bindings(tmp_path: Path) -> None:
    # as one that was built with newer headers than the driver has
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text('raise ImportError("undefined symbol: cuCtxCreate_v4")\n')
    said = run("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{STICKY}")
    assert said.startswith("BindingsDriver True True")


LOAD = """
import sys
from edge.engines.cuda.build import KERNELS
from edge.engines.cuda.context import open_driver
from edge.engines.cuda.errors import GpuError
try:
    open_driver().load_kernels(KERNELS)
except GpuError as error:
    print(error.is_sticky, error)
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"STAND_IN_CAPABILITY": "61"}, "no kernel image is available"),
        ({"STAND_IN_DRIVER": "11040"}, "unsupported toolchain"),
    ],
)
def test_kernels_for_another_gpu_or_a_newer_driver_are_refused(settings: dict[str, str], message: str) -> None:
    said = run("-c", LOAD, settings=settings)
    assert said.startswith("False kernels.ptx cannot be loaded: ") and message in said
