"""Golden files from Ultralytics' own exporter and predictor: ``python export_ultralytics.py FOLDER``.

Run in an environment of its own (ultralytics 8.4.190, torch 2.13.0, onnx, onnxruntime, onnxslim); nothing of it is a
dependency. The networks are the project's, with random weights and loud class scores. One ``.npz`` each: the picture's
answer by Ultralytics, the graph's inputs, outputs and metadata, so that ``replay.py`` can rebuild the file's face.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from pictures import picture  # type: ignore[import-not-found]  # run as a script, next to it
from ultralytics import YOLO
from ultralytics.nn import tasks

SIDE = 160
CLASSES = ("ball", "helmet", "no helmet", "vest", "cone")
CONF, IOU = 0.3, 0.5
NETWORKS = {
    "detect": tasks.DetectionModel,
    "segment": tasks.SegmentationModel,
    "pose": tasks.PoseModel,
    "obb": tasks.OBBModel,
    "classify": tasks.ClassificationModel,
}
# name, configuration, task, arguments of the export
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("yolov5n", "yolov5n.yaml", "detect", {}),
    ("yolov6n", "yolov6n.yaml", "detect", {}),
    ("yolov8n", "yolov8n.yaml", "detect", {}),
    ("yolov9t", "yolov9t.yaml", "detect", {}),
    ("yolo11n", "yolo11n.yaml", "detect", {}),
    ("yolo12n", "yolo12n.yaml", "detect", {}),
    ("yolo26n", "yolo26n.yaml", "detect", {}),
    ("yolo26n_end2end", "yolo26n.yaml", "detect", {"nms": False}),
    ("yolov10n_end2end", "yolov10n.yaml", "detect", {"nms": False}),
    ("yolov8n_nms", "yolov8n.yaml", "detect", {"nms": True}),
    ("yolo11n_nms", "yolo11n.yaml", "detect", {"nms": True}),
    ("yolov8n_p2", "yolov8n-p2.yaml", "detect", {}),
    ("yolov8n_p6", "yolov8n-p6.yaml", "detect", {"imgsz": 192}),
    ("yolov8n_dynamic", "yolov8n.yaml", "detect", {"dynamic": True}),
    ("yolov8n_wide", "yolov8n.yaml", "detect", {"imgsz": (96, 192)}),
    ("yolov8n_half", "yolov8n.yaml", "detect", {"half": True}),
    ("yolov3_tiny", "yolov3-tiny.yaml", "detect", {}),
    ("yolov8n_seg", "yolov8n-seg.yaml", "segment", {}),
    ("yolo11n_seg", "yolo11n-seg.yaml", "segment", {}),
    ("yolo26n_seg_end2end", "yolo26n-seg.yaml", "segment", {"nms": False}),
    ("yolov8n_seg_nms", "yolov8n-seg.yaml", "segment", {"nms": True}),
    ("yolov8n_pose", "yolov8n-pose.yaml", "pose", {}),
    ("yolo11n_pose", "yolo11n-pose.yaml", "pose", {}),
    ("yolo26n_pose_end2end", "yolo26n-pose.yaml", "pose", {"nms": False}),
    ("yolo11n_pose_nms", "yolo11n-pose.yaml", "pose", {"nms": True}),
    ("yolov8n_obb", "yolov8n-obb.yaml", "obb", {}),
    ("yolo11n_obb", "yolo11n-obb.yaml", "obb", {}),
    ("yolo26n_obb_end2end", "yolo26n-obb.yaml", "obb", {"nms": False}),
    ("yolo12n_obb", "yolo12n-obb.yaml", "obb", {}),
    ("yolo11n_obb_nms", "yolo11n-obb.yaml", "obb", {"nms": True}),
    ("yolov8n_cls", "yolov8n-cls.yaml", "classify", {}),
    ("yolo11n_cls", "yolo11n-cls.yaml", "classify", {}),
    ("rtdetr", "rtdetr-resnet50.yaml", "detect", {}),
]


def make(name: str, cfg: str, task: str, arguments: dict, folder: Path) -> None:
    """Export one network and keep what it says."""
    torch.manual_seed(len(name))
    num_classes = 1 if task == "pose" else len(CLASSES)
    kind = tasks.RTDETRDetectionModel if name == "rtdetr" else NETWORKS[task]
    if name == "rtdetr":
        from ultralytics import RTDETR

        yolo = RTDETR(cfg)
    else:
        yolo = YOLO(cfg, task=task)
    net = kind(cfg, nc=num_classes, verbose=False)
    net.names = dict(enumerate(CLASSES[:num_classes]))
    net.task = task
    make_loud(net)
    net.args = yolo.model.args
    yolo.model = net
    yolo.task = task
    yolo.ckpt_path = str(folder / f"{name}.pt")
    net.pt_path = str(folder / f"{name}.pt")
    options = {"imgsz": SIDE, **arguments}
    made = yolo.export(format="onnx", device="cpu", **{"opset": 17, **options})
    target = folder / f"{name}.onnx"
    if Path(made) != target:
        shutil.move(made, target)
    keep(name, target, task, picture())


def make_loud(net: torch.nn.Module) -> None:
    """Spread what the last layers say: scores over 0..1, boxes of all sizes, instead of a hair around one value."""
    last = [
        (path, layer)
        for path, layer in net.named_modules()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) and layer.bias is not None and _is_last(path)
    ]
    tensor = torch.from_numpy(cv2.resize(picture(), (SIDE * 2, SIDE * 2)).transpose(2, 0, 1)[None].copy()).float() / 255
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            # statistics of this picture, or a deep random network says the same everywhere
            layer.momentum = 1.0
    with torch.no_grad():
        net.train()
        net(torch.cat([tensor, tensor.flip(3)])) if not isinstance(net, tasks.RTDETRDetectionModel) else None
    net.eval()
    for path, layer in last:
        spread: list[float] = []
        hook = layer.register_forward_hook(
            lambda _m, _i, out, spread=spread: spread.append(float((out - out.mean()).std()))
        )
        with torch.no_grad():
            net(tensor)
        hook.remove()
        if spread and spread[0] > 0:
            with torch.no_grad():
                layer.weight *= 1.5 / spread[0]
                if "cv3" in path or "score" in path:
                    layer.bias.fill_(-2.0)


def _is_last(path: str) -> bool:
    parts = path.split(".")
    is_branch = any(part.startswith(("cv2", "cv3", "cv4", "one2one_cv")) for part in parts[2:3]) and len(parts) == 5
    return is_branch or "dec_score_head" in path or "enc_score_head" in path


@contextmanager
def steady_order() -> Iterator[None]:
    """Of equal scores the earlier box comes first; in torch's own order its NMS of oriented boxes differs by chance."""
    usual = torch.argsort

    def steady(values: torch.Tensor, *rest: Any, descending: bool = False, **more: Any) -> torch.Tensor:
        return usual(values, *rest, descending=descending, **{**more, "stable": True})

    torch.argsort = steady  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.argsort = usual


