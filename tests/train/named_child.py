"""What tests/train/test_named_backbones.py runs next to the tests: timm and torchvision must not be seen by any other.

Usage: python named_child.py CASE FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch
from torch import nn

LIBRARIES = Path(sys.prefix) / "backbones"


def let_torchvision_load() -> torch.library.Library:
    """Name torchvision's operators, which it wants to see: PyPI's build has them for CUDA only. Backbones use none."""
    sys.path.append(str(LIBRARIES))
    source = (LIBRARIES / "torchvision" / "_meta_registrations.py").read_text()
    named = torch.library.Library("torchvision", "DEF")
    for name in sorted(set(re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"', source))):
        named.define(f"{name}() -> ()")
    return named


def features_are_those_of_the_library(folder: Path) -> None:
    """The file has a last layer for seven classes; that of the network has a thousand."""
    import torchvision

    from export.models.foreign_classifier import ForeignClassifier
    from export.transfer.classifier import read_classifier
    from export.transfer.named import named_backbone

    torch.manual_seed(5)
    theirs = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=7)
    stir(theirs)
    torch.save({"state_dict": theirs.state_dict()}, folder / "weights.pth")
    with named_backbone("torchvision:shufflenet_v2_x0_5", folder / "weights.pth", (64, 96), 1) as path:
        ours, kept = read_classifier(path, ["a", "b"], fresh_head=True)
    assert isinstance(ours, ForeignClassifier)
    assert kept == []
    pixels = torch.rand(2, 3, 64, 96)
    theirs.fc = nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs.eval()((pixels.flip(1) - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1))
        (found,) = ours.trunk(ours.normalise(pixels))
    difference = float((found.flatten(1) - expected).abs().max() / expected.abs().max())
    tell(difference=difference, source=ours.form.source)


def maps_have_strides(folder: Path) -> None:
    """For each network the shapes of the maps that a detector of a 64x96 picture gets."""
    from export.transfer.detector import read_detector
    from export.transfer.named import named_backbone

    shapes = {}
    for name in ("timm:test_efficientnet.r160_in1k", "timm:mobilenetv3_small_050", "torchvision:mobilenet_v2"):
        with named_backbone(name, None, (64, 96), 1) as path:
            plan = read_detector(path, ["a"], fresh_head=True)[0].form.plan
        shapes[name] = [plan.shapes[output] for output in plan.outputs]
    tell(shapes=shapes)


def weights_of_another_port_fit_by_order(folder: Path) -> None:
    """Every tensor is called differently in the file. A file of another network is refused."""
    import timm

    from edge.errors import ModelError
    from export.transfer.named import load

    torch.manual_seed(5)
    theirs, ours = timm.create_model("test_efficientnet"), timm.create_model("test_efficientnet")
    stir(theirs)
    tensors = theirs.state_dict()
    torch.save({f"port.{number}": value for number, value in enumerate(tensors.values())}, folder / "port.pth")
    load(ours, folder / "port.pth", "timm:test_efficientnet")
    is_same = all(torch.equal(value, tensors[name]) for name, value in ours.state_dict().items())
    torch.save({f"port.{number}": value for number, value in enumerate(reversed(tensors.values()))}, folder / "bad.pth")
    refusal = ""
    try:
        load(ours, folder / "bad.pth", "timm:test_efficientnet")
    except ModelError as error:
        refusal = str(error)
    tell(is_same=is_same, refusal=refusal)


def recipe_trains(folder: Path) -> None:
    """``edge train`` with the recipe in the folder."""
    from edge.cli import main

    main(["train", str(folder / "recipe.toml"), "--out", str(folder / "run")])


def stir(network: nn.Module) -> None:
    """Batch norms as if trained."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)


def tell(**facts: object) -> None:
    print(json.dumps(facts))


CASES = {
    case.__name__: case
    for case in (
        features_are_those_of_the_library,
        maps_have_strides,
        weights_of_another_port_fit_by_order,
        recipe_trains,
    )
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    library = let_torchvision_load()
    CASES[sys.argv[1]](Path(sys.argv[2]))
