"""Networks: shapes, fusing, costs, and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from export.models.backbone import PLANS, Size
from export.models.blocks import Conv, CspBlock, RepConv, conv_units, fused
from export.models.build import Network
from export.models.classifier import Classifier
from export.models.detector import Detector, RawBoxes, best_boxes, grid_points
from export.models.graph import ExportGraph
from export.models.segmenter import Segmenter


def stirred(model: nn.Module) -> nn.Module:
    """Batch norms as if trained, so that folding them wrongly would show."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.rand(module.num_features, generator=generator) * 0.2 - 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) * 0.5 + 0.6)
            module.bias.data.copy_(torch.rand(module.num_features, generator=generator) * 0.2 - 0.1)
    return model.eval()


@pytest.mark.parametrize(
    "block",
    [Conv(8, 12, 3, 2), Conv(8, 8, 3, groups=8), RepConv(8, 8), RepConv(8, 12), RepConv(8, 12, 2), CspBlock(8, 16, 2)],
    ids=["strided", "grouped", "identity", "wider", "strided-branches", "csp"],
)
def test_fused_block_equals_unfused(block: nn.Module) -> None:
    x = torch.rand(2, 8, 14, 18)
    with torch.no_grad():
        expected = stirred(block)(x)
        torch.testing.assert_close(fused(block)(x), expected, rtol=1e-4, atol=1e-5)


def test_fusing_leaves_the_original_alone_and_removes_every_branch_and_batch_norm() -> None:
    model = Detector("nano", 3).eval()
    made = fused(model)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert all(unit.point is None for unit in conv_units(made) if isinstance(unit, RepConv))
    assert all(unit.conv.bias is not None for unit in conv_units(made))


@pytest.mark.parametrize("size", ["nano", "small", "medium"])
def test_fused_detector_equals_unfused(size: Size) -> None:
    model = stirred(Detector(size, 3))
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = model(x), fused(model)(x)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-3)


def test_only_layers_that_quantize_well_are_used() -> None:
    allowed = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Upsample, nn.Identity, nn.Linear, nn.Dropout)
    for model in (Detector("nano", 3), Segmenter("nano", 5), Classifier("nano", 10)):
        leaves = [module for module in model.modules() if not list(module.children())]
        foreign = {type(leaf).__name__ for leaf in leaves if not isinstance(leaf, allowed)} - {"GlobalPool"}
        assert not foreign


def test_widths_are_multiples_of_sixteen() -> None:
    assert all(width % 16 == 0 for plan in PLANS.values() for width in (*plan.widths, plan.neck, plan.tower))


@dataclass(frozen=True, slots=True)
class Cost:
    """Attributes: ``parameters`` and ``gmacs`` (10^9 multiply-adds per picture) of the exported form."""

    parameters: int
    gmacs: float


def cost(network: Network, height: int, width: int) -> Cost:
    """Count what one forward pass of the exported form uses; layers that only teach are not counted."""
    model = fused(network).cpu()
    seen: dict[nn.Module, int] = {}

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        seen[module] = output[0].numel() * weight[0].numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    for handle in handles:
        handle.remove()
    parameters = sum(value.numel() for layer in seen for value in layer.parameters())
    return Cost(parameters, sum(seen.values()) / 1e9)


def test_nano_detector_is_small_enough_for_the_demo() -> None:
    found = cost(Detector("nano", 3), 288, 512)
    assert found.parameters * 4 < 6e6
    assert found.gmacs < 0.8


def test_sizes_grow() -> None:
    costs = [cost(Detector(size, 3), 64, 64) for size in ("nano", "small", "medium")]
    assert costs == sorted(costs, key=lambda item: item.parameters)
    assert costs[0].gmacs < costs[1].gmacs < costs[2].gmacs


def test_detector_has_one_box_per_grid_point_around_it() -> None:
    model = Detector("nano", 3).eval()
    with torch.no_grad():
        raw = model(torch.rand(2, 3, 64, 96))
    points, strides = grid_points([(8, 12), (4, 6), (2, 3)])
    assert raw.logits.shape == (2, 126, 3)
    assert strides.tolist() == [8.0] * 96 + [16.0] * 24 + [32.0] * 6
    assert bool((raw.xyxy[..., :2] <= points).all()) and bool((raw.xyxy[..., 2:] >= points).all())
    assert bool(raw.xyxy.isfinite().all())


def test_grid_points_are_row_by_row_cell_centres() -> None:
    points, _ = grid_points([(2, 2), (1, 1), (1, 1)])
    assert points.tolist() == [[4, 4], [12, 4], [4, 12], [12, 12], [8, 8], [16, 16]]


def test_the_best_boxes_come_first_each_with_its_best_class() -> None:
    logits = torch.tensor([[[0.0, 1.0], [3.0, -1.0], [-2.0, -3.0]]])
    xyxy = torch.arange(12.0).reshape(1, 3, 4)
    boxes, scores, labels = best_boxes(RawBoxes(logits, xyxy), 2)
    assert boxes.tolist() == [xyxy[0, 1].tolist(), xyxy[0, 0].tolist()] or boxes[0, 0].tolist() == xyxy[0, 1].tolist()
    assert labels.tolist() == [[0, 1]]
    torch.testing.assert_close(scores, torch.tensor([[3.0, 1.0]]).sigmoid())


def test_keeping_more_boxes_than_there_are_gives_all() -> None:
    raw = RawBoxes(torch.zeros(1, 5, 2), torch.zeros(1, 5, 4))
    assert best_boxes(raw, 100)[1].shape == (1, 5)


def test_segmenter_gives_a_cell_for_every_four_pixels() -> None:
    model = Segmenter("nano", 5).eval()
    with torch.no_grad():
        raw = model.branches(torch.rand(2, 3, 64, 96))
        assert model(torch.rand(2, 3, 64, 96)).shape == (2, 5, 16, 24)
    assert raw.coarse.shape == (2, 5, 4, 6)
    assert raw.border.shape == (2, 1, 8, 12)


@pytest.mark.parametrize(("tiny", "side"), [(False, 96), (True, 32)])
def test_classifier_takes_large_and_tiny_pictures(tiny: bool, side: int) -> None:
    model = Classifier("nano", 10, tiny_input=tiny).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, side, side)).shape == (2, 10)


def test_graph_with_folded_scale_equals_the_network_on_scaled_pictures() -> None:
    model = stirred(Classifier("nano", 4, tiny_input=True))
    frames = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(frames.permute(0, 3, 1, 2) / 255.0).softmax(1)
        (found,) = ExportGraph(model)(frames)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_exported_branch_is_chosen() -> None:
    model = stirred(Detector("nano", 3))
    for head in model.heads:
        nn.init.constant_(head.classes.bias, 30.0)
        nn.init.constant_(head.many_classes.bias, -30.0)
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    with torch.no_grad():
        one = ExportGraph(model)(frames)[1]
        many = ExportGraph(model, many=True)(frames)[1]
    assert float(one.min()) > 0.5 > float(many.max())


def test_classifier_drops_features_only_while_training() -> None:
    model = Classifier("nano", 4, dropout=0.5, tiny_input=True)
    x = torch.rand(4, 3, 32, 32)
    model.eval()
    with torch.no_grad():
        assert bool((model(x) == model(x)).all())
        model.drop.train()
        assert not bool((model(x) == model(x)).all())
