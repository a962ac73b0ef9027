"""Errors of the GPU, and which of them poison the process.

A *sticky* error destroys the context: every later call fails with it, and only a new process helps. NVIDIA's driver API
manual marks them with "the process must be terminated and relaunched". Whether an error was one is for the driver to
say (``Driver.is_lost``); words are judged only where it cannot be asked.
"""

from __future__ import annotations

from edge.errors import EngineError

# phrases of cuGetErrorString and of TensorRT's log that leave the context as it was, and what to do about them
ADVICE: tuple[tuple[str, str], ...] = (
    ("out of memory", "close other programs that use the GPU, or use a smaller batch"),
    ("invalid argument", "report this with the command and the model"),
    ("invalid value", "report this with the command and the model"),
    ("not supported", "update the NVIDIA driver"),
    ("invalid resource handle", "report this with the command and the model"),
    ("invalid device ordinal", "run: edge doctor"),
    ("no kernel image", "the kernels are for Turing (compute capability 7.5) and later"),
    ("image is invalid", "update the NVIDIA driver"),
    ("unsupported toolchain", "update the NVIDIA driver"),
    ("named symbol not found", "install edgeloop again"),
    ("file not found", "install edgeloop again"),
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


def gpu_error(what: str, reason: str, *, is_sticky: bool | None = None) -> GpuError:
    """A failure as one sentence.

    Args:
        what: what was being done.
        reason: the driver's or TensorRT's words.
        is_sticky: what the driver said when it was asked; None where it cannot be: then words decide, and unknown ones
            count as sticky, because a new process is the safe answer.
    """
    lowered = reason.lower()
    text = " ".join(reason.split()) or "no reason given"
    advice = next((advice for phrase, advice in ADVICE if phrase in lowered), None)
    if is_sticky is None:
        is_sticky = advice is None
    if is_sticky:
        advice = "the GPU's context is lost, the process must be started again"
    return GpuError(f"{what}: {text}; {advice or 'run: edge doctor'}", is_sticky=is_sticky)
