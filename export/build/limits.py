"""What can be built from this graph with this TensorRT, decided before the build starts; every no is one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.engines.trt.api import TensorRt, capability_of, release_of
from edge.errors import EngineError, MissingError, UsageError
from edge.models.manifest import Manifest, Precision, Profile
from edge.models.onnx_graph import GraphFacts
from edge.packages.installed import add_extra
from export.build.graph import INTEGER_OPS, cpu_quantized_node, first_of_kind
from export.build.profiles import choose_profiles

if TYPE_CHECKING:
    from export.build.options import BuildOptions

# Xavier, Orin, Thor: CPU and GPU share one memory, and an unlimited workspace takes all of it
JETSON_CAPABILITIES = {"7.2": "Xavier", "8.7": "Orin", "10.1": "Thor", "11.0": "Thor"}
JETSON_WORKSPACE_MB = 1024
RTX_HAS_NO = {
    "NonMaxSuppression": "the runtime's head does the NMS, so export the model without it",
    "EfficientNMS_TRT": "the runtime's head does the NMS, so export the model without it",
    "NonZero": "its output size depends on the data; export the model with a fixed TopK instead",
}
# an engine that allocates nothing while it runs, so that runs can be recorded as CUDA graphs
CAPTURABLE = "REQUIRE_USER_ALLOCATION"
AMPERE = (8, 0)
RTX_NEEDS_GPU = ("REFIT", "REFIT_IDENTICAL", "STRIP_PLAN")
# these say which types are used, and --precision decides that
TYPE_FLAGS = ("FP16", "INT8", "BF16", "FP8", "INT4", "FP4", "TF32")


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What will be built.

    Attributes:
        flags: names of ``BuilderFlag`` to set.
        all_flags: the same with the settings that are no flags, for the manifest.
        has_tf32: whether convolutions and products of FP32 may round their factors to 10 bits.
        is_dynamic: whether the graph needs optimisation profiles.
        notes: sentences for the user.
    """

    precision: Precision
    strongly_typed: bool
    flags: tuple[str, ...]
    all_flags: tuple[str, ...]
    has_tf32: bool
    profiles: tuple[Profile, ...]
    targets: tuple[str, ...]
    workspace_mb: int | None
    is_dynamic: bool
    notes: tuple[str, ...]


def plan_build(
    onnx: Path, facts: GraphFacts, manifest: Manifest, options: BuildOptions, api: TensorRt, capability: str | None
) -> BuildPlan:
    """Settle types, flags, profiles and targets.

    Raises:
        EngineError: this TensorRT cannot build what was asked for.
        UsageError: the arguments contradict each other or the graph.
        MissingError: a GPU is needed and there is none.
    """
    _check_graph(onnx, facts, manifest, api)
    targets = choose_targets(api, options, capability)
    _check_options(onnx, facts, options, api, capability)
    precision, strongly_typed, type_flags = choose_types(onnx, facts, options, api)
    flags = (*type_flags, *options.flags, *(("VERSION_COMPATIBLE",) if options.version_compatible else ()))
    if api.is_rtx and api.has_flag(CAPTURABLE):
        flags = (*flags, CAPTURABLE)
    is_dynamic = any(size is None for size in facts.inputs[0].shape)
    has_tf32 = options.precision != "fp32" and any(release_of(target) >= AMPERE for target in targets)
    settings = {
        "profile_sharing": is_dynamic and api.must_ask_to_share,
        "tf32": has_tf32 and (precision == "fp32" or not _has_float16(facts)),
    }
    workspace_mb = options.workspace_mb
    if workspace_mb is None and not api.is_rtx and set(targets) & set(JETSON_CAPABILITIES):
        workspace_mb = JETSON_WORKSPACE_MB
    return BuildPlan(
        precision=precision,
        strongly_typed=strongly_typed,
        flags=flags,
        all_flags=_all_flags(flags, strongly_typed, options, settings),
        has_tf32=settings["tf32"],
        profiles=choose_profiles(
            onnx, facts, options.profiles, is_dla=options.dla_core is not None, most=manifest.max_batch
        ),
        targets=targets,
        workspace_mb=workspace_mb,
        is_dynamic=is_dynamic,
        notes=tuple(_notes(facts, options, api, strongly_typed)),
    )


def graph_precision(facts: GraphFacts) -> Precision:
    """The narrowest type that the graph's own nodes and weights use."""
    if {"QuantizeLinear", "DequantizeLinear"} <= facts.operators.keys():
        return "int8"
    return "fp16" if _has_float16(facts) else "fp32"


