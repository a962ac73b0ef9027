"""A model file made ready: manifest, engine, head and preprocessing together. Runs alike for cameras and data sets."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np

from edge.config.remote import RemoteSettings
from edge.engines.ahead import AheadEngine
from edge.engines.choose import PLAN_SUFFIXES, Server, open_engine
from edge.engines.choose import is_plugin as is_foreign_engine
from edge.engines.guarded import GuardedEngine
from edge.engines.null import NullEngine
from edge.engines.pinning import pinned
from edge.engines.trt.plan_header import read_header
from edge.errors import EngineError, ManifestError, PartError
from edge.files import sha256_of
from edge.heads.choose import is_plugin as is_foreign_head
from edge.heads.choose import open_head
from edge.interfaces import Engine, FrameEngine, Head, PlaneEngine, RemoteEngine, TensorInfo
from edge.models.engine_header import manifest_of_engine
from edge.models.manifest import Manifest, parse_manifest, read_sidecar
from edge.models.preprocess import Preprocessor
from edge.models.probe import is_proved, proof_of, prove
from edge.models.propose import Proposal, check_against_graph, propose_manifest
from edge.packages.plugins import check_prediction
from edge.pictures.planes import Planes
from edge.threads.guard import PART_LIMIT_S, Guard
from edge.types import Array, Detections, Letterbox, Prediction, UInt8

if TYPE_CHECKING:
    from edge.config.schema import ModelSettings
    from edge.metrics.stages import ModelStage, Stage
    from edge.models.tiles import TileGrid

log = logging.getLogger(__name__)


# looks at the raw outputs of a batch and may raise EngineError; padding rows are cut off before
OutputCheck: TypeAlias = Callable[[Mapping[str, Array]], None]
# an engine that takes a batch while one runs takes no third
MAX_UNDER_WAY = 2
# of a batch, where an installed package brings the engine
ENGINE_LIMIT_S = 2.0


@dataclass(slots=True)
class _Part:
    """As many pictures as the engine takes at once. Attributes: when the engine had them, monotonic ns."""

    letterboxes: Sequence[Letterbox]
    left_ns: int


class Batch:
    """Pictures on their way through a model; made by ``Model.submit``."""

    def __init__(
        self,
        model: Model,
        images: Sequence[UInt8 | Planes],
        grids: Sequence[TileGrid | None],
        check: OutputCheck | None,
        owners: Sequence[str],
    ) -> None:
        self._model = model
        # whose each view is; empty where nothing has to be contained
        self._owners = owners
        self._images = images
        self._grids = grids
        self._check = check
        self._parts: deque[_Part] = deque()
        self._found: list[Prediction] = []
        self._spent_ns: dict[ModelStage, int] = {"letterbox": 0, "infer": 0, "head": 0}

    def wait(self) -> tuple[list[Prediction], dict[Stage, int]]:
        """Wait for the end. Call it once.

        Returns:
            One prediction per picture, in order; and the nanoseconds of each stage, per picture.

        Raises:
            EngineError: the engine failed, or ``check`` refused its outputs.
        """
        while self._parts:
            self.collect()
        merging_ns = time.monotonic_ns()
        predictions = self._merged()
        self._spent_ns["head"] += time.monotonic_ns() - merging_ns
        count = max(1, len(self._images))
        return predictions, {stage: time_ns // count for stage, time_ns in self._spent_ns.items()}

    def begin(self, images: Sequence[UInt8 | Planes]) -> None:
        """Fit up to ``max_batch`` pictures in and give them to the engine; one that cannot overlap answers now."""
        started_ns = time.monotonic_ns()
        letterboxes, tensor = self._model.fit_in(images)
        left_ns = time.monotonic_ns()
        self._spent_ns["letterbox"] += left_ns - started_ns
        part = _Part(letterboxes, left_ns)
        if tensor is None:
            self._parts.append(part)
        else:
            self._finish(part, lambda: self._model.engine.infer(tensor))

    def collect(self) -> None:
        """Wait for the part that was begun first."""
        self._finish(self._parts.popleft(), lambda: self._model.outputs_of(self))

    def _finish(self, part: _Part, run: Callable[[], Mapping[str, Array]]) -> None:
        """Take the outputs of a part and decode them; where its failure is contained, nothing is found in it."""
        try:
            outputs = run()
        except EngineError:
            if not self._owners:
                raise
            self._found += [Detections.empty()] * len(part.letterboxes)
            return
        self._decode(part, outputs)

    def _decode(self, part: _Part, outputs: Mapping[str, Array]) -> None:
        landed_ns = time.monotonic_ns()
        self._spent_ns["infer"] += landed_ns - part.left_ns
        if self._check is not None:
            self._check({name: values[: len(part.letterboxes)] for name, values in outputs.items()})
        if self._owners:
            owners = self._owners[len(self._found) : len(self._found) + len(part.letterboxes)]
            found = self._model.decode_contained(outputs, part.letterboxes, owners)
        else:
            found = self._model.head.decode(outputs, part.letterboxes)
        self._found += [self._model.named(one) for one in found]
        self._spent_ns["head"] += time.monotonic_ns() - landed_ns

    def _merged(self) -> list[Prediction]:
        """One prediction per picture: what was found in its tiles put together."""
        found = iter(self._found)
        iou = self._model.manifest.thresholds.iou
        merged: list[Prediction] = []
        for image, grid in zip(self._images, self._grids, strict=True):
            if grid is None:
                merged.append(next(found))
                continue
            parts = [part for part in itertools.islice(found, grid.num_pictures) if isinstance(part, Detections)]
            merged.append(grid.merge(parts, *Planes.of(image).size, iou))
        return merged


class Model:
    """A loaded model. Used by one thread. ``is_foreign``: an installed package brings its engine or its head."""

    def __init__(
        self,
        manifest: Manifest,
        engine: Engine,
        head: Head,
        engine_guard: Guard | None = None,
        remote: RemoteEngine | None = None,
    ) -> None:
        """Args: its parts; what guards the engine of an installed package; the engine behind ``engine`` on a server."""
        self.manifest = manifest
        self.remote = remote
        self._engine_guard = engine_guard
        self.is_foreign = engine_guard is not None or is_foreign_head(manifest.head)
        # of the decoding for each stream
        self._head_guards: dict[str, Guard] = {}
        self.engine = engine
        self.head = head
        self.preprocessor = Preprocessor(manifest.input, engine.max_batch)
        self._frame_engine = engine if isinstance(engine, FrameEngine) else None
        self._plane_engine = engine if isinstance(engine, PlaneEngine) else None
        # whose parts the engine works on, oldest first: it gives them back in that order
        self._under_way: deque[Batch] = deque()

    def submit(
        self,
        images: Sequence[UInt8 | Planes],
        grids: Sequence[TileGrid | None] | None = None,
        check: OutputCheck | None = None,
        owners: Sequence[str] | None = None,
    ) -> Batch:
        """Send pictures off. An engine that cannot take a batch while one runs has the answer when this returns.

        Args:
            images: any number of pictures, (H, W, 3) uint8 BGR or planes; they must not change before the batch is
                waited for.
            grids: how each is cut into tiles, None for whole ones.
            check: sees the raw outputs before they are decoded, and may raise EngineError.
            owners: the stream of each picture: what parts of installed packages do wrong then costs the predictions of
                these pictures, and raises nothing. None: it raises.

        Raises:
            EngineError: the engine failed, or ``check`` refused its outputs.
        """
        grids = [None] * len(images) if grids is None else grids
        cut: list[list[UInt8 | Planes]] = [
            [image] if grid is None else grid.cut(image) for image, grid in zip(images, grids, strict=True)
        ]
        views = [view for part in cut for view in part]
        contained: list[str] = []
        if self.is_foreign and owners is not None:
            contained = [owner for owner, part in zip(owners, cut, strict=True) for _ in part]
        batch = Batch(self, images, grids, check, contained)
        step = self.engine.max_batch
        for start in range(0, len(views), step):
            if len(self._under_way) == MAX_UNDER_WAY:
                self._under_way[0].collect()
            batch.begin(views[start : start + step])
            if self._frame_engine is not None:
                self._under_way.append(batch)
        return batch

    @overload
    def __call__(self, images: UInt8) -> Prediction: ...

    @overload
    def __call__(self, images: Sequence[UInt8]) -> list[Prediction]: ...

    def __call__(self, images: UInt8 | Sequence[UInt8]) -> Prediction | list[Prediction]:
        """What the model finds in a picture, or in each of a list of pictures.

        Args:
            images: (H, W, 3) uint8 BGR, as OpenCV reads them.

        Raises:
            ValueError: an array of another shape or type.
            EngineError: the engine failed.
        """
        pictures = [images] if isinstance(images, np.ndarray) else list(images)
        for picture in pictures:
            _refuse_no_picture(picture)
        found = self.predict(pictures)
        return found[0] if isinstance(images, np.ndarray) else found

    def predict(self, images: Sequence[UInt8 | Planes], check: OutputCheck | None = None) -> list[Prediction]:
        """One prediction per picture, BGR or planes, any number of pictures; raises as ``submit`` does."""
        return self.submit(images, check=check).wait()[0]

    def named(self, prediction: Prediction) -> Prediction:
        """The prediction with the names of the model's classes."""
        if not isinstance(prediction, Detections) or prediction.classes:
            return prediction
        return replace(prediction, classes=tuple(self.manifest.classes))

    def fit_in(self, images: Sequence[UInt8 | Planes]) -> tuple[Sequence[Letterbox], Array | None]:
        """Fit pictures into the input: how each was, and the tensor, None where the engine has it already."""
        if self._plane_engine is not None and self._plane_engine.takes_planes:
            return self._plane_engine.submit_frames(images), None
        if self._frame_engine is not None:
            return self._frame_engine.submit_frames([Planes.of(image).bgr for image in images]), None
        tensor, letterboxes = self.preprocessor.images(images, pad_to=self.batch_size)
        return letterboxes, tensor

    def outputs_of(self, batch: Batch) -> Mapping[str, Array]:
        """The outputs of the oldest part under way, which must be this batch's."""
        assert self._frame_engine is not None
        oldest = self._under_way.popleft()
        assert oldest is batch
        return self._frame_engine.collect()

    def decode_contained(
        self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox], owners: Sequence[str]
    ) -> list[Prediction]:
        """As ``Head.decode``, one row after the other: what fails for a stream costs that stream's picture alone."""
        found: list[Prediction] = []
        for row, (letterbox, owner) in enumerate(zip(letterboxes, owners, strict=True)):
            decode = partial(
                self._decode_row, {key: values[row : row + 1] for key, values in outputs.items()}, letterbox
            )
            try:
                found.append(self._head_guard(owner).call(decode))
            except PartError:
                found.append(Detections.empty())
        return found

    def _decode_row(self, outputs: Mapping[str, Array], letterbox: Letterbox) -> Prediction:
        (prediction,) = self.head.decode(outputs, [letterbox])
        return check_prediction(prediction, len(self.manifest.classes))

    def guards(self, owner: str) -> list[Guard]:
        """What guards the parts of installed packages that work for a stream."""
        head = self._head_guards.get(owner)
        return [guard for guard in (self._engine_guard, head) if guard is not None]

    def release(self, owner: str) -> None:
        """A stream was removed; what was switched off for it is on again if it comes back."""
        guard = self._head_guards.pop(owner, None)
        if guard is not None:
            guard.end()

    def _head_guard(self, owner: str) -> Guard:
        if owner not in self._head_guards:
            self._head_guards[owner] = Guard(f"{owner}: head {self.manifest.head!r}", PART_LIMIT_S, is_shared=True)
        return self._head_guards[owner]

    @property
    def has_answer(self) -> bool:
        """Whether the oldest batch under way can be waited for without waiting; only of a model on a server."""
        return isinstance(self.engine, AheadEngine) and self.engine.has_answer

    def tell_answers(self, on_answer: Callable[[], object]) -> None:
        """Have a function called whenever a batch is answered, in another thread; only of a model on a server."""
        assert isinstance(self.engine, AheadEngine)
        self.engine.on_answer = on_answer

    @property
    def batch_size(self) -> int:
        """Rows that every batch must have; 0 where any number goes."""
        return self.engine.max_batch if self.engine.is_fixed_batch else 0

    def close(self) -> None:
        """Free everything. May be called twice."""
        for guard in tuple(self._head_guards.values()):
            guard.end()
        self.engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse_no_picture(picture: object) -> None:
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        facts = f"{picture.shape} {picture.dtype}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ValueError(f"expected a picture (H, W, 3) uint8 BGR, as cv2.imread gives it; found {facts}")


