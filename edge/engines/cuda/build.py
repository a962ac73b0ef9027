"""Compiling ``kernels.cu``: ahead of time for every GPU that we know where nvcc is, else once on the device.

``python -m edge.engines.cuda.build`` compiles for this machine's GPU; ``--all`` for the list below.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.engines.cuda.capability import find_compute_capability
from edge.errors import EdgeError, MissingError
from edge.files import atomic_path, cache_folder, sha256_of
from edge.threads.python_process import child_environment

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("kernels.cu")
# Orin, Ada, Hopper, Thor, desktop Blackwell
CAPABILITIES = ("8.7", "8.9", "9.0", "11.0", "12.0")
COMPILE_TIMEOUT_S = 300


def find_nvcc() -> Path | None:
    """The CUDA compiler: ``CUDA_ROOT``, the usual folder, the path, then NVIDIA's Python package; None without one."""
    roots = [Path(root) for root in (os.environ.get("CUDA_ROOT"), "/usr/local/cuda") if root]
    for root in roots:
        if (root / "bin" / "nvcc").is_file():
            return root / "bin" / "nvcc"
    found = shutil.which("nvcc")
    return Path(found) if found else find_packaged_nvcc()


def find_packaged_nvcc() -> Path | None:
    """The compiler that ``pip install nvidia-cuda-nvcc`` brings, of the newest CUDA; None without one.

    It comes last: a compiler newer than the driver makes kernels that the driver may refuse.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or () if spec else ())]
    found = [nvcc for folder in folders for nvcc in folder.glob("cu*/bin/nvcc")]
    return max(found, key=lambda nvcc: nvcc.parents[1].name, default=None)


def cubin_path(capability: str) -> Path:
    """The compiled kernels for a GPU; the name holds the source's hash, so that they are never those of another."""
    return cache_folder() / f"kernels-sm{capability.replace('.', '')}-{sha256_of(SOURCE)[:12]}.cubin"


def compile_kernels(capability: str, out: Path) -> None:
    """Compile for one GPU.

    Raises:
        MissingError: there is no nvcc, it does not know this GPU, or the folder cannot be written.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise MissingError(
            "the CUDA compiler nvcc is missing; on a Jetson run: sudo apt install cuda-toolkit (or cuda-nvcc), "
            "elsewhere pip install nvidia-cuda-nvcc, then run: python -m edge.engines.cuda.build"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out) as temporary:
            _compile(nvcc, f"-arch=sm_{capability.replace('.', '')}", temporary)
    except OSError as error:
        raise MissingError(
            f"compiled kernels cannot be kept in {out.parent} ({error.strerror}); set EDGELOOP_CACHE to a folder that "
            "this user may write, then run: python -m edge.engines.cuda.build"
        ) from None


def _compile(nvcc: Path, arch: str, out: Path) -> None:
    log.info("compiling the CUDA kernels with %s %s, once", nvcc, arch)
    command = [str(nvcc), "-std=c++17", "-O3", "-cubin", arch, "-o", str(out), str(SOURCE)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False, env=child_environment()
        )
    except subprocess.TimeoutExpired:
        raise MissingError(
            f"{nvcc} {arch} did not compile the kernels within {COMPILE_TIMEOUT_S} s; end what else runs, then run: "
            "python -m edge.engines.cuda.build"
        ) from None
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
    parser = argparse.ArgumentParser(prog="python -m edge.engines.cuda.build", description=__doc__)
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
