"""What its exporter wrote about a model: in the file (Ultralytics), or JSON files next to it (transformers, timm)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nextafter
from pathlib import Path
from typing import Any

from edge.errors import ManifestError
from edge.files import parse_json
from edge.models.manifest import Activation, Interpolation

# in the order of PIL.Image.Resampling, and timm's names of them
_PILLOW: tuple[Interpolation, ...] = (
    "nearest",
    "antialias-lanczos",
    "antialias",
    "antialias-cubic",
    "antialias-box",
    "antialias-hamming",
)
_TIMM = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True, slots=True)
class Exported:
    """Facts that Ultralytics writes into ONNX files, OpenVINO folders and in front of its engines.

    Attributes:
        version: of the exporter.
        task: ``detect``, ``segment``, ``pose``, ``obb``, ``classify``, …
        names: of the classes, in the model's order.
        size: width and height of the input.
        stride: coarsest of the feature maps.
        is_listed: objects were chosen in the graph (``end2end``, or exported with ``nms=True``).
        kpt_shape: key points and numbers of each.
        kpt_names: of the key points, where they are known.
        head: name of the network's last module.
        max_batch: pictures for which the NMS in the graph was unrolled, though the batch is open; None: any.
    """

    version: str
    task: str
    names: tuple[str, ...]
    size: tuple[int, int] | None
    stride: int
    is_listed: bool
    kpt_shape: tuple[int, int] | None
    head: str
    kpt_names: tuple[str, ...] = ()
    max_batch: int | None = None


def read_ultralytics(metadata: Mapping[str, Any], where: str) -> Exported | None:
    """The facts in these key-value pairs; None where Ultralytics did not write them.

    Raises:
        ManifestError: it did, and what stands there cannot be understood.
    """
    if "task" not in metadata or not ({"names", "stride", "imgsz"} & set(metadata)):
        return None
    value = {key: _literal(metadata.get(key)) for key in ("names", "imgsz", "stride", "args", "kpt_shape", "end2end")}
    names, size, points = value["names"], value["imgsz"], value["kpt_shape"]
    arguments = value["args"] if isinstance(value["args"], dict) else {}
    has_nms = bool(arguments.get("nms"))
    listed = dict(enumerate(names)) if isinstance(names, list | tuple) else names
    try:
        # JSON, which stands in front of engines, knows no numbers as keys
        listed = {int(key): name for key, name in (listed or {}).items()}
        ordered = tuple(str(listed[index]) for index in range(len(listed)))
        height, width = (size, size) if isinstance(size, int) else (size[0], size[-1]) if size else (0, 0)
        return Exported(
            version=str(metadata.get("version", "")),
            task=str(metadata["task"]),
            names=ordered,
            size=(int(width), int(height)) if width else None,
            stride=int(value["stride"] or 32),
            is_listed=bool(value["end2end"]) or has_nms,
            kpt_shape=(int(points[0]), int(points[1])) if points else None,
            head=str(metadata.get("head", "")),
            kpt_names=_point_names(_literal(metadata.get("kpt_names")), points),
            max_batch=max(1, int(_literal(metadata.get("batch")) or 1))
            if has_nms and arguments.get("dynamic")
            else None,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise ManifestError(
            f"{where}: Ultralytics' metadata cannot be understood (names {metadata.get('names')!r:.60}, imgsz "
            f"{metadata.get('imgsz')!r:.30}); export the model again"
        ) from None


def read_names(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names under ``names``, as YOLOv5 and others write them; none where there are none, or not readable."""
    names = _literal(metadata.get("names"))
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        return tuple(str(names[number]) for number in range(len(names)))
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()


def _point_names(names: Any, points: Any) -> tuple[str, ...]:
    """Of a class → names table those of the first class, if they are as many as there are points."""
    first = next(iter(names.values()), None) if isinstance(names, dict) else names
    known = tuple(str(name) for name in first) if isinstance(first, list | tuple) else ()
    return known if points and len(known) == int(points[0]) else ()


