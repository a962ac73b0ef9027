"""ONNX → TensorRT engine and its manifest: the one place where engines are built, and never half-written."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.engines.trt.api import TensorRt
from edge.engines.trt.callbacks import BuildListener
from edge.errors import EngineError, UsageError
from edge.files import atomic_path, sha256_of
from edge.model import find_manifest
from edge.models.manifest import EngineSpec, Manifest, Profile, content_hash, manifest_path
from edge.models.onnx_graph import read_graph
from export.build.failures import explain
from export.build.limits import BuildPlan, plan_build
from export.build.options import BuildOptions
from export.build.report import LayerReport, report_layers

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished engine.

    Attributes:
        layers: every layer that computes, with the precision that the network asks for.
        fallbacks: layers that run on the GPU although the DLA was asked for.
        notes: what the user should know, one sentence each.
    """

    engine: Path
    manifest: Manifest
    layers: tuple[LayerReport, ...]
    fallbacks: tuple[str, ...]
    notes: tuple[str, ...]
    num_bytes: int
    seconds: float


def build_engine(
    onnx: Path,
    out: Path,
    options: BuildOptions,
    api: TensorRt,
    *,
    manifest: Manifest | None = None,
    capability: str | None = None,
    listener: BuildListener | None = None,
) -> BuildResult:
    """Build an engine and write it with its manifest; both files appear whole or not at all.

    Args:
        out: the engine file; its manifest goes next to it as ``.json``.
        manifest: of the ONNX file, None finds it.
        capability: compute capability of this machine's GPU, None without one.
        listener: hears the progress and may cancel.

    Raises:
        EngineError: it cannot be built as asked for; the message names the layer, or what to change.
        UsageError: the arguments contradict each other.
        ModelError: the ONNX file cannot be read or described.
    """
    _check_paths(onnx, out)
    facts = read_graph(onnx)
    described = find_manifest(onnx, manifest)
    plan = plan_build(onnx, facts, described, options, api, capability)
    started = time.monotonic()
    job = _Job(onnx, plan, options, api, described)
    data = job.run(_Gate(listener))
    seconds = time.monotonic() - started
    spec = _spec(onnx, plan, options, api)
    built = described.model_copy(update={"precision": plan.precision, "engine": spec})
    complete = _write(out, data, built)
    return BuildResult(out, complete, job.layers, job.fallbacks, plan.notes, len(data), seconds)


def identity(manifest: Manifest) -> str:
    """Hash of an engine's manifest without the hash of its file, whose bytes differ from build to build."""
    return content_hash(manifest.model_dump(mode="json", exclude={"sha256"}))


