"""The one place that knows how ``tensorrt`` 8.6 to 11 and ``tensorrt_rtx`` differ; neither is imported before ``load``.

Everything above asks this module (and ``edge.engines.trt.runtime`` for running) what to do and never asks for a
version. Names were checked against nine releases (``tests/data/trt_api_surface.json``).
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

from edge.engines.trt.callbacks import BuildListener, cached_ranges, logger, monitor
from edge.errors import EngineError, MissingError, UsageError
from edge.packages.installed import add_extra

log = logging.getLogger(__name__)

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
TITLE = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
HOW_TO_GET = {
    "tensorrt": f"on a Jetson make the venv with --system-site-packages, elsewhere run: {add_extra('gpu')}",
    "tensorrt_rtx": f"run: {add_extra('rtx')}",
}
# NVIDIA calls strong typing complete from this release on; weak typing ends with 11
STRONG_TYPING_SINCE = (10, 12)
KEPT_MESSAGES = 200
MAX_SAID = 600
TOO_OLD = "the NVIDIA driver may be missing or too old for this release, run: edge doctor"
# what the bindings raise where the library gives nothing back: a constructor, then every other call
FAILURES = (TypeError, RuntimeError)


def release_of(version: str) -> tuple[int, ...]:
    """``"10.3.0.26"`` → ``(10, 3, 0, 26)``; stops at what is no number."""
    parts: list[int] = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        parts.append(int(part))
    return tuple(parts)


def capability_of(target: str) -> str:
    """``"sm89"`` or ``"8.9"`` → ``"8.9"``.

    Raises:
        UsageError: it names no compute capability.
    """
    digits = target.lower().removeprefix("sm").replace("_", "").replace(".", "")
    if not (digits.isdecimal() and digits.isascii() and len(digits) in (2, 3)):
        raise UsageError(f"--target: expected compute capabilities such as sm89,sm120, found {target!r}")
    return f"{int(digits[:-1])}.{digits[-1]}"


def load(flavour: Flavour | None = None) -> TensorRt:
    """Import TensorRT: the flavour asked for, or the first of ``tensorrt`` and ``tensorrt_rtx`` that is installed.

    Raises:
        MissingError: it is not installed, or its libraries cannot be loaded.
    """
    wanted = (flavour,) if flavour else FLAVOURS
    for name in wanted:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return TensorRt(importlib.import_module(name), name)
        except (ImportError, OSError) as error:
            raise MissingError(
                f"{TITLE[name]} is installed but cannot be loaded ({error}); {HOW_TO_GET[name]}"
            ) from error
    names = " or ".join(TITLE[name] for name in wanted)
    raise MissingError(f"{names} is not installed; {HOW_TO_GET[wanted[-1]]}")


class TensorRt:
    """One loaded TensorRT, for building; ``edge.engines.trt.runtime`` is its other half.

    Attributes:
        trt: the Python module itself.
        messages: the last warnings and errors that TensorRT logged, oldest first.
    """

    def __init__(self, module: Any, flavour: Flavour) -> None:
        self.trt = module
        self.flavour = flavour
        self.version = str(module.__version__)
        self.release = release_of(self.version)
        self.messages: deque[str] = deque(maxlen=KEPT_MESSAGES)
        self.logger = logger(module, self.messages)

    @property
    def title(self) -> str:
        return f"{TITLE[self.flavour]} {self.version}"

    def runtime(self) -> Any:
        """A runtime.

        Raises:
            EngineError: the driver is missing, or too old for this release.
        """
        self.messages.clear()
        try:
            return self.trt.Runtime(self.logger)
        except FAILURES as error:
            raise EngineError(f"{self.title} does not start ({self._why(error)}); {TOO_OLD}") from None

    @property
    def is_rtx(self) -> bool:
        return self.flavour == "tensorrt_rtx"

    @property
    def is_always_strongly_typed(self) -> bool:
        """Whether the types in the graph decide, whatever is asked for."""
        return self.is_rtx or self.release >= (11,)

    @property
    def has_calibrators(self) -> bool:
        """Whether implicit INT8 (a calibration cache) still exists: up to 10.x, and never in RTX."""
        return hasattr(self.trt, "IInt8EntropyCalibrator2")

    @property
    def has_progress(self) -> bool:
        return hasattr(self.trt, "IProgressMonitor")

    @property
    def max_opset(self) -> int | None:
        """The newest ONNX opset that the parser takes, None where it is newer than all of ours."""
        if self.is_rtx or self.release >= (10, 12):
            return None
        return 20 if self.release >= (10,) else 17

    def is_strongly_typed(self, has_float16: bool) -> bool:
        """Whether a graph is built with its own types: always where possible, from 10.0 on for graphs in FP16."""
        if self.is_always_strongly_typed or self.release >= STRONG_TYPING_SINCE:
            return True
        return has_float16 and hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    def builder(self) -> Any:
        """A builder.

        Raises:
            EngineError: the driver is missing, or too old for this release.
        """
        self.messages.clear()
        try:
            return self.trt.Builder(self.logger)
        except FAILURES as error:
            raise EngineError(f"{self.title}: no builder ({self._why(error)}); {TOO_OLD}") from None

    def network(self, builder: Any, strongly_typed: bool) -> Any:
        """An empty network with the flags that this version needs."""
        flags = self.trt.NetworkDefinitionCreationFlag
        bits = 0
        if self.release < (10,) and not self.is_rtx:
            bits |= 1 << int(flags.EXPLICIT_BATCH)
        elif strongly_typed and not self.is_always_strongly_typed:
            bits |= 1 << int(flags.STRONGLY_TYPED)
        return builder.create_network(bits)

    def parse(self, network: Any, config: Any, model: bytes, path: str, for_dla: bool) -> Any:
        """Fill a network from ONNX; the parser must live as long as the network, whose weights it owns.

        Raises:
            EngineError: an operation is not supported; the message names its node.
        """
        parser = self.trt.OnnxParser(network, self.logger)
        flags = self.trt.OnnxParserFlag
        if for_dla and hasattr(flags, "ADJUST_FOR_DLA") and hasattr(parser, "set_builder_config"):
            parser.set_builder_config(config)
            parser.set_flag(flags.ADJUST_FOR_DLA)
        if not parser.parse(model, path):
            raise EngineError(self._parse_failure(parser, path.rpartition("/")[2]))
        return parser

    def set_flags(self, config: Any, names: Sequence[str]) -> None:
        for name in names:
            config.set_flag(getattr(self.trt.BuilderFlag, name))

    def clear_flags(self, config: Any, names: Sequence[str]) -> None:
        for name in names:
            config.clear_flag(getattr(self.trt.BuilderFlag, name))

    def has_flag(self, name: str) -> bool:
        return hasattr(self.trt.BuilderFlag, name)

    def share_profiles(self, config: Any) -> None:
        """Let several execution contexts use one profile; from 10.0 on they always may."""
        if self.must_ask_to_share:
            config.set_preview_feature(self.trt.PreviewFeature.PROFILE_SHARING_0806, True)

    @property
    def must_ask_to_share(self) -> bool:
        """Whether a plan of this release lets one context alone use a profile, unless it was built otherwise."""
        return not self.is_rtx and self.release < (10,)

    def set_workspace(self, config: Any, num_bytes: int) -> None:
        config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, num_bytes)

    def set_hardware_compatible(self, config: Any) -> None:
        config.hardware_compatibility_level = self.trt.HardwareCompatibilityLevel.AMPERE_PLUS

    def set_detailed(self, config: Any) -> None:
        """Keep the layers' names in the plan, so that the inspector can tell them."""
        config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED

    def targets(self) -> tuple[str, ...]:
        """Compute capabilities that can be built for without such a GPU: ``("7.5", …)``; none in classic TensorRT."""
        known = getattr(self.trt, "ComputeCapability", None)
        names = getattr(known, "__members__", ()) if self.is_rtx else ()
        return tuple(capability_of(name) for name in names if name.startswith("SM"))

    def set_targets(self, config: Any, capabilities: Sequence[str]) -> None:
        """Choose the GPUs of an engine of TensorRT for RTX; a no-op in classic TensorRT, which builds for this GPU."""
        if not self.is_rtx:
            return
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            member = getattr(self.trt.ComputeCapability, "SM" + capability.replace(".", ""))
            config.set_compute_capability(member, index)

    def set_dla(self, builder: Any, config: Any, core: int) -> None:
        """Prefer the DLA; what it cannot do falls back to the GPU.

        Raises:
            EngineError: this machine, or this TensorRT, has no such core.
        """
        cores = int(builder.num_DLA_cores)
        if core >= cores:
            raise EngineError(
                f"--dla {core}: {self.title} sees {cores} DLA cores here; Orin NX and AGX Orin have 1 or 2 and need "
                "TensorRT up to 10.7, or 11.4.1 with JetPack 7.2.2; build without --dla"
            )
        config.default_device_type = self.trt.DeviceType.DLA
        config.DLA_core = core
        self.set_flags(config, ["GPU_FALLBACK"])

    def dla_fallbacks(self, network: Any, config: Any) -> tuple[str, ...]:
        """Names of the layers that will run on the GPU although the DLA was asked for."""
        layers = (network.get_layer(index) for index in range(network.num_layers))
        return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))

    def set_calibration(self, config: Any, cache: bytes) -> None:
        """Use the ranges of a calibration cache (implicit INT8, for DLA up to TensorRT 10)."""
        config.int8_calibrator = cached_ranges(self.trt, cache)

    def progress_monitor(self, listener: BuildListener) -> Any:
        """An ``IProgressMonitor`` that tells the listener; None where TensorRT has none (8.6)."""
        return monitor(self.trt, listener) if self.has_progress else None

    def use_timing_cache(self, config: Any, data: bytes) -> None:
        """Start from measured kernel times; those of another GPU or version are dropped with a warning."""
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return
        log.warning("timing cache: made by another GPU or TensorRT; starting an empty one")
        config.set_timing_cache(config.create_timing_cache(b""), False)

    def timing_cache(self, config: Any) -> bytes:
        return bytes(config.get_timing_cache().serialize())

    def said(self) -> str:
        """All that it logged since the messages were cleared: the reason is seldom in the last line."""
        return "; ".join(dict.fromkeys(self.messages))[:MAX_SAID] or "TensorRT says nothing"

    def _why(self, error: Exception) -> str:
        return self.said() if self.messages else " ".join(str(error).split())

    def _parse_failure(self, parser: Any, where: str) -> str:
        error = parser.get_error(0) if parser.num_errors else None
        if error is None:
            return f"{where}: {self.title} cannot read it ({self.said()}); run: edge inspect {where}"
        node = error.node_name() if hasattr(error, "node_name") else f"number {error.node()}"
        kind = error.node_operator() if hasattr(error, "node_operator") else "operation"
        is_quantized = kind in ("QuantizeLinear", "DequantizeLinear") or "zero point" in error.desc()
        advice = "symmetric INT8 is needed, run: edge quantize" if is_quantized else "export the model without it"
        return (
            f"{where}: {self.title} takes no {kind} as in node {node!r} ({' '.join(error.desc().split())[:200]}); "
            f"{advice}, or run the ONNX file with ONNX Runtime"
        )