def open_model(
    path: str | Path,
    *,
    manifest: str | Path | Manifest | None = None,
    engine: str = "auto",
    threads: int | None = None,
    max_batch: int | None = None,
    device: int = 0,
    score: float | None = None,
    is_ahead: bool = False,
    cores: Sequence[int] = (),
    is_shared: bool = False,
    url: str | None = None,
    remote: RemoteSettings | None = None,
) -> Model:
    """Load a model file with everything that it needs.

    Args:
        path: ``.onnx`` or ``.engine``.
        manifest: where the manifest is; None looks next to the model, in its metadata, then proposes one.
        engine: see ``edge.interfaces.EngineName``; or the engine of an installed package.
        threads: of a CPU engine.
        max_batch: largest batch of a model with a dynamic batch; None for the engine's own choice.
        device: number of the GPU of engines that use one, as nvidia-smi counts.
        score: least score that the head lets through, instead of the manifest's ``track_score``.
        is_ahead: as the pipeline runs it: an engine that cannot take a batch while one runs has a thread in which it
            can, and that of an installed package has a deadline.
        cores: of the processor, that the engine's own threads shall keep to; none for all.
        is_shared: several streams will fill batches.
        url: of the server that runs it, ``grpc://HOST:PORT``, with ``engine="kserve"``; of the model itself only the
            manifest is needed here.
        remote: how the server is spoken to.

    Raises:
        ModelError: the file cannot be used, or its manifest does not fit it.
        MissingError: the engine's library is not installed.
    """
    path = Path(path)
    server = None if url is None else Server(url, remote or RemoteSettings())
    proposal = _proposal(path, Path(manifest) if isinstance(manifest, str) else manifest, is_here=server is None)
    found = proposal.manifest
    if score is not None:
        thresholds = found.thresholds.model_copy(update={"track_score": score})
        found = found.model_copy(update={"thresholds": thresholds})

    def opened(manifest: Manifest) -> Engine:
        with pinned(cores):
            # threads that the engine's library starts inherit the cores of this one
            return open_engine(
                path,
                manifest,
                kind=engine,
                threads=threads,
                max_batch=max_batch,
                device=device,
                is_shared=is_shared,
                server=server,
            )

    loaded = opened(found)
    if server is not None:
        return _connected(path, found, loaded, is_ahead=is_ahead)
    _check_input(found, loaded, path)
    # a part of another package knows what it reads, and what it gives is checked as it comes
    is_foreign = is_foreign_engine(engine) or is_foreign_head(found.head)
    if not isinstance(loaded, NullEngine) and not is_foreign and not is_proved(found):
        found = _proved(found, proposal, loaded, path)
        if found.max_batch is not None and found.max_batch < loaded.max_batch:
            loaded.close()
            loaded = opened(found)
    guard = None
    if is_ahead and is_foreign_engine(engine):
        guard = Guard(f"{path.name}: engine {engine!r}", ENGINE_LIMIT_S, is_shared=True)
        loaded = GuardedEngine(loaded, guard)
    if is_ahead and not isinstance(loaded, (FrameEngine, NullEngine)):
        loaded = AheadEngine(loaded, found.input, cores)
    return Model(found, loaded, open_head(found), guard)


