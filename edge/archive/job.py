"""What is done with every file of an archive: the model and the settings, the same for all, in any process."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.analytics.anchors import MASK_FOOT, anchors_of
from edge.archive.clips import PART_FRAMES, Clip, Part, read_part
from edge.archive.found import NO_TIME, Found
from edge.errors import ConfigError, SourceError, UsageError
from edge.files import sha256_of
from edge.model import Model, find_manifest, load_model
from edge.models.tiles import TileGrid
from edge.pictures.planes import Planes
from edge.sources.picture import PicturePreparer
from edge.types import Detections

if TYPE_CHECKING:
    from edge.config.schema import Config, ModelSettings, StreamSettings

BATCH = 4
# what a file of pictures has not, or what needs the pictures again when objects are followed
REFUSED = ("max_fps", "motion_gate", "second_stage", "record", "stages", "sinks")
SOURCE_KEYS = {"name", "source"}


@dataclass(frozen=True, slots=True)
class Job:
    """What is done with every file.

    Attributes:
        config: its one stream stands for every file.
        part_frames: pictures that a worker takes at a time, at least.
    """

    config: Config
    part_frames: int = PART_FRAMES

    @property
    def stream(self) -> StreamSettings:
        return self.config.streams[0]

    @property
    def model(self) -> ModelSettings:
        return self.config.model_of(self.stream)

    def facts(self) -> dict[str, Any]:
        """All that the results depend on besides the files, as JSON values."""
        manifest = find_manifest(self.model.path, self.model.manifest)
        return {
            "part_frames": self.part_frames,
            "version": importlib.metadata.version("edgeloop"),
            "model_sha256": sha256_of(self.model.path),
            "manifest_sha256": hashlib.sha256(manifest.to_json().encode()).hexdigest(),
            "model": self.model.model_dump(mode="json", exclude={"name", "path", "manifest", "cores", "linger_ms"}),
            "stream": self.stream.model_dump(mode="json", exclude=SOURCE_KEYS),
        }


def job_of(config: Config, batch: int = BATCH, part_frames: int = PART_FRAMES) -> Job:
    """The job that a configuration asks for: one engine for all processes, and one size of batches.

    Raises:
        ConfigError: it has several streams, or asks for what archives cannot do.
        ModelError: the model cannot be used here.
    """
    if len(config.streams) != 1:
        raise ConfigError(f"{len(config.streams)} streams; expected one, whose settings hold for every file")
    stream = config.streams[0]
    defaults = type(stream)(name=stream.name, source=stream.source)
    wrong = [key for key in REFUSED if getattr(stream, key) != getattr(defaults, key)]
    if wrong:
        raise ConfigError(f"streams.{wrong[0]} is not for archives; take it out, or run the files with: edge run")
    if stream.track.camera_motion == "pictures" or stream.track.appearance_model is not None:
        raise ConfigError(
            'an archive is tracked by boxes: camera_motion = "pictures" and appearance_model are not for it'
        )
    if MASK_FOOT in anchors_of(stream.analytics):
        raise ConfigError(f"anchor {MASK_FOOT!r} is not for archives, which keep no masks; take 'bottom-centre'")
    model = config.model_of(stream)
    task = find_manifest(model.path, model.manifest).task
    if task != "detect":
        raise UsageError(f"{model.path.name} is made to {task}; expected a detector")
    # a trial could choose another engine on another machine, and so other digits
    engine = "ort" if model.engine == "auto" and model.path.suffix == ".onnx" else model.engine
    fixed = {"engine": engine, "threads": model.threads or 1, "max_batch": model.max_batch or batch}
    # the pictures are not there when objects are followed
    track = stream.track.model_copy(update={"camera_motion": "boxes"})
    fixed_stream = stream.model_copy(update={"track": track})
    fixed_config = {"models": (model.model_copy(update=fixed),), "streams": (fixed_stream,)}
    return Job(config.model_copy(update=fixed_config), part_frames)


class Detector:
    """The model of a job, loaded once per process."""

    def __init__(self, job: Job) -> None:
        # only who detects needs all of it
        from edge.pipeline.build import preparation_of

        self._model: Model = load_model(job.model)
        self._preparer = PicturePreparer(preparation_of(job.stream, job.config).picture)
        stream = job.stream
        self._tiles = None if stream.tiles is None else TileGrid(*stream.tiles, overlap=stream.tile_overlap)

    def detect(self, address: str, part: Part) -> Found:
        """Decode a part and run the model over it, ``max_batch`` pictures at a time.

        Raises:
            SourceError: the file is damaged.
            EngineError: the engine failed.
        """
        pts: list[int] = []
        sizes: list[tuple[int, int]] = []
        found: list[Detections] = []
        for batch in _batched(read_part(address, part), self._model.engine.max_batch):
            images = [self._preparer.prepare(picture) for _, picture in batch]
            found += self._run(images)
            pts += [NO_TIME if time is None else time for time, _ in batch]
            sizes += [image.size for image in images]
        counts = [len(one) for one in found]
        objects = Detections.concatenate([replace(one, masks=None) for one in found])
        return Found(
            np.array(pts, np.int64), np.array(sizes, np.int64).reshape(-1, 2), np.array(counts, np.int64), objects
        )

    def close(self) -> None:
        self._model.close()

    def _run(self, images: list[Planes]) -> list[Detections]:
        predictions, _ = self._model.submit(images, [self._tiles] * len(images)).wait()
        assert all(isinstance(one, Detections) for one in predictions)
        return [one for one in predictions if isinstance(one, Detections)]


def detect_part(detector: Detector, clip: Clip, part: Part) -> bytes | str:
    """What was found, or why the file cannot be used: one that is broken costs no other."""
    try:
        return detector.detect(clip.address, part).to_bytes()
    except SourceError as error:
        return str(error)


def _batched(pictures: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(pictures, size)):
        yield batch
