"""Channels brought to one height change nothing but how well they are coded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_yolox import write_tiny_yolox
from train.test_transfer import CLASSES, pictures

from export.models.blocks import fused
from export.models.foreign_detector import ForeignDetector
from export.transfer.activations import with_activation
from export.transfer.detector import read_detector
from export.transfer.equalise import channel_groups, equalise

pytestmark = [pytest.mark.train, pytest.mark.timeout(200)]


@pytest.fixture
def relu(tmp_path: Path) -> ForeignDetector:
    """A ReLU network in which some channels are a hundred times as high as others."""
    network, _ = read_detector(write_tiny_yolox(tmp_path / "tiny.onnx", len(CLASSES)), CLASSES)
    with_activation(network, "relu")
    with torch.no_grad():
        network.trunk.s2.conv1.bn.weight[::2] *= 100  # type: ignore[union-attr,index,operator]
    return network


def spread(network: ForeignDetector) -> float:
    """Highest channel of the first map by its median one."""
    with torch.no_grad():
        first = network.form.plan.steps[0].output
        (value,) = network.trunk.run(network.normalise(pictures(1)[0]), [first])
    heights = value.amax((0, 2, 3))
    return float(heights.max() / heights.median())


def test_the_network_computes_the_same(relu: ForeignDetector) -> None:
    with torch.no_grad():
        before = relu(pictures(1)[0])
        was = spread(relu)
        equalise(relu, pictures(8))
        after = relu(pictures(1)[0])
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.xyxy, before.xyxy, rtol=1e-3, atol=1e-2)
    assert spread(relu) < 0.3 * was


def test_an_addition_ties_its_sides_and_a_pool_hands_on(relu: ForeignDetector) -> None:
    plan = relu.form.plan
    groups = channel_groups(plan)
    add = next(step for step in plan.steps if step.op == "add")
    assert torch.equal(groups[add.inputs[0]], groups[add.inputs[1]])
    pool = next(step for step in plan.steps if step.op == "maxpool")
    assert torch.equal(groups[pool.inputs[0]], groups[pool.output])
    assert groups[plan.input].tolist() == [0, 0, 0]


def test_a_relu_network_takes_pairs_of_pixels_and_finds_the_same(relu: ForeignDetector) -> None:
    frames = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
    plain, paired = fused(relu), fused(relu)
    plain.normalise.fold(plain.trunk)
    paired.fold_input()
    assert paired.takes_pairs
    with torch.no_grad():
        expected = plain(plain.enter(frames.float())).logits
        found = paired(paired.enter(frames.float())).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
