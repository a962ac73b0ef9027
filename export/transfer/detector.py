"""From an ONNX file to a detector of ours: the trunk is read, the rows of known classes are kept by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edge.errors import ModelError
from edge.model import find_manifest
from edge.models.manifest import InputSpec
from export.models.detector import PRIOR, STRIDES
from export.models.foreign import Form
from export.models.foreign_detector import ForeignDetector
from export.models.plan import Plan
from export.models.plan_network import fill
from export.transfer.read import Loaded, partners, read_onnx, source_of


def read_detector(path: Path, classes: Sequence[str], *, fresh_head: bool = False) -> tuple[ForeignDetector, list[str]]:
    """A detector for these classes from an ONNX file.

    Args:
        path: the file, with a model card or manifest that tells how its pictures are prepared.
        classes: wanted names; a kept head keeps the rows of those it knows.
        fresh_head: put a new head on, whatever the file has.

    Returns:
        The network in evaluation mode, and the names of the classes whose rows were kept.

    Raises:
        ModelError: the file cannot be read, or has no maps at the strides 8, 16 and 32.
    """
    loaded = read_onnx(path)
    manifest = find_manifest(path)
    tails = None if fresh_head or manifest.head != "yolox" else yolox_tails(loaded.plan, len(manifest.classes))
    form = _form(loaded, manifest.input, tails, source_of(path, manifest))
    network = ForeignDetector(form, len(classes))
    fill(network.trunk, loaded.weights)
    kept = _keep_rows(network, loaded, tails, manifest.classes, classes) if tails else []
    return network.eval(), kept


@dataclass(frozen=True, slots=True)
class Tail:
    """The last layers of one level of a YOLOX head, by name of their step, and the maps that they read."""

    classes: str
    objectness: str
    box: str
    class_map: str
    box_map: str


def yolox_tails(plan: Plan, num_classes: int) -> list[Tail] | None:
    """The kept part of a YOLOX head at the strides 8, 16 and 32; None where it looks otherwise."""
    tails = []
    for stride in STRIDES:
        last = [step for step in plan.steps if step.op == "last" and plan.stride(step.output) == stride]
        by_width = {step.settings["outputs"]: step for step in last}
        if len(last) != 3 or set(by_width) != {num_classes, 1, 4}:
            return None
        steps = by_width[num_classes], by_width[1], by_width[4]
        names = [step.name for step in steps]
        tails.append(Tail(names[0], names[1], names[2], steps[0].inputs[0], steps[2].inputs[0]))
    return tails


def _form(loaded: Loaded, spec: InputSpec, tails: list[Tail] | None, source: str) -> Form:
    kept = [name for tail in tails or () for name in (tail.class_map, tail.box_map)]
    plan = loaded.plan.cut(kept or level_maps(loaded.plan)).channels_first()
    return Form("detect", plan, bool(tails), spec.mean, spec.std, spec.colour == "rgb", source)


def level_maps(plan: Plan) -> list[str]:
    """The last map at each of the strides 8, 16 and 32 that all last layers of this stride depend on.

    Raises:
        ModelError: a stride has none.
    """
    found = []
    for stride in STRIDES:
        maps = [step.output for step in plan.steps if plan.stride(step.output) == stride and step.op != "last"]
        last = [step.output for step in plan.steps if step.op == "last" and plan.stride(step.output) == stride]
        shared = set(maps).intersection(*(plan.ancestors(name) for name in last))
        if not shared:
            raise ModelError(f"the network has no map at stride {stride}; a detector needs one at 8, 16 and 32")
        found.append(_narrow(plan, max(shared, key=maps.index)))
    return found


def _narrow(plan: Plan, tensor: str) -> str:
    """The map before a 1x1 convolution that only widens it for a coarser stage or a classifier's last layer."""
    maker = next(step for step in plan.steps if step.output == tensor)
    if maker.op != "conv" or maker.settings["kernel"] != [1, 1]:
        return tensor
    readers = plan.readers(tensor)
    is_last = bool(readers) and all(plan.stride(step.output) != plan.stride(tensor) for step in readers)
    return maker.inputs[0] if is_last and maker.settings["outputs"] > 2 * maker.settings["inputs"] else tensor


def _keep_rows(
    network: ForeignDetector, loaded: Loaded, tails: list[Tail], known: Sequence[str], wanted: Sequence[str]
) -> list[str]:
    """Fill the kept heads; rows of classes that the file does not know start as "hardly ever here"."""
    rows = partners(known, wanted)
    weights = loaded.weights
    for head, tail in zip(network.heads, tails, strict=True):
        for key in ("weight", "bias"):
            getattr(head.box, key).data.copy_(
                torch.cat([weights[f"{name}.{key}"] for name in (tail.box, tail.objectness)])
            )
        nn.init.normal_(head.classes.weight, std=0.01)
        nn.init.constant_(head.classes.bias, -math.log((1 - PRIOR) / PRIOR))
        for new, old in rows.items():
            head.classes.weight.data[new] = weights[f"{tail.classes}.weight"][old]
            head.classes.bias.data[new] = weights[f"{tail.classes}.bias"][old]
    return [wanted[new] for new in sorted(rows)]
