"""The kernels as they are shipped: PTX of the source next to it, which assembles for every GPU from Turing on."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from edge.engines.cuda import build

# Turing, Ampere, Orin, Ada, Hopper, Blackwell, Thor, desktop Blackwell
CAPABILITIES = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1")


def assembler() -> Path:
    """NVIDIA's ptxas out of its Python package: what the driver does with PTX, at another time."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    found = [path for folder in folders for path in folder.glob("cu*/bin/ptxas")]
    if not found:
        pytest.skip("not installed; run: pip install nvidia-cuda-nvcc")
    return found[0]


@pytest.mark.engine
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_shipped_kernels_assemble_for_every_gpu_without_memory_of_their_own(
    tmp_path: Path, capability: str
) -> None:
    out = tmp_path / "kernels.cubin"
    arch = f"sm_{capability.replace('.', '')}"
    command = [str(assembler()), "-v", f"-arch={arch}", str(build.kernels_for(capability)), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes()[:4] == b"\x7fELF" and arch.encode() in out.read_bytes()
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert len(stacks) == 6 and set(stacks) == {("0", "0", "0")}


@pytest.mark.engine
def test_the_shipped_kernels_are_those_of_the_source() -> None:
    if importlib.util.find_spec("nvidia.cuda_nvrtc") is None:
        pytest.skip("not installed; run: pip install nvidia-cuda-nvrtc-cu11")
    text = "run: python -m edge.engines.cuda.build"
    assert build.compile_kernels() == build.KERNELS.read_text(), text


def test_the_shipped_kernels_are_for_drivers_of_cuda_11_8_and_later() -> None:
    text = build.KERNELS.read_text()
    assert "\n.version 7.8\n" in text and "\n.target sm_75\n" in text
