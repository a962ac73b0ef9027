"""Real models give their reference outputs through the real engine and head."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.model import open_model
from edge.types import Classification, Detections, Segmentation, UInt8


def read(path: Path) -> UInt8:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image, np.uint8)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["yolox_nano_416", "nanodet_m_320", "ultraface_rfb_320"])
def test_real_detectors_give_their_reference_boxes(shared_data: Path, name: str) -> None:
    model = open_model(shared_data / "models" / f"{name}.onnx", threads=1)
    expected = json.loads((shared_data / "models" / f"{name}.expected.json").read_text())
    compared = 0
    for key, objects in expected.items():
        # the voc images next to the project were compressed again; the samples are the very files
        if "samples" not in key:
            continue
        (found,) = model.predict([read(shared_data / key.removeprefix("core/"))])
        assert isinstance(found, Detections)
        for thing in objects:
            compared += 1
            error = np.abs(found.xyxy - np.array(thing["box"])).max(1)
            same = [model.manifest.classes[index] == thing["cls"] for index in found.class_id]
            assert ((error < 1.5) & np.array(same) & (np.abs(found.score - thing["score"]) < 0.02)).any(), thing
    assert compared >= 7


@pytest.mark.shared
def test_the_real_classifier_and_segmenter_see_what_is_there(shared_data: Path) -> None:
    classifier = open_model(shared_data / "models" / "mobilenet_v2_224_int8.onnx", threads=1)
    (cat,) = classifier.predict([read(shared_data / "samples" / "cat_720p.jpg")])
    assert isinstance(cat, Classification)
    assert classifier.manifest.classes[int(cat.score.argmax())] == "Egyptian cat"
    segmenter = open_model(shared_data / "models" / "deeplabv3_mnv2_dm05_int8.onnx", threads=1)
    (street,) = segmenter.predict([read(shared_data / "samples" / "people_walking_f20.jpg")])
    assert isinstance(street, Segmentation)
    assert float((street.class_map == segmenter.manifest.classes.index("person")).mean()) > 0.1