def read_flat_yaml(path: Path) -> dict[str, str]:
    """The ``metadata.yaml`` of Ultralytics' OpenVINO folders: keys, and lists and maps of one level as literals."""
    facts: dict[str, str] = {}
    inner: dict[str, list[str]] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line.startswith((" ", "-")):
            key, _, text = line.partition(":")
            facts[key] = text.strip().strip("'\"")
        elif line.lstrip().startswith("- "):
            inner.setdefault(key, []).append(line.lstrip()[2:].strip())
        elif not facts[key] or facts[key].startswith("{"):
            name, _, text = line.strip().partition(":")
            quoted = text.strip() if text.strip()[:1] in "'\"" else repr(text.strip())
            before = f"{facts[key][:-1]}, " if facts[key] else "{"
            facts[key] = f"{before}{name if name.isdigit() else repr(name)}: {quoted}}}"
    return facts | {key: f"[{', '.join(items)}]" for key, items in inner.items()}


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


@dataclass(frozen=True, slots=True)
class Companion:
    """What the JSON files next to a model say.

    Attributes:
        source: which.
        names: of the classes.
        model_type: kind of network.
        input: changes of the input.
        activation: of a classifier that says it.
        size: width and height of the input.
        num_classes: of a network for whole pictures, 0 of one that gives features; None where it is not said.
    """

    source: str = ""
    names: tuple[str, ...] = ()
    model_type: str = ""
    input: dict[str, Any] = field(default_factory=dict)
    activation: Activation | None = None
    size: tuple[int, int] | None = None
    num_classes: int | None = None


def read_companion(model: Path) -> Companion:
    """Read ``config.json`` and ``preprocessor_config.json`` next to a model, or above it where it lies in ``onnx/``.

    Raises:
        ManifestError: they cannot be understood, or ask for what cannot be done.
    """
    folders = [model.parent, *([model.parent.parent] if model.parent.name == "onnx" else [])]
    for folder in folders:
        config, processor = _json(folder / "config.json"), _json(folder / "preprocessor_config.json")
        try:
            if "pretrained_cfg" in config:
                return _timm(config)
            if "id2label" in config or "model_type" in config or "image_mean" in processor:
                return _hugging_face(config, processor)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            raise ManifestError(
                f"{model.name}: the JSON of its exporter next to it cannot be understood ({error!r:.90}); "
                "mend it, or move it away and say what it says by --classes, --mean, --std and --resize"
            ) from None
    return Companion()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _hugging_face(config: dict[str, Any], processor: dict[str, Any]) -> Companion:
    labels = config.get("id2label")
    names = tuple(str(labels[key]) for key in sorted(labels, key=int)) if isinstance(labels, dict) else ()
    changes: dict[str, Any] = {}
    if processor:
        changes = {"colour": "bgr" if processor.get("do_flip_channel_order") else "rgb"}
        resample = processor.get("resample")
        changes["interpolation"] = "antialias" if resample is None else _PILLOW[int(resample)]
        changes |= _hugging_face_levels(processor) | _hugging_face_resize(processor)
    where = "config.json and preprocessor_config.json" if processor else "config.json"
    kind = config.get("problem_type")
    if kind == "regression":
        raise ManifestError("config.json says that the model gives measures (regression), which no head reads")
    is_multi = kind == "multi_label_classification"
    size = _hugging_face_size(config, processor)
    return Companion(where, names, str(config.get("model_type", "")), changes, "sigmoid" if is_multi else None, size)


