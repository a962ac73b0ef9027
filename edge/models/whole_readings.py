"""Readings of outputs that judge the whole picture: classes, a vector, a class for each cell. C classes, h w cells."""

from __future__ import annotations

import re
from dataclasses import replace

from edge.errors import ManifestError
from edge.interfaces import TensorInfo
from edge.models.evidence import Evidence, InDoubtError, Reading, doubtful, is_grid, shape_text
from edge.models.manifest import OutputSpec

SCORE_WORDS = ("logit", "prob", "class", "score")
EMBEDDING_SIZES = (64, 96, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
VECTOR_WORDS = ("embed", "feat", "pooler")
DEPTH_WORDS = ("depth", "disp", "distance")
# a segmenter's map is rarely coarser, and what detectors hand on rarely finer
COARSEST_PX = 8
# what feature maps end in, and maps of classes hardly ever
FEATURE_ENDS = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Gelu", "Clip", "Mul", "HardSwish", "Tanh", "BatchNormalization", "Concat"),
    *("MaxPool", "AveragePool", "LayerNormalization", "InstanceNormalization"),
)
MAX_CLASSES = 256
# of people, hands, faces; in a portrait picture, at a quarter of its size, these are heat maps as likely as classes
NUM_POINTS = (14, 16, 17, 18, 19, 21, 26, 68, 98, 106, 133)
# which hardly any data set has as classes, whatever the picture's shape
RARE_CLASSES = (16, 17, 68, 98, 106, 133)
# x and y, or x y z, of as many points of a face or a hand; numbers that InsightFace and others give for a crop
LANDMARKS = (136, 196, 204, 212, 266, 1404, 1434, 3309)
MEASURES = ("age", "gender", "yaw", "pitch", "roll", "pose", "angle", "angles", "landmark", "landmarks", "lmk", "gaze")


