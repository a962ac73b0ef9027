"""Every family of models is read as its project reads it, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from golden.families import SIDE, Family, Found, sigmoid, softmax
from golden.pictures import picture
from golden.variants import ALL as FAMILIES

from edge.boxes import iou
from edge.errors import EdgeError
from edge.masks import mask_of
from edge.model import Model, open_model, prove_file
from edge.models.manifest import Manifest
from edge.models.propose import Choices, propose_manifest
from edge.types import Array, Classification, Detections, Embedding, Segmentation

SCORE = 0.3
IMAGE = picture(SIDE, SIDE)
RUN = {name: family for name, family in FAMILIES.items() if family.head is not None}
REFUSED = {name: family for name, family in FAMILIES.items() if family.head is None}


def written(name: str, folder: Path) -> Path:
    family = FAMILIES[name]
    for file, text in family.beside.items():
        (folder / file).write_text(text)
    return family.build(folder / f"{name}.onnx")


def proved(path: Path, family: Family, head: str | None = None) -> Manifest:
    proposal = propose_manifest(path, choices=Choices(head=head, **family.choices))
    return prove_file(path, [proposal.manifest, *proposal.others], proposal.flags, is_certain=proposal.is_certain)


def raw_outputs(path: Path, model: Model) -> dict[str, Array]:
    tensor, _ = model.preprocessor.images([IMAGE])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    extra = {
        value.name: np.array([[SIDE, SIDE]], np.int64) if "int" in value.type else np.ones((1, 2), np.float32)
        for value in session.get_inputs()[1:]
    }
    extra = {name: np.ones((1, SIDE, SIDE), np.int64) if "mask" in name else value for name, value in extra.items()}
    names = [value.name for value in session.get_outputs()]
    values = session.run(None, {session.get_inputs()[0].name: tensor[:1], **extra})
    return dict(zip(names, values, strict=True))


def suppressed(found: Found, threshold: float) -> Found:
    """Greedy NMS per class, box by box."""
    kept: Found = []
    for one in sorted(found, key=lambda each: -each[4]):
        rivals = [other for other in kept if other[5] == one[5]]
        boxes = np.array([other[:4] for other in rivals], np.float32).reshape(-1, 4)
        if not (iou(np.array([one[:4]], np.float32), boxes) > threshold).any():
            kept.append(one)
    return kept


@pytest.mark.parametrize("name", [name for name, family in RUN.items() if family.decode])
def test_boxes_are_those_of_the_familys_own_rule(name: str, tmp_path: Path) -> None:
    family, path = RUN[name], written(name, tmp_path)
    manifest = proved(path, family)
    assert manifest.head == family.head
    model = open_model(path, manifest=manifest, engine="ort", score=SCORE)
    assert family.decode is not None
    expected = [one for one in family.decode(raw_outputs(path, model)) if one[4] >= SCORE]
    if family.has_nms:
        expected = suppressed(expected, manifest.thresholds.iou)
    inside = [(*np.clip(one[:4], 0, SIDE), *one[4:]) for one in expected]
    inside = sorted((one for one in inside if one[2] > one[0] and one[3] > one[1]), key=lambda each: -each[4])
    (found,) = model.predict([IMAGE])
    assert isinstance(found, Detections)
    assert len(found) == len(inside) > 0
    order = np.argsort(-found.score, kind="stable")
    assert found.score[order] == pytest.approx([one[4] for one in inside], abs=1e-5)
    for number, one in zip(order, inside, strict=True):
        twins = [other for other in inside if abs(other[4] - one[4]) < 1e-5]
        assert any(
            int(found.class_id[number]) == other[5] and found.xyxy[number] == pytest.approx(other[:4], abs=2e-3)
            for other in twins
        ), one


@pytest.mark.parametrize("name", [name for name, family in RUN.items() if not family.decode and name != "yolov8-obb"])
def test_whole_pictures_are_read_as_they_are_meant(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    manifest = proved(path, RUN[name])
    assert manifest.head == RUN[name].head
    model = open_model(path, manifest=manifest, engine="ort")
    raw = next(iter(raw_outputs(path, model).values()))[0]
    (found,) = model.predict([IMAGE])
    match found:
        case Classification():
            values = raw.reshape(-1)
            expected = {"logits": softmax, "one-logit": sigmoid, "cell": softmax, "multi-label": sigmoid}.get(
                name.removeprefix("classify-")
            )
            assert found.score == pytest.approx(expected(values) if expected else values, abs=1e-6)
        case Segmentation():
            expected_map = {
                "segment": lambda: raw.argmax(0),
                "segment-nhwc": lambda: raw.argmax(-1),
                "segment-binary": lambda: raw[0] > 0.5,
                "segment-supervised": lambda: raw[0] > 0.5,
                "segment-aux": lambda: raw.argmax(0),
            }.get(name, lambda: raw.reshape(16, 16))()
            assert (found.class_map == expected_map).all()
            assert len(np.unique(found.class_map)) > 1
        case Embedding():
            assert found.vector == pytest.approx(raw, abs=1e-6)
        case _:
            pytest.fail(f"{name} gave {found}")


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_read_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    with pytest.raises(EdgeError) as caught:
        proved(path, REFUSED[name])
    with pytest.raises(EdgeError):
        open_model(path, engine="ort")
    assert REFUSED[name].refusal in str(caught.value)
    assert "\n" not in str(caught.value)


def test_masks_of_listed_objects_are_those_of_the_file(tmp_path: Path) -> None:
    path = written("torchvision-masks", tmp_path)
    manifest = proved(path, RUN["torchvision-masks"])
    model = open_model(path, manifest=manifest, engine="ort", score=SCORE)
    raw = raw_outputs(path, model)
    (found,) = model.predict([IMAGE])
    assert isinstance(found, Detections)
    assert found.masks is not None
    assert manifest.has_masks
    # a mask of this file is everything or nothing, by the object's score; it never leaves its box
    full = raw["masks"][raw["scores"] >= SCORE].max(axis=(1, 2, 3)) > 0.5
    assert full.any()
    for row, whole in enumerate(full):
        mask, _ = mask_of(found.masks, row)
        assert mask.all() if whole else not mask.any()


def test_key_points_of_listed_objects_are_those_of_the_file(tmp_path: Path) -> None:
    path = written("rtmo", tmp_path)
    manifest = proved(path, RUN["rtmo"])
    assert manifest.kpt_shape == (17, 3)
    assert len(manifest.keypoint_names) == 17
    model = open_model(path, manifest=manifest, engine="ort", score=SCORE)
    raw = raw_outputs(path, model)
    (found,) = model.predict([IMAGE])
    assert isinstance(found, Detections)
    assert found.keypoints is not None
    assert found.keypoints == pytest.approx(raw["keypoints"][0][raw["dets"][0, :, 4] >= SCORE], abs=1e-5)


def test_heat_maps_tell_how_many_key_points_there_are(tmp_path: Path) -> None:
    path = written("torchvision-points", tmp_path)
    manifest = proved(path, RUN["torchvision-points"])
    assert manifest.kpt_shape == (5, 3)
    model = open_model(path, manifest=manifest, engine="ort", score=SCORE)
    raw = raw_outputs(path, model)
    (found,) = model.predict([IMAGE])
    assert isinstance(found, Detections)
    assert found.keypoints is not None
    expected = raw["keypoints"][raw["scores"] >= SCORE]
    assert found.keypoints[..., :2] == pytest.approx(expected[..., :2], abs=1e-3)


def test_a_background_that_heads_the_list_of_classes_is_no_class(tmp_path: Path) -> None:
    path = written("torchvision-masks", tmp_path)
    names = RUN["torchvision-masks"].choices["classes"]
    listed = propose_manifest(path, choices=Choices(classes=("__background__", *names), classes_from="the person"))
    assert listed.manifest.classes == names
