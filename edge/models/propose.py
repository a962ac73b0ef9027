"""A manifest for somebody else's file: what its exporter says, else what its graph shows, corrected by its card.

Where more than one reading is left, all are handed on: the probe decides (``edge.models.probe``), or refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from edge.errors import ManifestError, ModelError
from edge.files import parse_json
from edge.interfaces import TensorInfo
from edge.models.card import apply_card
from edge.models.class_names import check_count, numbered
from edge.models.evidence import Evidence, InDoubtError, Reading, shape_text, shapes_text, strides_of
from edge.models.exporter import Companion, read_companion, read_names, read_ultralytics
from edge.models.habits import HABITS, THRESHOLDS, VARIED
from edge.models.manifest import (
    ONNX_KEY,
    Activation,
    ExtraInput,
    HeadName,
    InputSpec,
    Manifest,
    OutputSpec,
    Task,
    Thresholds,
    manifest_path,
    parse_manifest,
)
from edge.models.onnx_graph import GraphFacts, read_graph
from edge.models.openvino_ir import read_ir
from edge.models.readings import possible_readings

_TASKS: dict[HeadName, Task] = {"semantic": "segment", "classify": "classify", "embedding": "embed"}
NMS_FREE = (
    *("detr", "edgenet", "triple", "centernet"),
    *("end2end", "end2end-seg", "end2end-pose", "end2end-obb", "end2end-seg-pose"),
)
INT8_OPERATORS = ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv")


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person says about a file, instead of what would be found out.

    Attributes:
        head: name of the head.
        size: width and height of the input, where the file leaves them open.
        classes: names.
        activation, columns, unit: see ``edge.models.manifest.OutputSpec``.
    """

    head: str | None = None
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] | None = None
    activation: str | None = None
    columns: str | None = None
    unit: str | None = None
    classes_from: str = "--classes"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a file may be.

    Attributes:
        manifest: the likeliest reading.
        is_own: it was stored in the file by our exporter.
        others: what else the outputs may mean; the probe must rule these out.
        flags: of ``edge inspect``, that choose each reading, the likeliest first.
        assumed: what the file does not say and its family mostly does.
        is_certain: the file itself leaves no doubt about the head.
    """

    manifest: Manifest
    is_own: bool = True
    graph: GraphFacts | None = None
    others: tuple[Manifest, ...] = ()
    flags: tuple[str, ...] = ()
    assumed: str = ""
    is_certain: bool = False

    @property
    def summary(self) -> str:
        spec = self.manifest.input
        return (
            f"head {self.manifest.head}, {spec.width}x{spec.height} {spec.colour}, {len(self.manifest.classes)} classes"
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """A file and what stands next to it."""

    path: Path
    graph: GraphFacts
    card: dict[str, Any]
    choices: Choices
    evidence: Evidence
    extra_inputs: dict[str, ExtraInput] = field(default_factory=dict)


def propose_manifest(path: Path, *, head: str | None = None, choices: Choices | None = None) -> Proposal:
    """Describe a model file.

    Args:
        path: an ONNX file, or an OpenVINO ``.xml``; a model card next to it (``name.json``, no manifest) fills in
            what it knows.
        head: the head, where the graph does not tell.
        choices: all that a person decides.

    Raises:
        ModelError: not a model with one image input.
        ManifestError: the head cannot be told from the graph, or is unknown, or the class names are not as many as the
            model has classes.
    """
    chosen = replace(choices or Choices(), head=head or (choices.head if choices else None))
    graph = read_ir(path) if path.suffix == ".xml" else read_graph(path)
    if ONNX_KEY in graph.metadata:
        return Proposal(parse_manifest(graph.metadata[ONNX_KEY], f"metadata of {path.name}"), True, graph)
    if chosen.head is not None and chosen.head not in get_args(HeadName):
        raise ManifestError(f"no head is called {chosen.head!r}; choose from: {', '.join(get_args(HeadName))}")
    source = _source(path, graph, chosen)
    readings, manifests = _described(source, _readings(source))
    assumed = _assumption(source, readings[0])
    return Proposal(
        manifests[0],
        False,
        graph,
        tuple(manifests[1:]),
        tuple(reading.flags or f"--head {reading.head}" for reading in readings),
        assumed,
        readings[0].may_look_odd,
    )


def check_against_graph(path: Path, manifest: Manifest) -> bool:
    """Refuse a manifest by hand that says something else than the file itself does without doubt.

    Returns:
        Whether the file itself says that the head is right.

    Raises:
        ModelError: it does; or what the file is, is known and nothing that can be run.
    """
    graph = read_ir(path) if path.suffix == ".xml" else read_graph(path) if path.suffix == ".onnx" else None
    if graph is None or ONNX_KEY in graph.metadata:
        return True
    choices = Choices(size=(manifest.input.width, manifest.input.height))
    try:
        likeliest = possible_readings(_source(path, graph, choices).evidence)[:1]
    except InDoubtError:
        # whoever wrote the manifest knows
        return False
    for reading in likeliest:
        _check_head(path, manifest.head, reading)
    return any(reading.may_look_odd for reading in likeliest)


def _check_head(path: Path, head: str, reading: Reading) -> None:
    """Refuse a head that the file contradicts; that of an installed package knows what it reads."""
    if head not in get_args(HeadName):
        return
    # who wants no masks or key points may have the boxes alone
    boxes_alone = reading.head in (f"{head}-seg", f"{head}-pose")
    is_same = reading.head == head or boxes_alone or (reading.family == "edgenet" and head == "triple")
    if reading.is_certain and not is_same:
        raise ManifestError(
            f"{path.name}: head {head!r} does not read this model, head {reading.head!r} does ({reading.because}); "
            f"run: edge inspect {path} --write"
        )


def _described(source: _Source, readings: Sequence[Reading]) -> tuple[list[Reading], list[Manifest]]:
    """The readings that the class names fit, with their manifests.

    Raises:
        ManifestError: there is none.
    """
    fitting: list[Reading] = []
    manifests: list[Manifest] = []
    refusals: list[ManifestError] = []
    for reading in readings:
        try:
            manifests.append(_describe(source, reading))
            fitting.append(reading)
        except ManifestError as error:
            refusals.append(error)
    if not fitting:
        raise refusals[0]
    return fitting, manifests


def _source(path: Path, graph: GraphFacts, choices: Choices) -> _Source:
    card = _read_card(path)
    exported = read_ultralytics(graph.metadata, path.name)
    image, extra = _inputs(graph, path)
    companion = read_companion(path)
    is_open = None in image.shape[2:]
    told = exported.size if exported else companion.size if is_open else None
    layout, width, height = _picture(image, path, choices.size or told)
    graph = replace(graph, inputs=(image, *(tensor for tensor in graph.inputs if tensor is not image)))
    hint = f"{card.get('task', '')}"
    evidence = Evidence(path.name, graph, (width, height), layout, exported, companion, hint)
    return _Source(path, graph, card, choices, evidence, extra)


def _readings(source: _Source) -> list[Reading]:
    choices = source.choices
    try:
        found = possible_readings(source.evidence)
    except InDoubtError:
        if choices.head is None:
            raise
        found = []
    if choices.head is not None:
        found = [_chosen(source, cast("HeadName", choices.head), found)]
    if not found:
        raise ManifestError(_unknown(source))
    return [_with_choices(reading, choices) for reading in found]


def _unknown(source: _Source) -> str:
    """Why a file of no known family is refused, and the heads that its outputs are of a form for."""
    outputs = source.graph.outputs
    ranks = sorted(len(tensor.shape) for tensor in outputs)
    heads = _HEADS_OF_RANKS.get(tuple(ranks), ())
    hint = f"if one of {', '.join(heads)} does all the same" if heads else "if you know of one that does"
    return (
        f"{source.path.name}: cannot tell the head from its outputs ({shapes_text(outputs)}): no family that is known "
        f"has such, and no head reads them as they are; {hint}, run: edge inspect {source.path} --head NAME"
    )


_ROW_HEADS: tuple[HeadName, ...] = ("yolov8", "yolov5", "yolox", "nanodet", "nanodetplus", "end2end")
# axes of the outputs → heads that read as many outputs of such a form
_HEADS_OF_RANKS: dict[tuple[int, ...], tuple[HeadName, ...]] = {
    (2,): ("classify", "embedding", "end2end"),
    (3,): (*_ROW_HEADS, "semantic"),
    (4,): ("semantic", "fastestdet", "classify"),
    (3, 3): ("detr", "ssd", "yolonas"),
    (3, 4): ("yolov8-seg", "end2end-seg"),
    (2, 2, 3): ("triple",),
}


def _chosen(source: _Source, head: HeadName, found: Sequence[Reading]) -> Reading:
    """The reading of the head that a person asks for."""
    known = [reading for reading in found if reading.head == head]
    columns = source.choices.columns
    known = [reading for reading in known if (reading.output or OutputSpec()).columns == columns] or known
    activation = source.choices.activation
    if activation is not None:
        # of two readings of one head the activation is what tells them apart
        known = [reading for reading in known if (reading.output or OutputSpec()).activation == activation] or known[
            -1:
        ]
    if not known and found:
        _check_head(source.path, head, found[0])
    if known:
        return replace(known[0], because=f"{known[0].because}, and --head says so")
    if head.endswith("-pose"):
        raise ManifestError(
            f"{source.path.name}: head {head!r} needs the shape of its key points, which the file does not tell; write "
            "kpt_shape into its manifest by hand"
        )
    spec = None
    sizes = [size for tensor in source.graph.outputs for size in tensor.shape[1:]]
    strides = next((hit for size in sizes if (hit := strides_of(size, source.evidence.size))), ())
    if strides and head in ("yolox", "nanodet", "nanodetplus"):
        spec = OutputSpec(strides=strides)
    count = num_classes(source.graph.outputs, head)
    return Reading(
        head, "--head says so", count, head, spec,
        is_certain=False, needs_nms=head not in NMS_FREE, has_background=head == "ssd",
    )  # fmt: skip


def _with_choices(reading: Reading, choices: Choices) -> Reading:
    changes = {
        "activation": cast("Activation | None", choices.activation),
        "columns": choices.columns,
        "unit": choices.unit,
    }
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        return reading
    spec = OutputSpec.model_validate((reading.output or OutputSpec()).model_dump() | given)
    return replace(reading, output=spec)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = parse_json(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and "schema" not in card else {}


def _inputs(graph: GraphFacts, path: Path) -> tuple[TensorInfo, dict[str, ExtraInput]]:
    """The image, and what the other inputs want."""
    images = [tensor for tensor in graph.inputs if len(tensor.shape) == 4]
    others = [tensor for tensor in graph.inputs if tensor not in images]
    wants = {tensor.name: _extra(tensor) for tensor in others}
    if len(images) != 1 or None in wants.values():
        found = ", ".join(f"{tensor.name} {shape_text(tensor)}" for tensor in graph.inputs)
        alone = [tensor for tensor in graph.inputs if len(tensor.shape) == 3 and tensor.shape[0] == 3]
        has_text = any("input_ids" in tensor.name or "token" in tensor.name for tensor in others)
        wants_text = "; it wants text, which cannot be given: export it with its classes built in"
        helps = (
            "; torchvision's detectors take a list of pictures: export them in a module whose forward(batch) calls "
            "the detector with [batch[0]]"
        )
        raise ModelError(
            f"{path.name}: expected one input of an image (N,3,H,W or N,H,W,3), found {found}"
            f"{helps if alone else wants_text if has_text else ''}"
        )
    return images[0], {name: want for name, want in wants.items() if want is not None}


def _extra(tensor: TensorInfo) -> ExtraInput | None:
    name = tensor.name.lower()
    if "mask" in name and len(tensor.shape) == 3:
        return "mask"
    if len(tensor.shape) != 2 or tensor.shape[1] not in (2, None):
        return None
    if "scale" in name:
        return "ones"
    if "im_shape" in name:
        return "height-width"
    return "width-height" if "size" in name else None


def _picture(image: TensorInfo, path: Path, size: tuple[int, int] | None) -> tuple[str, int, int]:
    """Layout, width and height of the image input."""
    _, second, third, fourth = image.shape
    channels_first = second == 3 or (second is None and fourth != 3)
    layout, height, width = ("nchw", third, fourth) if channels_first else ("nhwc", second, third)
    if (second if channels_first else fourth) not in (3, None):
        raise ModelError(
            f"{path.name}: expected pictures of 3 channels (N,3,H,W or N,H,W,3), found {shape_text(image)}"
        )
    if size is not None and any(have not in (None, want) for have, want in zip((width, height), size, strict=True)):
        if width is None or height is None:
            raise ModelError(f"{path.name}: its input is {shape_text(image)}, which {size[0]}x{size[1]} does not fit")
        size = None
    if size is not None:
        width, height = size
    if width is None or height is None:
        raise ModelError(
            f"{path.name}: its input {shape_text(image)} leaves the size open, expected one that is fixed; run: edge "
            f"inspect {path} --size WIDTHxHEIGHT --write, with the size that it was trained for"
        )
    return layout, width, height


def _describe(source: _Source, reading: Reading) -> Manifest:
    """The manifest of one reading."""
    tensor = source.evidence.graph.inputs[0]
    width, height = source.evidence.size
    habits = {**HABITS[reading.family], **_companion_input(source, reading)}
    taken = 255.0 if tensor.dtype == "uint8" else _taken(source)
    if taken is not None:
        habits |= {"mean": (0.0,) * 3, "std": (255.0 / taken,) * 3}
    spec = InputSpec(
        name=tensor.name, width=width, height=height, layout=source.evidence.layout, dtype=tensor.dtype, **habits  # type: ignore[arg-type]
    )  # fmt: skip
    names, whence = _names(source, reading)
    is_int8 = any(operator in source.graph.operators for operator in INT8_OPERATORS)
    guess = Manifest(
        name=source.path.stem,
        task=_TASKS.get(reading.head, "detect"),
        head=reading.head,
        input=spec,
        classes=names,
        thresholds=THRESHOLDS.get(reading.family, Thresholds()),
        needs_nms=reading.needs_nms,
        has_background=reading.has_background,
        output=reading.output,
        extra_inputs=source.extra_inputs or None,
        max_batch=source.evidence.exported.max_batch if source.evidence.exported else None,
        kpt_shape=_points(reading.kpt_shape, source.path.name),
        keypoints=reading.keypoints,
        precision="int8" if is_int8 else "fp32",
        decided=(f"head {reading.head}: {reading.because}", f"classes: {whence}", f"input: {_whence(source, reading)}"),
    )
    described = apply_card(guess, source.card, source.path)
    if described.classes != guess.classes:
        described = described.model_copy(update={"classes": _checked(source, reading, described.classes, "the card")})
    return described


def _points(shape: tuple[int, int] | None, name: str) -> tuple[int, Literal[2, 3]] | None:
    if shape is None or (0 < shape[0] <= 1000 and shape[1] in (2, 3)):
        return cast("tuple[int, Literal[2, 3]] | None", shape)
    raise ManifestError(f"{name}: kpt_shape {list(shape)}, expected a number of points, and 2 or 3 numbers of each")


def _names(source: _Source, reading: Reading) -> tuple[tuple[str, ...], str]:
    """Class names, and where they are from: the person, the file, the files next to it; else numbers."""
    if reading.head == "embedding":
        return (), "an embedding has none"
    exported, companion = source.evidence.exported, source.evidence.companion
    written = exported.names if exported else read_names(source.graph.metadata)
    if reading.head == "semantic" and len(written) == 1:
        written = ("background", *written)
    for names, whence in (
        (source.choices.classes, source.choices.classes_from),
        (written, "the file's metadata"),
        (companion.names, companion.source),
    ):
        if names:
            return _checked(source, reading, _without_background(reading, tuple(names)), whence), whence
    if reading.head == "semantic" and (reading.output or OutputSpec()).activation:
        return ("background", "class 1"), "numbered: nothing names them"
    count = reading.num_classes if reading.num_classes is not None else 256 if reading.head == "semantic" else 0
    return numbered(count), "numbered: nothing names them"


def _without_background(reading: Reading, names: tuple[str, ...]) -> tuple[str, ...]:
    """Lists of models that count from 1 name the background first, as torchvision's ``categories`` do."""
    counts_from_one = (reading.output or OutputSpec()).first_class == 1
    return names[1:] if counts_from_one and names[0].strip("_").lower() in ("background", "bg") else names