def vector(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """A classifier or an embedding."""
    name, width = tensor.name.lower(), tensor.shape[1]
    end = evidence.graph.ends[tensor.name].operator
    classify = classifier(evidence, tensor, width)
    embedding = Reading("embedding", f"a vector of {width}", None, "embedding", flags="--head embedding")
    told = evidence.companion.num_classes
    _refuse_measures(evidence, tensor)
    # torch writes its normalize() as a division by ReduceL2
    is_of_length_1 = end == "LpNormalization" or (end == "Div" and "ReduceL2" in evidence.graph.operators)
    is_vector = any(word in name for word in VECTOR_WORDS) or is_of_length_1 or "embed" in evidence.hint
    if is_vector or told == 0:
        return [embedding]
    if end in ("Softmax", "Sigmoid") or evidence.companion.names or "class" in evidence.hint or told == width:
        return classify
    if any(word in name for word in SCORE_WORDS) or width not in EMBEDDING_SIZES:
        return classify
    return [doubtful(classify[0]), doubtful(embedding)]


def _refuse_measures(evidence: Evidence, tensor: TensorInfo) -> None:
    """Refuse numbers that are measures of what the picture shows rather than scores of classes.

    Raises:
        ManifestError: the output's name says so.
        InDoubtError: their count, or the exporter's names, may mean so.
    """
    words = set(re.findall("[a-z]+", tensor.name.lower())) & set(MEASURES)
    end, width = evidence.graph.ends[tensor.name].operator, tensor.shape[1]
    if end in ("Softmax", "Sigmoid") or evidence.companion.names or "class" in evidence.hint:
        return
    if words:
        raise ManifestError(f"{evidence.name}: its output {tensor.name} holds a measure of one thing, no head reads it")
    # MXNet's names, in which InsightFace's age and gender, key points of faces and the like are published
    is_insight = tensor.name == "fc1" and evidence.graph.inputs[0].name == "data"
    if width in LANDMARKS or is_insight:
        raise _in_doubt(
            evidence, tensor, "they may be places of key points, an age or angles, which no head reads",
            "--head classify", "a classifier",
        )  # fmt: skip


def classifier(evidence: Evidence, tensor: TensorInfo, width: int | None) -> list[Reading]:
    """Scores or logits of C classes."""
    end = evidence.graph.ends[tensor.name].operator
    if end in ("Sigmoid", "HardSigmoid"):
        because = f"{width} numbers after a sigmoid: each class by itself"
        return [Reading("classify", because, width, "classify", OutputSpec(activation="none"))]
    if width == 1:
        spec = OutputSpec(activation="sigmoid")
        return [Reading("classify", "one number: the logit of one class", 1, "classify", spec)]
    if evidence.companion.activation:
        because = f"{width} logits, each class by itself as {evidence.companion.source} says"
        return [Reading("classify", because, width, "classify", OutputSpec(activation=evidence.companion.activation))]
    # a vector that neither an operator nor a name calls scores may be an embedding to who says so
    is_certain = end == "Softmax" or any(word in tensor.name.lower() for word in SCORE_WORDS)
    because = f"{width} numbers for a picture"
    return [Reading("classify", because, width, "classify", None, is_certain, flags="--head classify")]


def grid(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """Segmenters, FastestDet, classifiers with a map of one cell; what is larger than the picture is none of them."""
    _, channels, height, width = tensor.shape
    if any(word in tensor.name.lower() for word in VECTOR_WORDS) and (height, width) != (1, 1):
        raise _in_doubt(
            evidence,
            tensor,
            "by its name it may be a feature map (of an encoder such as SAM's)",
            "--head semantic",
            "a segmenter",
        )
    if (height, width) == (1, 1) and (channels or 0) > 1:
        return classifier(evidence, tensor, channels)
    parts = evidence.parts(tensor, channels)
    if [part.width for part in parts[:2]] == [1, 4] and len(parts) == 3 and parts[2].operator == "Softmax":
        because = f"objectness, box and {parts[2].width} classes in each cell are FastestDet's"
        return [Reading("fastestdet", because, parts[2].width, "fastestdet")]
    return segmenter(evidence, tensor)


def segmenter(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """A class, or a score of each class, for each cell of a grid over the picture.

    Raises:
        InDoubtError: it may as well be something else.
    """
    end = evidence.graph.ends[tensor.name].operator
    names = {"main": tensor.name} if len(evidence.outputs) > 1 else {}
    spec = OutputSpec(names=names) if names else None
    if len(tensor.shape) == 3 or (end == "ArgMax" and 1 in tensor.shape[1:]):
        width = evidence.graph.ends[tensor.name].class_width if end == "ArgMax" else None
        return [Reading("semantic", f"a class for each cell of {shape_text(tensor)}", width, "semantic", spec)]
    axis = _class_axis(evidence, tensor)
    if axis is None:
        return []
    if tensor.shape[axis] != 1:
        doubt = _doubt_of_map(evidence, tensor, axis, end)
        if doubt:
            raise _in_doubt(evidence, tensor, doubt, "--head semantic", "a segmenter")
        because = f"{tensor.shape[axis]} scores for each cell of {shape_text(tensor)}"
        certain = end in ("Resize", "Softmax", "Conv")
        return [Reading("semantic", because, tensor.shape[axis], "semantic", spec, certain)]
    if end == "Sigmoid":
        spec = OutputSpec(names=names, activation="none")
        return [Reading("semantic", "a probability for each cell: two classes", 2, "semantic", spec)]
    raise _one_number(evidence, tensor)


def _one_number(evidence: Evidence, tensor: TensorInfo) -> ManifestError:
    """What is wrong with one number for each cell that no sigmoid made."""
    if any(word in tensor.name.lower() for word in DEPTH_WORDS):
        return ManifestError(f"{evidence.name}: its output {tensor.name} holds a depth, which no head reads")
    return InDoubtError(
        f"{evidence.name}: one number for each cell of {shape_text(tensor)} may be a logit (run: edge inspect "
        f"{evidence.name} --head semantic --activation sigmoid) or a depth, which no head reads"
    )


def _doubt_of_map(evidence: Evidence, tensor: TensorInfo, axis: int, end: str) -> str:
    """What a map of C > 1 numbers may be besides scores of classes; empty where nothing else comes into question."""
    num = tensor.shape[axis] or 0
    height, width = (size or 0 for size in (tensor.shape[2:] if axis == 1 else tensor.shape[1:3]))
    if num > MAX_CLASSES:
        return f"{num} numbers for each cell are a feature map, or more classes than the {MAX_CLASSES} that can be read"
    if end == "Sigmoid":
        return "after a sigmoid each of the classes stands by itself, and a cell may be of none or of several"
    if evidence.companion.names or end == "Softmax":
        return ""
    if end in FEATURE_ENDS:
        return f"its last operator is {end}, so that it may be a feature map"
    if height and evidence.size[1] / height > COARSEST_PX + 1:
        return (
            "so coarse a map may be the raw output of a detector (YOLOv2 to YOLOv7), whose anchors are not in the file"
        )
    if num == 3 and (width, height) == evidence.size and end != "Resize":
        return "three numbers for each pixel may be another picture"
    is_quarter = height * 4 == evidence.size[1]
    if is_quarter and (num in RARE_CLASSES or (num in NUM_POINTS and width < height)):
        return f"{num} maps of a quarter of the picture's size may be heat maps of a person's key points"
    return ""


def _in_doubt(evidence: Evidence, tensor: TensorInfo, doubt: str, flag: str, what: str) -> InDoubtError:
    return InDoubtError(
        f"{evidence.name}: its output {tensor.name} {shape_text(tensor)} may be scores of {what}, but {doubt}; if "
        f"it is {what} all the same, run: edge inspect {evidence.name} {flag} --write"
    )


def first_of_alike(evidence: Evidence) -> list[Reading]:
    """The first of several maps that are made alike: the main output, and others that only training needs."""
    first, *others = evidence.outputs
    shapes = [tensor.shape for tensor in evidence.outputs]
    is_named = [tensor.name.lower() for tensor in evidence.outputs] == ["out", "aux"]
    if len(first.shape) != 4 or not others or not (is_named or shapes.count(first.shape) == len(shapes)):
        return []
    ends = {evidence.graph.ends[tensor.name].operator for tensor in evidence.outputs}
    is_map = is_named or ends in ({"Resize"}, {"Sigmoid"})
    if not is_map or not is_grid(first.shape[2:], evidence.size):
        return []
    because = f"; the first of {len(shapes)} outputs, the others are for training"
    return [replace(reading, because=reading.because + because) for reading in segmenter(evidence, first)]


def embedding_beside(evidence: Evidence) -> list[Reading]:
    """A vector whose name says so, next to the features that it was made of (CLIP, DINO)."""
    found = [
        tensor
        for tensor in evidence.outputs
        if len(tensor.shape) == 2 and any(word in tensor.name.lower() for word in VECTOR_WORDS)
    ]
    others = [tensor for tensor in evidence.outputs if tensor not in found]
    if len(found) != 1 or not others or not all("hidden" in tensor.name.lower() for tensor in others):
        return []
    because = f"output {found[0].name} is a vector, the others are what it was made of"
    return [Reading("embedding", because, None, "embedding", OutputSpec(names={"main": found[0].name}))]


def float_map(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """(N, h, w): whole numbers kept as floats, or what no head reads.

    Raises:
        ManifestError: a depth, text letter by letter.
        InDoubtError: it may be a depth.
    """
    end = evidence.graph.ends[tensor.name].operator
    if end == "Softmax":
        raise ManifestError(
            f"{evidence.name}: its output {tensor.name} {shape_text(tensor)}, a softmax for each of several places, is "
            "that of a reader of text, which no head reads"
        )
    if end == "ArgMax" and is_grid(tensor.shape[1:], evidence.size):
        return segmenter(evidence, tensor)
    if is_grid(tensor.shape[1:], evidence.size) or any(word in tensor.name.lower() for word in DEPTH_WORDS):
        raise _one_number(evidence, tensor)
    return []


def _class_axis(evidence: Evidence, tensor: TensorInfo) -> int | None:
    """1 or 3; None where neither leaves a grid of the picture's shape."""
    fits = [
        axis
        for axis, cells in ((1, tensor.shape[2:]), (3, tensor.shape[1:3]))
        if is_grid(cells, evidence.size) or None in cells
    ]
    preferred = 1 if evidence.layout == "nchw" else 3
    return preferred if preferred in fits else fits[0] if fits else None
