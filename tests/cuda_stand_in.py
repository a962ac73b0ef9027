"""Builds what the real pycuda and cuda-bindings run on where there is no GPU: ``cuda_stand_in.c``.

Everything is kept in ``sys.prefix`` and made again when its sources change: the library with gcc in a second, pycuda,
which has no wheels, from its source distribution in about a minute of processor time. The headers are those of NVIDIA's
Python packages. A child process with ``environment()`` finds a GPU; this one does not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from needs import need

HERE = Path(__file__).parent
KEPT = Path(sys.prefix) / "cuda-stand-in"
# for an idle machine a minute and a half is enough
CHILD_LIMIT_S = 1500
# the names that its extension module takes from the driver are looked up when it is imported: all must be there
MISSING = "int {name}(void) {{ return 801; }}\n"
# FFmpeg inside PyAV looks all its names up before it uses the first
FFMPEG_NAMES = re.compile(rb"(?<=\0)(cu[A-Z][A-Za-z0-9_]+)(?=\0)")
# the version that was read line by line for docs/gpu.md
PYCUDA = "pycuda==2026.1"
PYCUDA_NEEDS = ("pytools", "platformdirs", "mako")
SITE_CONF = """
CUDA_ENABLE_CURAND = False
CUDA_INC_DIR = {headers}
CUDADRV_LIB_DIR = [{library!r}]
CXXFLAGS = ["-O0", "-w"]
"""
# on all cores: its 44 files are one after the other else
PARALLEL = """

def _compile_at_once(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0, extra_preargs=None,
                     extra_postargs=None, depends=None):
    from multiprocessing.pool import ThreadPool
    _, objects, after, before, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    arguments = self._get_cc_args(before, debug, extra_preargs)
    ThreadPool({cores}).map(lambda name: self._compile(name, *build[name], arguments, after, before), list(build))
    return objects


from distutils.ccompiler import CCompiler
CCompiler.compile = _compile_at_once
"""


def kernels() -> Path:
    """``kernels.cu`` as a library for this machine's processor."""
    sources = [HERE / "cpu_kernels.cpp", HERE / "cpu_shim.h", HERE.parent / "edge/engines/cuda/kernels.cu"]
    out = _kept("kernels", sources) / "kernels.so"
    flags = ["-O2", "-ffp-contract=off", "-shared", "-fPIC", f"-I{HERE}"]
    return _made(out, [need("g++"), *flags, str(sources[0])])


def library() -> Path:
    """The stand-in for ``libcuda.so.1``, with every name that pycuda wants."""
    source = HERE / "cuda_stand_in.c"
    pycuda_module = next((pycuda() / "pycuda").glob("_driver*.so"))
    out = _kept("library", [source, pycuda_module]) / "libcuda.so.1"
    if not out.is_file():
        _compile_library(source, out, _names_wanted(pycuda_module))
    return out


def pycuda() -> Path:
    """A folder with pycuda, built now if it is not there yet."""
    folder = KEPT / f"{PYCUDA}-{sys.implementation.cache_tag}"
    if not (folder / "pycuda").is_dir():
        with tempfile.TemporaryDirectory() as name:
            _build_pycuda(Path(name), folder)
    return folder


def environment(*, has_pycuda: bool = True, **settings: str) -> dict[str, str]:
    """Of a child process that finds a GPU.

    Args:
        has_pycuda: else only cuda-bindings can be loaded.
        settings: see ``cuda_stand_in.c``.
    """
    paths = [str(pycuda())] if has_pycuda else []
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(library().parent),
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "STAND_IN_KERNELS": str(kernels()),
        **settings,
    }


def _kept(name: str, sources: list[Path]) -> Path:
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = KEPT / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _made(out: Path, command: list[str]) -> Path:
    if not out.is_file():
        # whole or not at all: another test process may be at it
        temporary = out.with_name(f"{out.name}.{os.getpid()}")
        subprocess.run([*command, "-o", str(temporary)], check=True, timeout=CHILD_LIMIT_S)
        temporary.replace(out)
    return out


def _compile_library(source: Path, out: Path, wanted: set[str]) -> None:
    headers = [f"-I{folder}" for folder in _headers()]
    flags = ["-shared", "-fPIC", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    command = [need("g++").replace("g++", "gcc"), *flags, "-fvisibility=hidden", *headers, str(source)]
    alone = _made(out.with_name("alone.so"), [*command, "-ldl", "-lpthread"])
    absent = sorted(wanted - _names(alone, "--defined-only"))
    others = out.with_name("missing.c")
    others.write_text("".join(MISSING.format(name=name) for name in absent))
    # without the flag for hidden names: these are to be seen, and are of no header
    _made(out, [*command, "-fvisibility=default", "-Wno-missing-prototypes", str(others), "-ldl", "-lpthread"])


def _names_wanted(module: Path) -> set[str]:
    names = {name for name in _names(module, "--undefined-only") if name.startswith("cu") and name[2].isupper()}
    spec = importlib.util.find_spec("av")
    libraries = Path(str(spec.origin)).parents[1].glob("av.libs/libavutil*") if spec else []
    return names | {name.decode() for path in libraries for name in FFMPEG_NAMES.findall(path.read_bytes())}


def _names(path: Path, which: str) -> set[str]:
    found = subprocess.run(["nm", "-D", which, str(path)], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in found.stdout.splitlines() if line.strip()}


def _headers() -> list[str]:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return [str(path.parent) for folder in folders for path in folder.glob("cu*/include/cuda.h")]


def _build_pycuda(work: Path, folder: Path) -> None:
    # a library to link with that has the right name and a name in use; the whole one needs the finished module
    (work / "stub.c").write_text("int cuInit(unsigned flags) { return (int)flags; }\n")
    stub = [need("g++"), "-shared", "-fPIC", "-x", "c", str(work / "stub.c"), "-Wl,-soname,libcuda.so.1"]
    _made(work / "libcuda.so", stub)
    _pip("download", "--no-deps", "--no-build-isolation", "--no-binary=pycuda", "--dest", str(work), PYCUDA)
    # one header of it that the compiler's package lacks
    _pip("install", "--no-deps", "--target", str(work / "profiler"), "nvidia-cuda-profiler-api>=13")
    with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
        archive.extractall(work, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(work)
    source = next(path for path in work.glob("pycuda-*") if path.is_dir())
    headers = [*_headers(), *(str(path.parent) for path in work.glob("profiler/nvidia/cu*/include/cudaProfiler.h"))]
    (source / "siteconf.py").write_text(SITE_CONF.format(headers=headers, library=str(work)))
    with (source / "aksetup_helper.py").open("a") as setup:
        setup.write(PARALLEL.format(cores=len(os.sched_getaffinity(0))))
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    _pip("install", "--target", str(fresh), "--no-deps", "--no-build-isolation", str(source))
    _pip("install", "--target", str(fresh), *PYCUDA_NEEDS)
    fresh.replace(folder)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_LIMIT_S, check=False)
    assert done.returncode == 0, f"pip {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
