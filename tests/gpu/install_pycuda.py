"""Builds and installs pycuda for ``make gpu-bench``, with the CUDA toolkit here or NVIDIA's Python packages.

pycuda has no wheels. Its build wants a folder with bin/nvcc and include/{cuda,curand,cudaProfiler}.h, and libcuda.so to
link with; a driver alone brings libcuda.so.1, and the Python packages libcurand.so.10.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HEADERS = ("include/cuda.h", "include/curand.h", "include/cudaProfiler.h")
# the headers may be newer than the driver: then pycuda cannot be imported, and cuda-bindings is used (docs/gpu.md)
PACKAGES = ("nvidia-cuda-nvcc", "nvidia-curand", "nvidia-cuda-profiler-api")


def toolkit() -> Path | None:
    """A whole CUDA toolkit: ``CUDA_ROOT``, then the usual folder; None without one."""
    roots = [Path(root) for root in (os.environ.get("CUDA_ROOT"), "/usr/local/cuda") if root]
    return next((root for root in roots if all((root / name).is_file() for name in (*HEADERS, "bin/nvcc"))), None)


def packaged() -> Path:
    """The toolkit out of NVIDIA's Python packages, installed now."""
    pip("install", "--quiet", *PACKAGES)
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    found = [folder for parent in folders for folder in parent.glob("cu*") if (folder / HEADERS[0]).is_file()]
    if not found:
        sys.exit(f"{' '.join(PACKAGES)}: installed, but there is no nvidia/cu*/{HEADERS[0]}; install the CUDA toolkit")
    return max(found, key=lambda folder: folder.name)


def pip(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, env={**os.environ, **environment}, check=False).returncode != 0:
        sys.exit(f"pip {' '.join(arguments)} failed; see docs/gpu.md, section «Running: pycuda»")


def link_names(root: Path, folder: Path) -> None:
    """Give the linker the names that it looks for, where only the versioned files are there."""
    libraries = {"libcuda.so": ctypes.util.find_library("cuda"), "libcurand.so": None}
    for name, found in libraries.items():
        places = [root / part for part in ("lib", "lib64", "lib/stubs", "lib64/stubs", "targets/x86_64-linux/lib")]
        if any((place / name).exists() for place in places):
            continue
        versioned = [path for place in places for path in sorted(place.glob(f"{name}.*"))]
        target = versioned[0] if versioned else _system_library(found or name)
        (folder / name).symlink_to(target)


def _system_library(name: str) -> Path:
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        parts = line.split(" => ")
        if len(parts) == 2 and parts[0].split()[0].startswith(name):
            return Path(parts[1].strip())
    sys.exit(f"{name} is not on this machine; the NVIDIA driver brings it. Run: edge doctor")


def main() -> None:
    try:
        import pycuda.driver  # noqa: F401
    except ImportError:
        root = toolkit() or packaged()
        print(f"building pycuda with {root}, some minutes …", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            link_names(root, folder)
            library_path = os.pathsep.join([str(folder), str(root / "lib64"), str(root / "lib")])
            pip(
                "install",
                "--no-binary=pycuda",
                "pycuda>=2024.1",
                CUDA_ROOT=str(root),
                PATH=f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
                CPATH=str(root / "include"),
                LIBRARY_PATH=library_path,
                # libcurand of the Python packages lies where no loader looks
                LDFLAGS=" ".join([os.environ.get("LDFLAGS", ""), f"-Wl,-rpath,{root / 'lib'}"]).strip(),
            )


if __name__ == "__main__":
    main()