def _hugging_face_size(config: dict[str, Any], processor: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of what the processor gives, else of what the network was made for; None where neither tells.

    Exports by Optimum leave all axes of the input open.
    """
    kind, size = _processor_kind(processor), processor.get("size")
    if kind in ("convnext", "convnextv2") and isinstance(size, dict):
        size = size.get("shortest_edge", size)
    is_cut = processor.get("do_center_crop", kind in ("levit", "poolformer"))
    given = (processor.get("crop_size") if is_cut else None, size, config.get("image_size"))
    return next((found for value in given if (found := _width_height(value))), None)


def _width_height(value: Any) -> tuple[int, int] | None:
    """Of a side, of height and width in a list or by name; None of anything else."""
    if isinstance(value, dict):
        value = (value.get("height"), value.get("width"))
    sides = (value, value) if isinstance(value, int) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        return None
    height, width = sides
    if not (isinstance(height, int) and isinstance(width, int)) or min(height, width) <= 0:
        return None
    return width, height


def _processor_kind(processor: dict[str, Any]) -> str:
    """Such as ``convnext`` of ``ConvNextImageProcessor``, ``…Fast`` or ``ConvNextFeatureExtractor``."""
    name = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    return name.partition("ImageProcessor")[0].partition("FeatureExtractor")[0].lower()


def _hugging_face_levels(processor: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation in grey levels.

    The rules are those of transformers 5.24: MobileViT's pictures are only scaled unless its file says more, and
    EfficientNet's are moved by one after scaling (``rescale_offset``) and divided by the deviation once more
    (``include_top``).
    """
    kind = _processor_kind(processor)
    is_scaled = processor.get("do_rescale", True)
    unit = 1 / float(processor.get("rescale_factor") or 1 / 255) if is_scaled else 1.0
    shift = float(is_scaled and bool(processor.get("rescale_offset")))
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if not processor.get("do_normalize", kind != "mobilevit"):
        mean, std = [0.0] * 3, [1.0] * 3
    elif not (isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3):
        return {}
    elif kind == "efficientnet" and processor.get("include_top", True):
        std = [float(value) ** 2 for value in std]
    return {
        "mean": tuple(unit * (float(value) + shift) for value in mean),
        "std": tuple(unit * float(value) for value in std),
    }


def _hugging_face_resize(processor: dict[str, Any]) -> dict[str, Any]:
    """How the picture is fitted in, by the rules of transformers 5.24.

    ConvNeXt's processor, which ResNet and others use, cuts out the middle of small pictures though no
    ``do_center_crop`` says so; PoolFormer's and LeViT's enlarge the short side before they cut. Where the size is a
    height and a width, as DeiT's and BEiT's, the picture is stretched before its middle is cut out.
    """
    kind, size, cut = _processor_kind(processor), processor.get("size"), processor.get("crop_size")
    short = size.get("shortest_edge") or size.get("height") if isinstance(size, dict) else size
    if kind in ("convnext", "convnextv2"):
        is_small = float(short or 384) < 384
        share = float(processor.get("crop_pct") or 224 / 256)
        return {"resize": "crop", "crop": share} if is_small else {"resize": "stretch"}
    if not processor.get("do_center_crop", kind in ("levit", "poolformer")):
        return {"resize": "stretch"}
    if kind == "poolformer":
        return {"resize": "crop", "crop": float(processor.get("crop_pct") or 0.9)}
    if kind == "levit":
        short = int(256 / 224 * float(short or 224))
    shown = cut.get("height") if isinstance(cut, dict) else cut
    is_stretched = isinstance(size, dict) and "shortest_edge" not in size
    return {"resize": "stretch-crop" if is_stretched else "crop", "crop": _share(shown, short)}


def _share(shown: Any, whole: Any) -> float:
    """What part of a side of ``whole`` pixels is shown, such that it gives that side back when it is divided by."""
    share = float(shown) / float(whole) if shown and whole else 1.0
    if share < 1 and int(float(shown) / share) < int(whole):
        share = nextafter(share, 0)
    return min(1.0, share)


def _timm(config: dict[str, Any]) -> Companion:
    cfg = config["pretrained_cfg"]
    names = cfg.get("label_names") or config.get("label_names") or ()
    share = min(1.0, float(cfg.get("crop_pct") or 0.875))
    mode = cfg.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ManifestError(
            f"timm's config.json says crop_mode {mode!r}, which is not supported; expected center or squash"
        )
    changes: dict[str, Any] = {"colour": "rgb", "resize": "stretch-crop" if mode == "squash" else "crop", "crop": share}
    method = cfg.get("interpolation") or "bicubic"
    if method not in _TIMM:
        raise ManifestError(
            f"timm's config.json says interpolation {method!r}, expected one of {', '.join(_TIMM)}; correct it there"
        )
    changes["interpolation"] = _PILLOW[_TIMM.index(method)]
    for key in ("mean", "std"):
        if isinstance(cfg.get(key), list | tuple) and len(cfg[key]) == 3:
            changes[key] = tuple(255 * float(x) for x in cfg[key])
    sizes = cfg.get("input_size")
    size = (int(sizes[2]), int(sizes[1])) if isinstance(sizes, list | tuple) and len(sizes) == 3 else None
    count = config.get("num_classes")
    return Companion(
        "timm's config.json",
        tuple(str(name) for name in names),
        "timm",
        changes,
        size=size,
        num_classes=count if isinstance(count, int) else None,
    )