def _connected(path: Path, manifest: Manifest, engine: Engine, *, is_ahead: bool) -> Model:
    """The model of a server. Raises: ModelError: see ``edge.engines.kserve.KserveEngine.connect``."""
    from edge.engines.kserve import KserveEngine

    assert isinstance(engine, KserveEngine)
    engine.connect(lambda inputs, outputs: _check_tensors(manifest, inputs, outputs, path), may_wait=is_ahead)
    remote: RemoteEngine = engine
    shown = AheadEngine(engine, manifest.input) if is_ahead else engine
    return Model(manifest, shown, open_head(manifest), remote=remote)


def load_model(config: ModelSettings, *, is_ahead: bool = False, is_shared: bool = False) -> Model:
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
        device=config.device,
        is_ahead=is_ahead,
        cores=config.cores,
        is_shared=is_shared,
        url=config.url,
        remote=config.remote,
    )


def find_manifest(path: Path, manifest: Path | Manifest | None = None) -> Manifest:
    """The manifest of a model file: the given one, the one next to it, the one in its metadata, or a proposed one."""
    return _proposal(path, manifest).manifest


def _proposal(path: Path, manifest: Path | Manifest | None, *, is_here: bool = True) -> Proposal:
    """As ``find_manifest``, with the other readings of a file that has no manifest; which may be elsewhere."""
    if isinstance(manifest, Manifest):
        return Proposal(manifest)
    if manifest is None and not is_here and not path.is_file():
        manifest = path.with_suffix(".json")
    if manifest is not None and (path.is_file() or not is_here):
        try:
            return Proposal(parse_manifest(manifest.read_text(encoding="utf-8"), str(manifest)))
        except OSError as error:
            raise ManifestError(f"{manifest}: cannot be read ({error.strerror})") from None
    beside = read_sidecar(path) if path.is_file() else None
    if beside is not None:
        return Proposal(beside)
    if path.suffix in PLAN_SUFFIXES and path.is_file():
        return Proposal(manifest_of_engine(read_header(path).ultralytics, path))
    proposal = propose_manifest(path)
    if not proposal.is_own:
        log.info("%s has no manifest; proposed from its graph: %s", path.name, proposal.summary)
    if proposal.assumed:
        log.warning("%s", proposal.assumed)
    return proposal


