"""Assignment and losses: who learns what, and what is right costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.models.detector import RawBoxes, grid_points
from export.training.assign import ONE_TO_MANY, ONE_TO_ONE, Assignment, Rule, Truth, assign, lay_out, pairwise_iou
from export.training.losses import (
    borders,
    box_branch,
    class_weights,
    classification_loss,
    complete_iou,
    segmentation_loss,
)

CENTRES, STRIDES = grid_points([(8, 8), (4, 4), (2, 2)])


def truth_of(*boxes: tuple[float, ...], ignored: tuple[int, ...] = (), weight: float = 1.0) -> Truth:
    """One picture of 64x64 with these boxes, all of class 1."""
    count = max(1, len(boxes))
    xyxy = torch.tensor(boxes or [(0.0, 0.0, 0.0, 0.0)]).reshape(1, count, 4)
    skip = torch.tensor([[row in ignored for row in range(count)]])
    valid = ~skip if boxes else torch.zeros(1, 1, dtype=torch.bool)
    return Truth(xyxy, torch.ones(1, count, dtype=torch.int64), torch.full((1, count), weight), valid, skip)


def guess() -> RawBoxes:
    """Boxes of two strides to each side, all classes equally unlikely."""
    reach = 2 * STRIDES[:, None]
    return RawBoxes(torch.full((1, 84, 3), -3.0), torch.cat([CENTRES - reach, CENTRES + reach], 1)[None])


def assigned(truth: Truth, rule: Rule, raw: RawBoxes | None = None) -> Assignment:
    raw = raw or guess()
    return assign(raw.logits, raw.xyxy, lay_out(CENTRES, STRIDES, truth, 3), rule)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x, y = draw(st.floats(0, 50)), draw(st.floats(0, 50))
    return x, y, x + draw(st.floats(2, 14)), y + draw(st.floats(2, 14))


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes(), min_size=1, max_size=6))
def test_one_to_one_gives_each_object_at_most_one_grid_point(found: list[tuple[float, float, float, float]]) -> None:
    target = assigned(truth_of(*found), ONE_TO_ONE)
    assert 1 <= int(target.positive.sum()) <= len(found)


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes(), min_size=1, max_size=6))
def test_targets_are_qualities_of_the_right_class(found: list[tuple[float, float, float, float]]) -> None:
    target = assigned(truth_of(*found), ONE_TO_MANY)
    assert bool((target.score[..., [0, 2]] == 0).all())
    assert bool((target.score[~target.positive] == 0).all())
    assert float(target.score.max()) <= 1.0 + 1e-5


def test_even_a_tiny_object_between_grid_points_is_learned() -> None:
    target = assigned(truth_of((7.0, 7.0, 9.0, 9.0)), ONE_TO_ONE)
    assert int(target.positive.sum()) == 1


def test_one_to_many_gives_an_object_up_to_ten_points_inside_it() -> None:
    target = assigned(truth_of((8.0, 8.0, 56.0, 56.0)), ONE_TO_MANY)
    chosen = CENTRES[target.positive[0]]
    assert len(chosen) == 10
    assert bool(((chosen > 8) & (chosen < 56)).all())


def test_the_point_with_the_better_box_is_chosen() -> None:
    raw = guess()
    raw.xyxy[0, 27] = torch.tensor([16.0, 16.0, 40.0, 40.0])
    target = assigned(truth_of((16.0, 16.0, 40.0, 40.0)), ONE_TO_ONE, raw)
    assert target.positive[0].nonzero().flatten().tolist() == [27]
    assert float(target.score[0, 27, 1]) == pytest.approx(1.0, abs=1e-4)


def test_a_contested_point_goes_to_the_object_it_overlaps_most() -> None:
    target = assigned(truth_of((10.0, 10.0, 40.0, 40.0), (12.0, 12.0, 60.0, 60.0)), ONE_TO_MANY)
    owners = target.xyxy[target.positive]
    assert {tuple(owner) for owner in owners.tolist()} == {(10.0, 10.0, 40.0, 40.0), (12.0, 12.0, 60.0, 60.0)}


def test_an_empty_picture_has_only_background() -> None:
    target = assigned(truth_of(), ONE_TO_MANY)
    assert not bool(target.positive.any()) and bool((target.weight == 1).all()) and not bool(target.silent.any())


def test_ignored_objects_are_neither_learned_nor_background() -> None:
    target = assigned(truth_of((0.0, 0.0, 32.0, 32.0), ignored=(0,)), ONE_TO_MANY)
    inside = ((CENTRES > 0) & (CENTRES < 32)).all(1)
    assert not bool(target.positive.any())
    assert bool(target.silent[0, inside, 1].all()) and not bool(target.silent[0, ~inside].any())
    # another class may still be told that it is not there
    assert not bool(target.silent[..., [0, 2]].any())


def test_nothing_is_learned_where_an_ignored_object_lies() -> None:
    raw = RawBoxes(torch.zeros(1, 84, 3, requires_grad=True), guess().xyxy)
    classes, _ = box_branch(raw, assigned(truth_of((0.0, 0.0, 64.0, 64.0), ignored=(0,)), ONE_TO_ONE))
    classes.backward()
    assert raw.logits.grad is not None
    assert not bool(raw.logits.grad[..., 1].any()) and bool((raw.logits.grad[..., 0] > 0).all())


def test_padding_changes_nothing() -> None:
    box = (8.0, 8.0, 40.0, 30.0)
    alone = truth_of(box)
    padded = Truth(
        torch.cat([alone.xyxy, torch.zeros(1, 3, 4)], 1), torch.tensor([[1, 0, 0, 0]]),
        torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[True, False, False, False]]),
        torch.zeros(1, 4, dtype=torch.bool),
    )  # fmt: skip
    a, b = assigned(alone, ONE_TO_MANY), assigned(padded, ONE_TO_MANY)
    torch.testing.assert_close(a.score, b.score)
    torch.testing.assert_close(a.weight, b.weight)


def test_perfect_boxes_and_scores_cost_almost_nothing() -> None:
    raw = guess()
    truth = truth_of((16.0, 16.0, 40.0, 40.0))
    raw.xyxy[0, 27] = truth.xyxy[0, 0]
    raw.logits[:] = -12.0
    raw.logits[0, 27, 1] = 12.0
    classes, box = box_branch(raw, assigned(truth, ONE_TO_ONE, raw))
    assert float(classes) < 0.01 and float(box) < 0.01


def test_losses_have_gradients_even_without_objects() -> None:
    raw = RawBoxes(torch.zeros(1, 84, 3, requires_grad=True), torch.zeros(1, 84, 4, requires_grad=True))
    classes, box = box_branch(raw, assigned(truth_of(), ONE_TO_ONE))
    (classes + box).backward()
    assert raw.logits.grad is not None and float(raw.logits.grad.min()) > 0
    assert raw.xyxy.grad is not None and not bool(raw.xyxy.grad.any())


def test_labels_of_half_trust_count_half() -> None:
    raw = guess()
    field = truth_of((16.0, 16.0, 40.0, 40.0), weight=0.5)
    assert float(assigned(field, ONE_TO_ONE, raw).weight.min()) == 0.5


@pytest.mark.parametrize(
    ("other", "expected"),
    [((0.0, 0.0, 10.0, 10.0), 1.0), ((20.0, 0.0, 30.0, 10.0), -0.4), ((0.0, 0.0, 10.0, 20.0), 0.45)],
)
def test_complete_iou_punishes_distance_and_shape(other: tuple[float, ...], expected: float) -> None:
    found = complete_iou(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([other]))
    assert float(found) == pytest.approx(expected, abs=0.01)


def test_pairwise_iou_agrees_with_the_runtime() -> None:
    from edge.boxes import iou

    rng = np.random.default_rng(1)
    low = rng.uniform(0, 50, (9, 2))
    xyxy = np.concatenate([low, low + rng.uniform(1, 30, (9, 2))], 1).astype(np.float32)
    found = pairwise_iou(torch.from_numpy(xyxy[:4])[None], torch.from_numpy(xyxy[4:])[None])[0].numpy()
    np.testing.assert_allclose(found, iou(xyxy[:4], xyxy[4:]), atol=1e-5)


def test_smoothing_keeps_a_sure_answer_from_being_free() -> None:
    logits, label = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0])
    assert float(classification_loss(logits, label, 0.0).total) < 1e-6
    assert float(classification_loss(logits, label, 0.1).total) > 0.5


def test_unlabelled_pixels_cost_nothing() -> None:
    mask = torch.full((1, 32, 32), 255)
    loss = segmentation_loss(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 2, 2), torch.full((1, 1, 4, 4), -20.0), mask)
    assert float(loss.total) < 1e-3
    mask[0, :, :16] = 1
    right = torch.zeros(1, 3, 8, 8)
    right[:, 1] = 30
    assert float(segmentation_loss(right, right[:, :, ::4, ::4], torch.zeros(1, 1, 4, 4), mask).parts["class"]) < 1e-3


def test_borders_are_where_two_classes_meet() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    mask[0, :, 2:] = 1
    assert borders(mask)[0].nonzero().tolist() == [[row, 1] for row in range(4)]


def test_rare_classes_weigh_more() -> None:
    weights = class_weights(np.array([1000, 10, 100], np.float32))
    assert weights[1] > weights[2] > weights[0]
    assert float(weights.mean()) == pytest.approx(1.0)
