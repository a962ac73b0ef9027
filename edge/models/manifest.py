"""What a model file expects, gives and is: the manifest, stored as ``name.json`` next to ``name.onnx``.

The same JSON is in the metadata of ONNX files that we export, under the key ``edgeloop``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.addresses.printable import one_line
from edge.config.parts import part_name
from edge.config.section import Section
from edge.errors import ManifestError
from edge.files import parse_json, sha256_of, write_atomic
from edge.models.keypoints import keypoint_names

SCHEMA = 1
MAX_SIDE_PX = 16384
ONNX_KEY = "edgeloop"

Task = Literal["detect", "segment", "classify", "embed"]
HeadName = Literal[
    "edgenet",
    "yolox",
    "yolov8",
    "yolov5",
    "nanodet",
    "nanodetplus",
    "picodet",
    "fastestdet",
    "centernet",
    "detr",
    "ssd",
    "yolonas",
    "end2end",
    "triple",
    "semantic",
    "classify",
    "embedding",
    "yolov8-seg",
    "yolov8-pose",
    "yolov8-obb",
    "end2end-seg",
    "end2end-pose",
    "end2end-obb",
    "end2end-seg-pose",
]
MASK_HEADS: tuple[HeadName, ...] = ("yolov8-seg", "end2end-seg", "end2end-seg-pose")
Activation = Literal["none", "sigmoid", "softmax"]
Interpolation = Literal[
    "bilinear",
    "cubic",
    "nearest",
    "antialias",
    "antialias-cubic",
    "antialias-lanczos",
    "antialias-box",
    "antialias-hamming",
]
# what a second input wants: width and height of the model's input, height and width, factors of 1, or 1 for each pixel
ExtraInput = Literal["width-height", "height-width", "ones", "mask"]
# what an input next to the picture is given for one frame: numbers, or rows of them
ExtraRow = tuple[float, ...] | tuple[tuple[float, ...], ...]
COLUMNS = ("x1", "y1", "x2", "y2", "cx", "cy", "w", "h", "score", "class", "batch")
Precision = Literal["fp32", "fp16", "int8"]
# a model may come from anywhere, and its names reach terminals, logs and the page
Printable = Annotated[str, AfterValidator(one_line)]
Triple = tuple[float, float, float]


class InputSpec(Section):
    """How frames become the model's input.

    Attributes:
        mean, std: per channel, in units of 0..255 and in the order of ``colour``; the model gets (x - mean) / std.
        resize: ``letterbox`` keeps the aspect ratio and pads, ``stretch`` does not keep it, ``crop`` brings the short
            side to the input's size divided by ``crop`` and cuts the middle out, ``stretch-crop`` does so with both.
        anchor: where the picture lies in a letterbox.
        pad: grey level of the padding before normalisation.
        interpolation: ``bilinear`` and ``cubic`` are OpenCV's; the others are Pillow's (Hugging Face, timm,
            torchvision), and all but ``nearest`` average over what they leave out when they make a picture smaller.
        crop: share of the short side that the crop shows, of both where they are stretched, in (0, 1].
    """

    name: Printable
    width: int = Field(gt=0, le=MAX_SIDE_PX)
    height: int = Field(gt=0, le=MAX_SIDE_PX)
    layout: Literal["nhwc", "nchw"]
    dtype: Literal["uint8", "float32", "float16"]
    colour: Literal["bgr", "rgb"]
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    resize: Literal["letterbox", "stretch", "crop", "stretch-crop"] = "letterbox"
    anchor: Literal["centre", "top-left"] = "centre"
    pad: int = Field(default=114, ge=0, le=255)
    interpolation: Interpolation = "bilinear"
    crop: float = Field(default=1.0, gt=0, le=1)

    @property
    def is_cut(self) -> bool:
        """Whether only the middle of the picture is shown."""
        return self.resize in ("crop", "stretch-crop")

    @field_validator("std")
    @classmethod
    def _no_zero(cls, std: Triple) -> Triple:
        if 0 in std:
            raise ValueError("std may hold no zero")
        return std


class Thresholds(Section):
    """Defaults of the head: what to show, what to hand to the tracker, which overlap NMS allows."""

    score: float = Field(default=0.35, ge=0, le=1)
    track_score: float = Field(default=0.1, ge=0, le=1)
    iou: float = Field(default=0.5, ge=0, le=1)


class OutputSpec(Section):
    """How the head reads the outputs where its family leaves a choice; None: the head's own way.

    Attributes:
        names: role (``boxes``, ``scores``, ``labels``, ``masks``, ``keypoints``, ``count``, ``main``) → output's name.
        columns: what the numbers of a box are, in their order: ``x1 y1 x2 y2 score class``; see ``COLUMNS``.
        unit: of boxes: pixels of the model's input, or shares of its sides.
        activation: what makes scores of the values.
        background: which class means "no object" and stands in no list of classes.
        first_class: number that the model gives to the first class of the list.
        strides: of the feature maps, in model pixels, finest first.
    """

    names: dict[str, str] = Field(default_factory=dict)
    columns: str | None = None
    unit: Literal["pixels", "share"] | None = None
    activation: Activation | None = None
    background: Literal["first", "last"] | None = None
    first_class: int = 0
    strides: tuple[int, ...] = ()

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: str | None) -> str | None:
        unknown = [name for name in (columns or "").split() if name not in COLUMNS]
        if unknown:
            raise ValueError(f"no column is called {unknown[0]!r}; choose from {' '.join(COLUMNS)}")
        return columns


# of a manifest that says nothing of its outputs
AS_EVER = OutputSpec()


class Calibration(Section):
    """Where the INT8 ranges came from."""

    method: str
    num_frames: int = Field(ge=0)
    frames_sha256: str
    ranges_sha256: str
    float_layers: tuple[str, ...] = ()


class Provenance(Section):
    """Where a model came from. ``terms`` are those of its data."""

    dataset: str = ""
    dataset_sha256: str = ""
    config_sha256: str = ""
    commit: str = ""
    seed: int | None = None
    source: str = ""
    terms: str = ""


class Profile(Section):
    """Smallest, most likely and largest batch of an engine."""

    min_batch: int = Field(gt=0)
    opt_batch: int = Field(gt=0)
    max_batch: int = Field(gt=0)


class EngineSpec(Section):
    """What an engine was built with. A plan's bytes are not reproducible: ``inputs_sha256`` is its identity.

    Attributes:
        flavour: which library.
        version: its version, ``10.3.0.26``.
        compute_capabilities: ``("8.7",)``; the GPUs that it runs on.
        inputs_sha256: over the ONNX file, flags, profiles and targets.
        onnx_sha256: the ONNX file it was built from.
    """

    flavour: Literal["tensorrt", "tensorrt_rtx"]
    version: Printable
    cuda: Printable = ""
    compute_capabilities: tuple[Printable, ...] = ()
    profiles: tuple[Profile, ...] = ()
    flags: tuple[Printable, ...] = ()
    dla_core: int | None = None
    inputs_sha256: Printable
    onnx_sha256: Printable


class Manifest(Section):
    """Everything the runtime must know of a model file.

    Attributes:
        head: what turns the model's outputs into predictions: one of ``HeadName``, or the head of an installed package.
        needs_nms: whether overlapping boxes of one object come out of the model.
        has_background: whether the model's first class is "none of them" (not listed in ``classes``).
        kpt_shape: key points of an object and numbers of each (x y, or x y score), where the model has them.
        keypoints: their names, where they are known; see ``keypoint_names``.
        output: how the outputs are read, None: as the head always does.
        extra_inputs: name of an input next to the picture → what it is given.
        max_batch: the most pictures at once of a file that leaves their number open and yet cannot take any; None: any.
        decided: what was found out about the file and why, sentence by sentence, by ``edge inspect``.
        proof: of a reading that was tried on pictures; see ``edge.models.probe``.
        accuracy: precision → metric → value, as measured by ``edge eval``.
        sha256: of the model file.
    """

    schema_number: int = Field(default=SCHEMA, alias="schema")
    name: Printable
    task: Task
    head: Annotated[str, part_name("edge.heads", get_args(HeadName))]
    input: InputSpec
    classes: tuple[Printable, ...]
    thresholds: Thresholds = Thresholds()
    needs_nms: bool = True
    has_background: bool = False
    kpt_shape: tuple[Annotated[int, Field(gt=0, le=1000)], Literal[2, 3]] | None = None
    keypoints: tuple[Printable, ...] | None = None
    output: OutputSpec | None = None
    extra_inputs: dict[str, ExtraInput] | None = None
    max_batch: int | None = Field(default=None, ge=1)
    decided: tuple[Printable, ...] | None = None
    proof: str | None = None
    precision: Precision = "fp32"
    accuracy: dict[str, dict[str, float]] = Field(default_factory=dict)
    calibration: Calibration | None = None
    provenance: Provenance = Provenance()
    engine: EngineSpec | None = None
    sha256: str = ""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    @property
    def has_masks(self) -> bool:
        """Whether every object has a mask."""
        return self.head in MASK_HEADS or "masks" in self.reading.names

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """A name for every key point; empty where the model gives none."""
        # other heads step over the numbers of key points and do not read them
        if self.kpt_shape is None or not (self.head.endswith("-pose") or "keypoints" in self.reading.names):
            return ()
        return keypoint_names(self.kpt_shape[0], self.keypoints, self.classes)

    @property
    def anchors(self) -> tuple[str, ...]:
        """Points of an object, besides its box, that lines and zones can follow: key points first, in order."""
        return (*(f"keypoint:{name}" for name in self.keypoint_names), *(["mask-foot"] if self.has_masks else []))

    @model_validator(mode="after")
    def _points_fit(self) -> Manifest:
        if self.head.endswith("-pose") and self.kpt_shape is None:
            raise ValueError(f"head {self.head} needs kpt_shape, as in [17, 3]: key points and numbers of each")
        if self.keypoints and (self.kpt_shape is None or len(self.keypoints) != self.kpt_shape[0]):
            raise ValueError(f"{len(self.keypoints)} names of key points do not fit kpt_shape {self.kpt_shape}")
        return self

    @property
    def reading(self) -> OutputSpec:
        """How the outputs are read."""
        return self.output or AS_EVER

    def extra_rows(self) -> dict[str, ExtraRow]:
        """What each input next to the picture is given, for one frame."""
        size = float(self.input.width), float(self.input.height)
        rows: dict[ExtraInput, ExtraRow] = {
            "width-height": size,
            "height-width": size[::-1],
            "ones": (1.0, 1.0),
            "mask": ((1.0,) * self.input.width,) * self.input.height,
        }
        return {name: rows[want] for name, want in (self.extra_inputs or {}).items()}

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n"


def manifest_path(model: Path) -> Path:
    """Where the manifest of a model file lies."""
    return model.with_suffix(".json")


def parse_manifest(text: str, where: str) -> Manifest:
    """Read a manifest from JSON.

    Args:
        text: the JSON.
        where: file name for messages.

    Raises:
        ManifestError: it is no JSON, of another schema, or a field is wrong.
    """
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise ManifestError(f"{where}: no valid JSON ({error}); run: edge inspect MODEL --write") from None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise ManifestError(
            f"{where}: expected a manifest with schema {SCHEMA}, found {found!r}; run: edge inspect MODEL --write"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        words = f"{message[0].lower()}{message[1:]}"
        raise ManifestError(f"{where}: {key}: {words}, found {first.get('input')!r:.80}") from None


def is_manifest(path: Path) -> bool:
    """Whether a JSON file claims to be a manifest (has a ``schema`` number) rather than somebody's model card."""
    try:
        raw = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and "schema" in raw and "task" in raw


def read_sidecar(model: Path) -> Manifest | None:
    """The manifest next to a model file, checked against the file's hash; None where there is none.

    Raises:
        ManifestError: the manifest is wrong or belongs to another file.
    """
    path = manifest_path(model)
    if not path.is_file() or not is_manifest(path):
        return None
    manifest = parse_manifest(path.read_text(encoding="utf-8"), path.name)
    if manifest.sha256 and manifest.sha256 != sha256_of(model):
        raise ManifestError(
            f"{path.name} describes another {model.name} (sha256 {manifest.sha256[:12]}…, "
            f"found {sha256_of(model)[:12]}…); export the model again or run: edge inspect {model} --write"
        )
    return manifest


def write_sidecar(manifest: Manifest, model: Path) -> Path:
    """Store the manifest next to its model file, with the file's hash filled in."""
    complete = manifest.model_copy(update={"sha256": sha256_of(model)})
    path = manifest_path(model)
    write_atomic(path, complete.to_json())
    return path


def content_hash(value: object) -> str:
    """SHA-256 of a JSON value, keys sorted: the identity of configurations and frame lists."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
