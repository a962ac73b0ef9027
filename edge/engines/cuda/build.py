"""Our kernels as PTX, which every NVIDIA driver since 2022 compiles for the GPU that it finds: no compiler is needed.

``python -m edge.engines.cuda.build`` makes ``kernels.ptx`` of ``kernels.cu`` again, with NVRTC of CUDA 11.8
(``pip install nvidia-cuda-nvrtc-cu11``): an older compiler makes PTX that older drivers take.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, MissingError

SOURCE = Path(__file__).with_name("kernels.cu")
KERNELS = Path(__file__).with_name("kernels.ptx")
# Turing; later GPUs run it too, and none before it can run TensorRT 10
OLDEST = (7, 5)
ARCHITECTURE = "compute_75"
HOW_TO_GET = "run: pip install nvidia-cuda-nvrtc-cu11"


def kernels_for(capability: str) -> Path:
    """The kernels for a GPU.

    Raises:
        MissingError: it is too old for them.
    """
    if tuple(map(int, capability.split("."))) < OLDEST:
        raise MissingError(f"our kernels need compute capability 7.5 (Turing) or later, this GPU has {capability}")
    return KERNELS


def compile_kernels() -> str:
    """``kernels.cu`` as PTX.

    Raises:
        MissingError: NVRTC is not installed, or it refuses the source.
    """
    libc: Any = ctypes.CDLL(None)
    libc.uselocale.restype, libc.uselocale.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    # NVRTC gives the thread that calls it the locale "C" and leaves it so
    locale = libc.uselocale(None)
    try:
        return _compiled(_load_nvrtc())
    finally:
        libc.uselocale(locale)


def _compiled(nvrtc: Any) -> str:
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), SOURCE.name.encode(), 0, None, None)
    options = [f"--gpu-architecture={ARCHITECTURE}".encode(), b"-std=c++17"]
    if nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) != 0:
        reason = " ".join(_text(nvrtc, "ProgramLog", program).split())[:400]
        raise MissingError(f"NVRTC cannot compile {SOURCE.name} ({reason})")
    return _text(nvrtc, "PTX", program)


def _text(nvrtc: Any, what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()


def _load_nvrtc() -> Any:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or () if spec else ())]
    found = [path for folder in folders for path in folder.glob("cuda_nvrtc/lib/libnvrtc.so.11*")]
    if not found:
        raise MissingError(f"NVRTC of CUDA 11.8 is not installed; {HOW_TO_GET}")
    # it looks for its other half where no loader does
    for half in found[0].parent.glob("libnvrtc-builtins.so*"):
        ctypes.CDLL(str(half), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(found[0]))


def main() -> int:
    """Write ``kernels.ptx``; the exit code is that of the error."""
    try:
        KERNELS.write_text(compile_kernels(), encoding="utf-8")
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{KERNELS}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