def keep(name: str, path: Path, task: str, image: np.ndarray) -> None:
    """Run the file as the peer does and write its golden file."""
    from ultralytics import RTDETR

    peer = RTDETR(str(path)) if name == "rtdetr" else YOLO(str(path), task=task)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    options = (
        {"imgsz": [96, 192]} if name.endswith("wide") else {"imgsz": 192} if name.endswith("p6") else {"imgsz": SIDE}
    )
    with steady_order():
        result = peer.predict(image, conf=CONF, iou=IOU, max_det=3000, verbose=False, **options)[0]
    tensor = peer.predictor.preprocess([image]).numpy()
    values = session.run(
        None,
        {
            session.get_inputs()[0].name: tensor.astype(
                {"tensor(float16)": np.float16}.get(session.get_inputs()[0].type, np.float32)
            )
        },
    )
    model = onnx.load(str(path))
    face = {
        "made_by": "ultralytics 8.4.190, torch 2.13.0",
        "task": task,
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "input": {
            "name": session.get_inputs()[0].name,
            "shape": list(session.get_inputs()[0].shape),
            "type": session.get_inputs()[0].type,
        },
        "outputs": [{"name": out.name, "shape": list(out.shape)} for out in session.get_outputs()],
    }
    arrays = {f"output{index}": value for index, value in enumerate(values)}
    arrays["tensor"] = np.round(tensor[0] * 255).astype(np.uint8)
    if result.boxes is not None:
        arrays["boxes"] = result.boxes.data.numpy()
    if result.masks is not None:
        arrays["masks"] = np.packbits(result.masks.data.numpy().astype(bool)[:8])
    if result.keypoints is not None:
        arrays["keypoints"] = result.keypoints.data.numpy()
    if result.obb is not None:
        arrays["obb"], arrays["corners"] = result.obb.data.numpy(), result.obb.xyxyxyxy.numpy()
    if result.probs is not None:
        arrays["probs"] = result.probs.data.numpy()
    np.savez_compressed(path.with_suffix(".npz"), face=json.dumps(face), **arrays)
    print(
        name,
        [tuple(value.shape) for value in values],
        {key: value.shape for key, value in arrays.items() if not key.startswith("output")},
        flush=True,
    )


def main() -> None:
    folder = Path(sys.argv[1])
    only = sys.argv[2:]
    for name, cfg, task, arguments in CASES:
        if only and name not in only:
            continue
        try:
            make(name, cfg, task, arguments, folder)
        except Exception as error:  # noqa: BLE001  a case that the peer refuses is reported, not kept
            print("FAILED", name, repr(error)[:300], flush=True)


if __name__ == "__main__":
    main()