def parse_batch(text: str) -> Profile:
    """``"1:4:16"`` (smallest, most likely, largest) or ``"4"`` (always 4).

    Raises:
        UsageError: neither of them, or not ascending.
    """
    parts = text.split(":")
    sizes = [int(part) for part in parts if part.isascii() and part.isdecimal()]
    if len(parts) not in (1, 3) or len(sizes) != len(parts) or sizes[0] < 1 or sizes != sorted(sizes):
        raise UsageError(f"--batch: expected SMALLEST:LIKELY:LARGEST such as 1:4:16, or one number, found {text!r}")
    return Profile(min_batch=sizes[0], opt_batch=sizes[len(sizes) // 2], max_batch=sizes[-1])


def default_out(onnx: Path, targets: tuple[str, ...]) -> Path:
    """``street-sm89.engine`` next to ``street.onnx``: another stem, for each file has a manifest of its own name."""
    suffix = "".join(f"-sm{target.replace('.', '')}" for target in targets)
    return onnx.with_name(f"{onnx.stem}{suffix or '-engine'}.engine")


class _Gate:
    """Passes progress on; once closed, the next step cancels the build."""

    def __init__(self, listener: BuildListener | None) -> None:
        self._listener = listener
        self.is_cancelled = False

    def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
        if self._listener is not None:
            self._listener.phase_start(name, parent, num_steps)

    def step(self, name: str, done: int) -> bool:
        wants_more = self._listener is None or self._listener.step(name, done)
        self.is_cancelled = self.is_cancelled or not wants_more
        return not self.is_cancelled

    def phase_finish(self, name: str) -> None:
        if self._listener is not None:
            self._listener.phase_finish(name)


class _Job:
    """One build: holds the objects of TensorRT, which must live until it is over."""

    def __init__(self, onnx: Path, plan: BuildPlan, options: BuildOptions, api: TensorRt, manifest: Manifest) -> None:
        self._onnx, self._plan, self._options, self._api = onnx, plan, options, api
        self._builder = api.builder()
        self._config = self._builder.create_builder_config()
        if options.dla_core is not None:
            api.set_dla(self._builder, self._config, options.dla_core)
        self._network = api.network(self._builder, plan.strongly_typed)
        is_dla = options.dla_core is not None
        self._parser = api.parse(self._network, self._config, onnx.read_bytes(), str(onnx), is_dla)
        self._configure(manifest)
        self.layers = report_layers(self._network, plan.flags, has_tf32=plan.has_tf32)
        self.fallbacks = api.dla_fallbacks(self._network, self._config) if is_dla else ()

    def run(self, gate: _Gate) -> bytes:
        """Build; Ctrl-C lets TensorRT finish its step and stops."""
        monitor = self._api.progress_monitor(gate)
        if monitor is not None:
            self._config.progress_monitor = monitor
        self._load_timing_cache()
        self._api.messages.clear()
        data = self._build(gate)
        if gate.is_cancelled:
            raise EngineError(f"{self._onnx.name}: the build was cancelled; nothing was written")
        if data is None:
            raise EngineError(explain(self._onnx.name, self._api, [layer.name for layer in self.layers]))
        self._save_timing_cache()
        return bytes(data)

    def _build(self, gate: _Gate) -> Any:
        # in a thread of its own, so that the main thread hears Ctrl-C while TensorRT computes
        with ThreadPoolExecutor(1, "engine-build") as pool:
            try:
                return pool.submit(self._builder.build_serialized_network, self._network, self._config).result()
            except KeyboardInterrupt:
                gate.is_cancelled = True
                return None

    def _configure(self, manifest: Manifest) -> None:
        api, config, plan, options = self._api, self._config, self._plan, self._options
        api.set_flags(config, plan.flags)
        if options.precision == "fp32":
            api.clear_flags(config, ["TF32"])
        api.set_targets(config, plan.targets)
        api.set_detailed(config)
        if plan.workspace_mb is not None:
            api.set_workspace(config, plan.workspace_mb * MIB)
        if options.hardware_compatible:
            api.set_hardware_compatible(config)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.calibration_cache is not None:
            api.set_calibration(config, _calibration(self._onnx, options.calibration_cache, api))
        if plan.is_dynamic:
            api.share_profiles(config)
            for profile in plan.profiles:
                self._add_profile(profile, manifest)

    def _add_profile(self, batch: Profile, manifest: Manifest) -> None:
        tensor = self._network.get_input(0)
        spec = manifest.input
        size = (spec.height, spec.width, 3) if spec.layout == "nhwc" else (3, spec.height, spec.width)
        profile = self._builder.create_optimization_profile()
        profile.set_shape(tensor.name, (batch.min_batch, *size), (batch.opt_batch, *size), (batch.max_batch, *size))
        self._config.add_optimization_profile(profile)

    def _timing_cache_path(self) -> Path | None:
        if self._options.timing_cache is None or self._api.is_rtx:
            return None
        key = "-".join(f"sm{target.replace('.', '')}" for target in self._plan.targets)
        return self._options.timing_cache / f"tensorrt-{self._api.version}-{key}.timing"

    def _load_timing_cache(self) -> None:
        path = self._timing_cache_path()
        if path is not None:
            self._api.use_timing_cache(self._config, path.read_bytes() if path.is_file() else b"")

    def _save_timing_cache(self) -> None:
        path = self._timing_cache_path()
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(self._api.timing_cache(self._config))


def _check_paths(onnx: Path, out: Path) -> None:
    if manifest_path(onnx) == manifest_path(out):
        raise UsageError(
            f"{out.name} and {onnx.name} would share the manifest {manifest_path(out).name}; "
            f"give the engine another name, such as --out {onnx.stem}-engine.engine"
        )
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist")


def _spec(onnx: Path, plan: BuildPlan, options: BuildOptions, api: TensorRt) -> EngineSpec:
    onnx_sha256 = sha256_of(onnx)
    cache = options.calibration_cache
    inputs = {
        "onnx": onnx_sha256,
        "flavour": api.flavour,
        "version": api.version,
        "flags": plan.all_flags,
        "profiles": [profile.model_dump() for profile in plan.profiles],
        "targets": plan.targets,
        "workspace_mb": plan.workspace_mb,
        "dla_core": options.dla_core,
        "calibration": hashlib.sha256(_calibration(onnx, cache, api)).hexdigest() if cache else None,
    }
    return EngineSpec(
        flavour=api.flavour,
        version=api.version,
        compute_capabilities=plan.targets,
        profiles=plan.profiles,
        flags=plan.all_flags,
        dla_core=options.dla_core,
        inputs_sha256=content_hash(inputs),
        onnx_sha256=onnx_sha256,
    )


def _calibration(onnx: Path, cache: Path, api: TensorRt) -> bytes:
    if cache.suffix != ".json":
        return cache.read_bytes()
    from export.build.calibration_cache import cache_of

    return cache_of(onnx, cache, api.version).encode()


def _write(out: Path, data: bytes, manifest: Manifest) -> Manifest:
    complete = manifest.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    with atomic_path(manifest_path(out)) as json_file, atomic_path(out) as engine_file:
        engine_file.write_bytes(data)
        json_file.write_text(complete.to_json(), encoding="utf-8")
    return complete