def _checked(source: _Source, reading: Reading, names: tuple[str, ...], whence: str) -> tuple[str, ...]:
    """The names, if they are as many as the outputs have room for.

    Raises:
        ManifestError: they are not.
    """
    return check_count(names, reading.num_classes, f"{source.path.name}: {whence}", _spare(reading))


def _spare(reading: Reading) -> int:
    """How many names more the list may have: that of no object, or of the background."""
    is_softmax = reading.output is not None and reading.output.background == "last"
    return 1 if is_softmax or reading.family == "rf-detr" else 0


def _companion_input(source: _Source, reading: Reading) -> dict[str, Any]:
    companion: Companion = source.evidence.companion
    return companion.input if reading.head in ("classify", "embedding", "semantic", "detr") else {}


def _taken(source: _Source) -> float | None:
    """The largest number of the pictures that the graph takes, where it tells by scaling them itself."""
    scaling = source.graph.scalings.get(source.graph.inputs[0].name)
    return None if scaling is None else scaling.takes


def _whence(source: _Source, reading: Reading) -> str:
    if (taken := _taken(source)) is not None:
        return f"0 to {taken:g}, which the graph scales itself; the rest {_usual(source, reading)}"
    return _usual(source, reading)


def _usual(source: _Source, reading: Reading) -> str:
    if source.evidence.companion.input and reading.head in ("classify", "embedding", "semantic", "detr"):
        return f"as {source.evidence.companion.source} next to the file says"
    if "preprocess" in source.card:
        return "as the card next to the file says"
    if source.evidence.exported is not None:
        return "as Ultralytics prepares pictures"
    return f"as models of family {reading.family} mostly take it"


