"""What a TensorRT engine is built for: precision, batches, target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.models.manifest import Precision, Profile


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What may be chosen about an engine. All of it enters the engine's identity, except for the timing cache.

    Attributes:
        precision: refuse to build unless the engine has it; None takes what the graph holds. ``fp32`` also lets no GPU
            round the factors of convolutions (TF32), as it may where FP32 is only what the graph holds.
        profiles: batch sizes, one optimisation profile each; empty takes 1:4:16 (the DLA: 1), or the graph's own fixed
            batch.
        targets: compute capabilities, ``("8.9",)``; empty means the GPU of this machine.
        workspace_mb: scratch memory that kernels may use; None leaves it to TensorRT, but takes 1024 on a Jetson.
        timing_cache: folder of measured kernel times; a file per TensorRT and GPU. None keeps none.
        dla_core: build for this DLA core, what it cannot do runs on the GPU.
        calibration_cache: INT8 ranges for the DLA on TensorRT up to 10: ``ranges.json``, or a finished cache.
        hardware_compatible: run on every GPU from Ampere on, slower.
        version_compatible: run on later releases, slower.
        optimization_level: 0 (builds fast) to 5 (runs fast); None is TensorRT's own choice, 3.
        flags: further names of ``BuilderFlag``.
    """

    precision: Precision | None = None
    profiles: tuple[Profile, ...] = ()
    targets: tuple[str, ...] = ()
    workspace_mb: int | None = None
    timing_cache: Path | None = None
    dla_core: int | None = None
    calibration_cache: Path | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False
    optimization_level: int | None = None
    flags: tuple[str, ...] = ()
