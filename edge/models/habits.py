"""How each family of models was trained: colour, mean, std, resize; from the projects' own inference code."""

from __future__ import annotations

from typing import Any

from edge.models.manifest import Thresholds

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
_UNIT: dict[str, Any] = {"colour": "rgb", "std": (255.0,) * 3}
_IMAGENET: dict[str, Any] = {"colour": "rgb", "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
_PILLOW: dict[str, Any] = {"resize": "stretch", "interpolation": "antialias"}

HABITS: dict[str, dict[str, Any]] = {
    "edgenet": {"colour": "bgr"},
    "yolox": {"colour": "bgr", "anchor": "top-left", "pad": 114},
    "yolov5": {**_UNIT, "pad": 114},
    "yolov8": {**_UNIT, "pad": 114},
    "nanodet": {"colour": "bgr", "mean": IMAGENET_MEAN[::-1], "std": IMAGENET_STD[::-1], "pad": 0},
    # its configurations say keep_ratio: False
    "nanodetplus": {"colour": "bgr", "mean": IMAGENET_MEAN[::-1], "std": IMAGENET_STD[::-1], "resize": "stretch"},
    "picodet": {**_IMAGENET, "resize": "stretch", "interpolation": "cubic"},
    "fastestdet": {"colour": "bgr", "std": (255.0,) * 3, "resize": "stretch"},
    # mean and std of COCO in its own code, in BGR
    "centernet": {"colour": "bgr", "mean": (104.02, 113.99, 119.87), "std": (73.66, 69.89, 70.92), "pad": 0},
    "detr": {**_UNIT, **_PILLOW},
    "detr-imagenet": {**_IMAGENET, **_PILLOW},
    "detr-softmax": {**_IMAGENET, **_PILLOW},
    "rf-detr": {**_IMAGENET, "resize": "stretch"},
    "ultralytics-detr": {**_UNIT, "resize": "stretch"},
    "ssd": {"colour": "rgb", "mean": (127.0,) * 3, "std": (128.0,) * 3, "resize": "stretch"},
    "yolonas": {"colour": "bgr", "std": (255.0,) * 3, "pad": 114},
    # its code reads pictures as RGB and divides by nothing
    "damoyolo": {"colour": "rgb", "resize": "stretch"},
    # PP-YOLOE+; the first PP-YOLOE wants ImageNet's mean and std
    "ppyoloe": {**_UNIT, "resize": "stretch", "interpolation": "cubic"},
    # RTMDet's; other models of MMDetection want RGB, and another mean and std
    "mmdetection": {
        "colour": "bgr",
        "mean": IMAGENET_MEAN[::-1],
        "std": IMAGENET_STD[::-1],
        "anchor": "top-left",
        "pad": 114,
    },
    "listed": {**_UNIT, "pad": 114},
    "torchvision": {**_UNIT, "resize": "stretch"},
    # OpenVINO's zoo, whose files have their mean inside
    "detection-output": {"colour": "bgr", "resize": "stretch"},
    "tensorflow": {"colour": "rgb", "resize": "stretch"},
    "semantic": {**_IMAGENET, "resize": "stretch"},
    "classify": {**_IMAGENET, "resize": "crop", "crop": 0.875, "interpolation": "antialias"},
    "ultralytics-classify": {**_UNIT, "resize": "crop", "interpolation": "antialias"},
    **{name: {**_UNIT, "pad": 114} for name in ("end2end", "yolov8-seg", "yolov8-pose", "yolov8-obb")},
    **{name: {**_UNIT, "pad": 114} for name in ("end2end-seg", "end2end-pose", "end2end-obb", "end2end-seg-pose")},
    "triple": {**_UNIT, "pad": 114},
    "embedding": {**_IMAGENET, "resize": "stretch"},
}
# families whose models differ among themselves in what they were trained with
VARIED = (
    *("classify", "embedding", "semantic", "ssd", "ppyoloe", "torchvision", "tensorflow", "detr-softmax", "detr"),
    *("mmdetection", "listed", "damoyolo", "detection-output"),
)
THRESHOLDS: dict[str, Thresholds] = {
    "yolox": Thresholds(score=0.3, iou=0.45),
    "nanodet": Thresholds(score=0.35, iou=0.6),
    "nanodetplus": Thresholds(score=0.35, iou=0.6),
    "ssd": Thresholds(score=0.7, track_score=0.3, iou=0.3),
}