def _assumption(source: _Source, reading: Reading) -> str:
    """What was taken for granted, where models of a family differ."""
    is_told = bool(source.evidence.companion.input) or "preprocess" in source.card
    if is_told or reading.family not in VARIED or source.graph.inputs[0].dtype == "uint8":
        return ""
    is_scaled = _taken(source) is not None
    what, flags = ("resized", "") if is_scaled else ("prepared", "--mean … --std … ")
    return (
        f"{source.path.name}: nothing says how pictures are {what} for it; assumed what is usual for "
        f"{reading.family}; correct it with edge inspect {source.path} {flags}--resize … --write"
    )


def num_classes(outputs: Sequence[TensorInfo], head: HeadName) -> int | None:
    """How many classes the outputs have room for, if this head reads them; None where they do not tell."""
    shapes = [tensor.shape for tensor in outputs]
    first = shapes[0]
    rank = len(first)
    match head:
        case "yolox" | "yolov5" if rank == 3:
            return (first[2] or 5) - 5
        case "yolov8" if rank == 3:
            return (first[1] or 4) - 4
        case "nanodet" | "nanodetplus" | "picodet" if rank == 3:
            return (first[-1] or 0) - (32 if len(shapes) == 1 else 0)
        case "detr" | "ssd" | "yolonas":
            background = 1 if head == "ssd" else 0
            return next((shape[-1] or 0 for shape in shapes if shape and shape[-1] != 4), 0) - background
        case "classify" | "centernet" if rank >= 2:
            return first[1] or 0
        case "fastestdet" if rank == 4:
            return (first[1] or 5) - 5
        case "semantic":
            return (first[1] or 0) if rank == 4 else 256
        case _:
            return None
