"""From an ONNX file to a classifier of ours: everything up to the last layer, whose rows of known classes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from edge.errors import ModelError
from edge.model import find_manifest
from export.models.foreign import Form
from export.models.foreign_classifier import ForeignClassifier
from export.models.plan import Plan, Step
from export.models.plan_network import fill
from export.transfer.read import Loaded, partners, read_onnx, source_of


def read_classifier(
    path: Path, classes: Sequence[str], dropout: float = 0.0, *, fresh_head: bool = False
) -> tuple[ForeignClassifier, list[str]]:
    """A classifier for these classes from an ONNX file.

    Args:
        path: the file, with a model card or manifest that tells how its pictures are prepared.
        classes: wanted names; the last layer's rows of those it knows are kept.
        dropout: share of features dropped before the last layer while training.
        fresh_head: keep no row.

    Returns:
        The network in evaluation mode, and the names of the classes whose rows were kept.

    Raises:
        ModelError: the file cannot be read, or ends in no layer of classes.
    """
    loaded = read_onnx(path)
    manifest = find_manifest(path)
    spec = manifest.input
    last = last_layer(loaded.plan, path.name)
    plan = loaded.plan.cut([last.inputs[0]]).channels_first()
    form = Form("classify", plan, False, spec.mean, spec.std, spec.colour == "rgb", source_of(path, manifest))
    network = ForeignClassifier(form, len(classes), dropout)
    fill(network.trunk, loaded.weights)
    kept = [] if fresh_head else _keep_rows(network, loaded, last, manifest.classes, classes)
    return network.eval(), kept


def last_layer(plan: Plan, name: str) -> Step:
    """The layer that makes the classes.

    Raises:
        ModelError: there is none.
    """
    layers = [step for step in plan.steps if step.op in ("linear", "last")]
    if not layers:
        raise ModelError(f"{name}: expected a classifier that ends in a fully connected layer or a 1x1 convolution")
    return layers[-1]


def _keep_rows(
    network: ForeignClassifier, loaded: Loaded, last: Step, known: Sequence[str], wanted: Sequence[str]
) -> list[str]:
    weight = loaded.weights[f"{last.name}.weight"].flatten(1)
    rows = partners(known, wanted) if len(known) == len(weight) else {}
    with torch.no_grad():
        for new, old in rows.items():
            network.full.weight[new] = weight[old]
            network.full.bias[new] = loaded.weights[f"{last.name}.bias"][old]
    return [wanted[new] for new in sorted(rows)]