def choose_types(
    onnx: Path, facts: GraphFacts, options: BuildOptions, api: TensorRt
) -> tuple[Precision, bool, tuple[str, ...]]:
    """Precision, whether the network is strongly typed, and the builder flags that go with it.

    Raises:
        EngineError: the precision asked for is not in the graph and cannot be added.
    """
    graph, asked = graph_precision(facts), options.precision
    if options.calibration_cache is not None:
        return _calibrated_types(onnx, graph, asked, api)
    typed = api.is_strongly_typed(_has_float16(facts))
    if asked == "fp16" and graph == "fp32" and not typed:
        return "fp16", False, ("FP16",)
    if asked not in (None, graph):
        raise EngineError(_precision_message(onnx, graph, asked, api, typed))
    # the FP16 flag lets what is not quantized run in half, else INT8 can be slower than plain FP16
    weak = {"int8": ("INT8", "FP16"), "fp16": ("FP16",), "fp32": ()}
    flags: tuple[str, ...] = () if typed else weak[graph]
    if options.dla_core is not None and graph == "fp32":
        raise EngineError(
            f"{onnx.name}: the DLA computes in FP16 and INT8, the graph is FP32; "
            + ("add --precision fp16" if not typed else f"run: {_cast_command(onnx)}")
        )
    return graph, typed, flags


def choose_targets(api: TensorRt, options: BuildOptions, capability: str | None) -> tuple[str, ...]:
    """The compute capabilities to build for.

    Raises:
        UsageError: none was given and there is no GPU to ask.
        EngineError: this TensorRT does not build for one of them.
        MissingError: classic TensorRT without a GPU.
    """
    if not api.is_rtx:
        if capability is None:
            raise MissingError(
                f"{api.title} builds only on the GPU that the engine is for, and this machine has none; run "
                f"edge build on the device, or build for RTX cards here: {add_extra('rtx')}"
            )
        if options.targets and options.targets != (capability,):
            raise EngineError(
                f"--target {_sm(options.targets)}: {api.title} builds only for the GPU of this machine "
                f"({_sm((capability,))}); run edge build on the other device"
            )
        return (capability,)
    wanted = options.targets or ((capability,) if capability else ())
    known = api.targets()
    if not wanted:
        raise UsageError(f"no GPU here to build for; add --target with one or more of {_sm(known)}")
    for target in wanted:
        if target not in known:
            jetson = f" (Jetson {JETSON_CAPABILITIES[target]})" if target in JETSON_CAPABILITIES else ""
            raise EngineError(
                f"--target {_sm((target,))}{jetson}: {api.title} builds for {_sm(known)} only; for other GPUs install "
                "tensorrt on the device and run edge build there"
            )
    return tuple(sorted(set(wanted), key=lambda item: tuple(map(int, item.split(".")))))


def _check_graph(onnx: Path, facts: GraphFacts, manifest: Manifest, api: TensorRt) -> None:
    if len(facts.inputs) != 1 or len(facts.inputs[0].shape) != 4:
        found = ", ".join(f"{info.name} {info.shape}" for info in facts.inputs)
        raise EngineError(f"{onnx.name}: expected one input of four dimensions, found {found or 'none'}")
    spec, info = manifest.input, facts.inputs[0]
    if (spec.name, spec.dtype) != (info.name, info.dtype):
        raise EngineError(
            f"{onnx.name}: its manifest names the input {spec.name} {spec.dtype}, the graph has {info.name} "
            f"{info.dtype}; run: edge inspect {onnx} --write"
        )
    newest = api.max_opset
    if newest is not None and facts.opset > newest:
        raise EngineError(
            f"{onnx.name} has opset {facts.opset}, {api.title} reads up to {newest}; "
            f"run: edge export CHECKPOINT --out {onnx} --opset {newest}"
        )
    if {"QuantizeLinear", *INTEGER_OPS} & facts.operators.keys() and (node := cpu_quantized_node(onnx)):
        flavour = "fp16" if api.is_strongly_typed(False) else "fp32"
        raise EngineError(
            f"{onnx.name} is quantized for CPUs (node {node!r}), TensorRT takes symmetric int8 with float biases; "
            f"run on the float model: edge quantize MODEL.onnx --flavour {flavour}"
        )
    if not api.is_rtx:
        return
    for kind, advice in RTX_HAS_NO.items():
        if kind in facts.operators:
            node = first_of_kind(onnx, kind)
            raise EngineError(f"{onnx.name}: node {node!r} is {kind}, which {api.title} cannot build; {advice}")


