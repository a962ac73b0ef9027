"""Errors of the GPU, and which of them poison the process.

A *sticky* error destroys the context: every later call fails with it, and only a new process helps. NVIDIA's driver API
manual marks them with "the process must be terminated and relaunched".
"""

from __future__ import annotations

from edge.errors import EngineError

# phrases of cuGetErrorString and of TensorRT's log; these leave the context as it was
HARMLESS: tuple[tuple[str, str], ...] = (
    ("out of memory", "close other programs that use the GPU, or use a smaller batch"),
    ("invalid argument", "report this with the command and the model"),
    ("invalid value", "report this with the command and the model"),
    ("not supported", "update the NVIDIA driver"),
    ("invalid resource handle", "report this with the command and the model"),
    ("no kernel image", "compile the kernels for this GPU, run: python -m edge.engines.cuda.build"),
    (
        "image is invalid",
        "the CUDA toolkit is newer than the driver: update the driver, or set CUDA_ROOT to an older one",
    ),
    ("named symbol not found", "compile the kernels again, run: python -m edge.engines.cuda.build"),
    ("file not found", "compile the kernels again, run: python -m edge.engines.cuda.build"),
    ("captur", "CUDA graphs are switched off for this model"),
    ("no cuda-capable device", "run: edge doctor"),
    ("driver version is insufficient", "update the NVIDIA driver"),
)


class GpuError(EngineError):
    """The GPU or its driver failed.

    Attributes:
        is_sticky: nothing on this GPU works any more in this process; end it and start a new one.
    """

    def __init__(self, message: str, *, is_sticky: bool) -> None:
        super().__init__(message)
        self.is_sticky = is_sticky


def gpu_error(what: str, reason: str) -> GpuError:
    """Classify a failure by what the driver said. Unknown reasons count as sticky: a new process is the safe answer.

    Args:
        what: what was being done, for the message.
        reason: the driver's or TensorRT's words.
    """
    lowered = reason.lower()
    text = " ".join(reason.split()) or "no reason given"
    for phrase, advice in HARMLESS:
        if phrase in lowered:
            return GpuError(f"{what}: {text}; {advice}", is_sticky=False)
    return GpuError(f"{what}: {text}; the GPU's context is lost, the process must be started again", is_sticky=True)