def _proved(found: Manifest, proposal: Proposal, engine: Engine, path: Path) -> Manifest:
    """The reading that pictures through the model do not contradict; see ``edge.models.probe``."""
    is_certain = check_against_graph(path, found) if proposal.graph is None else proposal.is_certain or proposal.is_own
    if proposal.is_own and found.head == "edgenet":
        # our own outputs say by their names what they are; their numbers are watched where they are used
        return found
    thresholds = {"thresholds": found.thresholds}
    others = [other.model_copy(update=thresholds) for other in proposal.others]
    flags = proposal.flags or (f"--head {found.head}",)
    return prove([found, *others], flags, engine, path.name, open_head, is_certain=is_certain)


def prove_file(path: Path, readings: Sequence[Manifest], flags: Sequence[str], *, is_certain: bool) -> Manifest:
    """The one reading of a file that its outputs do not contradict, with the proof in it.

    Args:
        path: the model file, not a plan.
        readings: the possible ones, the likeliest first.
        flags: of ``edge inspect``, that choose each.
        is_certain: the file itself leaves no doubt about the head.

    Raises:
        ModelError: the model does not run, or none or several of the readings can be true.
        MissingError: there is no engine on this machine that runs the file.
    """
    engine = open_engine(path, readings[0], kind="openvino" if path.suffix == ".xml" else "ort")
    try:
        _check_input(readings[0], engine, path)
        found = prove(readings, flags, engine, path.name, open_head, is_certain=is_certain)
    finally:
        engine.close()
    hashed = found.model_copy(update={"sha256": sha256_of(path)})
    return hashed.model_copy(update={"proof": proof_of(hashed)})


def _check_input(manifest: Manifest, engine: Engine, path: Path) -> None:
    """Refuse a manifest that describes another input than the engine has."""
    _check_tensors(manifest, engine.inputs, engine.outputs, path)


def _check_tensors(manifest: Manifest, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], path: Path) -> None:
    spec, found = manifest.input, inputs[0]
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
    _check_outputs(manifest, outputs, path)


def _check_outputs(manifest: Manifest, outputs: Sequence[TensorInfo], path: Path) -> None:
    names = {tensor.name for tensor in outputs}
    if manifest.head == "edgenet" and not {"boxes", "scores", "labels"} <= names:
        raise ManifestError(
            f"{path.name}: head 'edgenet' needs outputs boxes, scores, labels, the model has "
            f"{', '.join(sorted(names))}; run: edge inspect {path}"
        )
    has_choice = manifest.reading.names or is_foreign_head(manifest.head)
    if manifest.task != "detect" and len(names) != 1 and not has_choice:
        raise ManifestError(f"{path.name}: head {manifest.head!r} needs one output, the model has {len(names)}")