def _check_options(onnx: Path, facts: GraphFacts, options: BuildOptions, api: TensorRt, capability: str | None) -> None:
    for name in options.flags:
        _check_flag(name, api, capability)
    if api.is_rtx:
        _check_rtx_options(options, api)
    if options.hardware_compatible and capability in JETSON_CAPABILITIES:
        raise EngineError("--hardware-compatible: TensorRT offers it for desktop GPUs only, this is a Jetson")
    if options.dla_core is not None and "QuantizeLinear" in facts.operators and not api.is_always_strongly_typed:
        raise EngineError(
            f"{onnx.name}: before TensorRT 11 the DLA takes no Q/DQ nodes; build the FP32 model with "
            "--dla and --calibration-cache RANGES.json (run: edge calibrate)"
        )
    cache = options.calibration_cache
    if cache is not None and not cache.is_file():
        raise UsageError(f"--calibration-cache {cache}: no such file; run: edge calibrate {onnx}")


def _check_flag(name: str, api: TensorRt, capability: str | None) -> None:
    if name in TYPE_FLAGS:
        raise UsageError(f"--flag {name}: types are chosen with --precision")
    if not api.has_flag(name):
        raise EngineError(f"--flag {name}: {api.title} has no such builder flag")
    if api.is_rtx and capability is None and name in RTX_NEEDS_GPU:
        raise EngineError(f"--flag {name}: {api.title} needs a GPU for it, and this machine has none; leave it out")


def _check_rtx_options(options: BuildOptions, api: TensorRt) -> None:
    refused = {
        "--dla": (options.dla_core is not None, "it runs on RTX cards, which have no DLA"),
        "--version-compatible": (options.version_compatible, "it has no lean runtime; build again for each version"),
        "--hardware-compatible": (options.hardware_compatible, "list the GPUs instead: --target sm86,sm89,sm120"),
    }
    for option, (is_asked, reason) in refused.items():
        if is_asked:
            raise EngineError(f"{option}: {api.title} does not offer it; {reason}")


def _calibrated_types(
    onnx: Path, graph: Precision, asked: Precision | None, api: TensorRt
) -> tuple[Precision, bool, tuple[str, ...]]:
    if not api.has_calibrators:
        raise EngineError(
            f"--calibration-cache: {api.title} takes Q/DQ nodes only; run: edge quantize {onnx} --ranges RANGES.json"
        )
    if graph != "fp32" or asked not in (None, "int8"):
        raise EngineError(
            f"--calibration-cache: it makes INT8 of an FP32 graph, {onnx.name} is {graph} and "
            f"--precision is {asked or 'not given'}; give the FP32 model"
        )
    return "int8", False, ("INT8", "FP16")


def _precision_message(onnx: Path, graph: Precision, asked: Precision | None, api: TensorRt, typed: bool) -> str:
    if asked == "int8":
        return (
            f"{onnx.name}: --precision int8 was asked for, the graph has no Q/DQ nodes ({graph}); "
            f"run: edge quantize {onnx} --ranges RANGES.json"
        )
    if asked == "fp16" and graph == "fp32" and typed:
        return (
            f"{onnx.name}: --precision fp16 was asked for, the graph is FP32 and {api.title} keeps the graph's types; "
            f"run: {_cast_command(onnx)}"
        )
    return f"{onnx.name}: --precision {asked} was asked for, the graph is {graph}; build without --precision"


def _cast_command(onnx: Path) -> str:
    return f"edge quantize {onnx} --data DATASET --precision fp16"


def _all_flags(
    flags: tuple[str, ...], strongly_typed: bool, options: BuildOptions, settings: Mapping[str, bool]
) -> tuple[str, ...]:
    extra = {
        "strongly_typed": strongly_typed,
        "calibrated": options.calibration_cache is not None,
        "hardware_compatible": options.hardware_compatible,
        "version_compatible": options.version_compatible,
        f"optimization_level={options.optimization_level}": options.optimization_level is not None,
        **settings,
    }
    return (*sorted(flags), *(name for name, is_set in extra.items() if is_set))


def _notes(facts: GraphFacts, options: BuildOptions, api: TensorRt, strongly_typed: bool) -> list[str]:
    notes = []
    if strongly_typed and graph_precision(facts) == "int8" and not _has_float16(facts):
        notes.append("layers without Q/DQ run in FP32; quantize with an FP16 rest for speed")
    if api.is_rtx and options.timing_cache is not None:
        notes.append(f"{api.title} has no timing cache; --timing-cache was not used")
    if not api.has_progress:
        notes.append(f"{api.title} tells no progress; builds take minutes on a Jetson")
    return notes


def _has_float16(facts: GraphFacts) -> bool:
    tensors = (*facts.inputs, *facts.outputs)
    return "float16" in facts.weight_bytes or any(info.dtype == "float16" for info in tensors)


def _sm(capabilities: tuple[str, ...]) -> str:
    return ",".join("sm" + capability_of(item).replace(".", "") for item in capabilities)
