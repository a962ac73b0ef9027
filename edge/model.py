"""A model file made ready: manifest, engine, head and preprocessing together. Runs alike for cameras and data sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.engines.ahead import AheadEngine
from edge.engines.choose import open_engine
from edge.engines.null import NullEngine
from edge.engines.pinning import pinned
from edge.errors import EngineError, ManifestError, ModelError
from edge.heads.choose import open_head
from edge.interfaces import Engine, FrameEngine, Head
from edge.models.manifest import Manifest, parse_manifest, read_sidecar
from edge.models.preprocess import Preprocessor
from edge.models.propose import propose_manifest
from edge.types import Array, Letterbox, Prediction, UInt8

if TYPE_CHECKING:
    from edge.config.schema import ModelConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """A batch on its way. Attributes: its letterboxes; the tensor, None where the engine has it already."""

    letterboxes: Sequence[Letterbox]
    tensor: Array | None


class Model:
    """A loaded model. Used by one thread."""

    def __init__(self, manifest: Manifest, engine: Engine, head: Head) -> None:
        self.manifest = manifest
        self.engine = engine
        self.head = head
        self.preprocessor = Preprocessor(manifest.input, engine.max_batch)
        self._frame_engine = engine if isinstance(engine, FrameEngine) else None

    @property
    def overlaps(self) -> bool:
        """Whether a batch may be started while the one before it runs."""
        return self._frame_engine is not None

    def start(self, images: Sequence[UInt8]) -> Started:
        """Fit up to ``max_batch`` (H, W, 3) uint8 BGR images in, and set off at once where the engine can.

        Raises:
            EngineError: the batch cannot be started.
        """
        if self._frame_engine is not None:
            return Started(self._frame_engine.submit_frames(images), None)
        tensor, letterboxes = self.preprocessor.images(images, pad_to=self.batch_size)
        return Started(letterboxes, tensor)

    def finish(self, started: Started) -> Mapping[str, Array]:
        """The outputs of the batch that was started first; the engine may reuse them in the next batch but one.

        Raises:
            EngineError: the engine failed.
        """
        if started.tensor is not None:
            return self.engine.infer(started.tensor)
        assert self._frame_engine is not None
        return self._frame_engine.collect()

    def predict(self, images: Sequence[UInt8]) -> list[Prediction]:
        """One prediction per (H, W, 3) uint8 BGR image, any number of images."""
        step = self.engine.max_batch
        found: list[Prediction] = []
        for start in range(0, len(images), step):
            started = self.start(images[start : start + step])
            found += self.head.decode(self.finish(started), started.letterboxes)
        return found

    @property
    def batch_size(self) -> int:
        """Rows that every batch must have; 0 where any number goes."""
        return self.engine.max_batch if self.engine.is_fixed_batch else 0

    def close(self) -> None:
        self.engine.close()


def open_model(
    path: Path,
    *,
    manifest: Path | Manifest | None = None,
    engine: str = "auto",
    threads: int | None = None,
    max_batch: int | None = None,
    score: float | None = None,
    is_ahead: bool = False,
    cores: Sequence[int] = (),
    is_shared: bool = False,
) -> Model:
    """Load a model file with everything that it needs.

    Args:
        path: ``.onnx`` or ``.engine``.
        manifest: where the manifest is; None looks beside the model, in its metadata, then proposes one.
        engine: see ``edge.interfaces.EngineName``.
        threads: of a CPU engine.
        max_batch: largest batch of a model with a dynamic batch; None for the engine's own choice.
        score: least score that the head lets through, instead of the manifest's ``track_score``.
        is_ahead: give an engine that cannot take a batch while one runs a thread in which it can.
        cores: of the processor, that the engine's own threads shall keep to; none for all.
        is_shared: several streams will fill batches.

    Raises:
        ModelError: the file cannot be used, or its manifest does not fit it.
        MissingError: the engine's library is not installed.
    """
    found = find_manifest(path, manifest)
    if score is not None:
        thresholds = found.thresholds.model_copy(update={"track_score": score})
        found = found.model_copy(update={"thresholds": thresholds})
    with pinned(cores):
        # threads that the engine's library starts inherit the cores of this one
        loaded = open_engine(path, found, kind=engine, threads=threads, max_batch=max_batch, is_shared=is_shared)
    _check_input(found, loaded, path)
    if is_ahead and not isinstance(loaded, (FrameEngine, NullEngine)):
        loaded = AheadEngine(loaded, found.input, cores)
    return Model(found, loaded, open_head(found))


def load_model(config: ModelConfig, *, is_ahead: bool = False, is_shared: bool = False) -> Model:
    """The model that a ``[model]`` names, as ``open_model`` opens it.

    Raises:
        EdgeError: it cannot be used.
    """
    return open_model(
        config.path,
        manifest=config.manifest,
        engine=config.engine,
        threads=config.threads,
        max_batch=config.max_batch,
        is_ahead=is_ahead,
        cores=config.cores,
        is_shared=is_shared,
    )


def find_manifest(path: Path, manifest: Path | Manifest | None = None) -> Manifest:
    """The manifest of a model file: the given one, the one beside it, the one in its metadata, or a proposed one."""
    if isinstance(manifest, Manifest):
        return manifest
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    if manifest is not None:
        try:
            return parse_manifest(manifest.read_text(), str(manifest))
        except OSError as error:
            raise ManifestError(f"{manifest}: cannot be read ({error.strerror})") from None
    beside = read_sidecar(path)
    if beside is not None:
        return beside
    proposal = propose_manifest(path)
    if not proposal.is_own:
        log.info("%s has no manifest; proposed from its graph: %s", path.name, proposal.summary)
    return proposal.manifest


def _check_input(manifest: Manifest, engine: Engine, path: Path) -> None:
    """Refuse a manifest that describes another input than the engine has."""
    spec, found = manifest.input, engine.inputs[0]
    size = (spec.height, spec.width)
    expected = (*size, 3) if spec.layout == "nhwc" else (3, *size)
    shape_fits = len(found.shape) == 4 and all(
        have is None or have == want for have, want in zip(found.shape[1:], expected, strict=True)
    )
    if not shape_fits or found.dtype != spec.dtype:
        raise ManifestError(
            f"{path.name}: the manifest says input {spec.dtype} {expected}, the model has {found.dtype} "
            f"{found.shape[1:]}; run: edge inspect {path} --write"
        )
    _check_outputs(manifest, engine, path)


def _check_outputs(manifest: Manifest, engine: Engine, path: Path) -> None:
    names = {tensor.name for tensor in engine.outputs}
    if manifest.head == "edgenet" and not {"boxes", "scores", "labels"} <= names:
        raise ManifestError(
            f"{path.name}: head 'edgenet' needs outputs boxes, scores, labels, the model has "
            f"{', '.join(sorted(names))}; run: edge inspect {path}"
        )
    if manifest.task != "detect" and len(names) != 1:
        raise ManifestError(f"{path.name}: head {manifest.head!r} needs one output, the model has {len(names)}")


def check_finite(model: Model, image: UInt8) -> None:
    """Run one image and refuse a model whose outputs are not numbers.

    Raises:
        EngineError: NaN or infinity came out.
    """
    tensor, _ = model.preprocessor.images([image], pad_to=model.batch_size)
    for name, values in model.engine.infer(tensor).items():
        if values.dtype.kind == "f" and not bool((abs(values) < float("inf")).all()):
            raise EngineError(f"{model.manifest.name}: output {name!r} is not finite; was FP16 too narrow for it?")
