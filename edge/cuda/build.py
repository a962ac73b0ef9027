"""Compiling ``kernels.cu``: ahead of time for every GPU that we know where nvcc is, else once on the device.

``python -m edge.cuda.build`` compiles for this machine's GPU; ``--all`` for the list below.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.errors import EdgeError, MissingError
from edge.files import atomic_path, sha256_of
from edge.trt.preflight import find_compute_capability

SOURCE = Path(__file__).with_name("kernels.cu")
# Orin, Ada, Hopper, Thor, desktop Blackwell
CAPABILITIES = ("8.7", "8.9", "9.0", "11.0", "12.0")
COMPILE_TIMEOUT_S = 300


def find_nvcc() -> Path | None:
    """The CUDA compiler: ``CUDA_ROOT``, the usual folder, then the path; None where there is none."""
    roots = [Path(root) for root in (os.environ.get("CUDA_ROOT"), "/usr/local/cuda") if root]
    for root in roots:
        if (root / "bin" / "nvcc").is_file():
            return root / "bin" / "nvcc"
    found = shutil.which("nvcc")
    return Path(found) if found else None


def cubin_folder() -> Path:
    """Where compiled kernels lie: ``EDGELOOP_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("EDGELOOP_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeloop"


def cubin_path(capability: str) -> Path:
    """The compiled kernels for a GPU; the name holds the source's hash, so that they are never those of another."""
    return cubin_folder() / f"kernels-sm{capability.replace('.', '')}-{sha256_of(SOURCE)[:12]}.cubin"


def compile_kernels(capability: str, out: Path) -> None:
    """Compile for one GPU.

    Raises:
        MissingError: there is no nvcc, or it does not know this GPU.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise MissingError(
            "the CUDA compiler nvcc is missing; on a Jetson run: sudo apt install cuda-toolkit (or cuda-nvcc), "
            "elsewhere install the CUDA toolkit, then run: python -m edge.cuda.build"
        )
    arch = f"-arch=sm_{capability.replace('.', '')}"
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        command = [str(nvcc), "-std=c++17", "-O3", "-cubin", arch, "-o", str(temporary), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
        if done.returncode != 0:
            reason = " ".join((done.stderr or done.stdout).split())[:200]
            raise MissingError(f"{nvcc} {arch} cannot compile the kernels ({reason}); another CUDA toolkit is needed")


def kernels_for(capability: str) -> Path:
    """The compiled kernels for a GPU, made now if they are not there yet.

    Raises:
        MissingError: they have to be compiled and cannot be.
    """
    path = cubin_path(capability)
    if not path.is_file():
        compile_kernels(capability, path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile and say where; the exit code is that of the error."""
    parser = argparse.ArgumentParser(prog="python -m edge.cuda.build", description=__doc__)
    parser.add_argument("--all", action="store_true", help=f"compile for {', '.join(CAPABILITIES)}")
    options = parser.parse_args(arguments)
    try:
        here = find_compute_capability()
        wanted = CAPABILITIES if options.all else (here,) if here else ()
        if not wanted:
            raise MissingError("no NVIDIA GPU here; use --all to compile for the GPUs that we know")
        for capability in wanted:
            sys.stdout.write(f"{kernels_for(capability)}\n")
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
