"""Golden files of masks, key points and oriented boxes: ``python export_instances.py FOLDER [NAME]…``.

Run in an environment of its own (ultralytics 8.4.190, torch 2.13.0, onnx, onnxruntime, onnxslim); nothing of it is a
dependency. The networks are the project's, with random weights and loud last layers, exported by its own exporter. One
``.npz`` each: the outputs of the graph on one picture, and what the project's own predictor makes of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from ultralytics import YOLO
from ultralytics.nn import tasks

SIDE = 128
PICTURE = (200, 100)  # width, height: letterboxed, so that padding matters, and without rounding
CONF, IOU = 0.4, 0.5
CLASSES = ("ball", "helmet", "vest")
NETWORKS = {"segment": tasks.SegmentationModel, "pose": tasks.PoseModel, "obb": tasks.OBBModel}
# name, configuration, task, head of the manifest, arguments of the export
CASES = [
    ("yolov8n_seg", "yolov8n-seg.yaml", "segment", "yolov8-seg", {}),
    ("yolo11n_seg", "yolo11n-seg.yaml", "segment", "yolov8-seg", {}),
    ("yolo26n_seg", "yolo26n-seg.yaml", "segment", "end2end-seg", {"nms": False}),
    ("yolov8n_seg_nms", "yolov8n-seg.yaml", "segment", "end2end-seg", {"nms": True}),
    ("yolov8n_pose", "yolov8n-pose.yaml", "pose", "yolov8-pose", {}),
    ("yolo11n_pose", "yolo11n-pose.yaml", "pose", "yolov8-pose", {}),
    ("yolo26n_pose", "yolo26n-pose.yaml", "pose", "end2end-pose", {"nms": False}),
    ("yolo11n_pose_nms", "yolo11n-pose.yaml", "pose", "end2end-pose", {"nms": True}),
    ("yolov8n_obb", "yolov8n-obb.yaml", "obb", "yolov8-obb", {}),
    ("yolo11n_obb", "yolo11n-obb.yaml", "obb", "yolov8-obb", {}),
    ("yolo26n_obb", "yolo26n-obb.yaml", "obb", "end2end-obb", {"nms": False}),
    ("yolo11n_obb_nms", "yolo11n-obb.yaml", "obb", "end2end-obb", {"nms": True}),
]


def picture() -> np.ndarray:
    """(H, W, 3) uint8 BGR: shapes on a gradient, with noise."""
    rng = np.random.default_rng(3)
    width, height = PICTURE
    image = np.linspace(20, 220, width)[None, :, None] + np.linspace(0, 30, height)[:, None, None] + np.zeros(3)
    for _ in range(9):
        x, y, size = int(rng.integers(0, width)), int(rng.integers(0, height)), int(rng.integers(8, 40))
        cv2.circle(image, (x, y), size, tuple(float(v) for v in rng.integers(0, 256, 3)), -1)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def make_loud(net: torch.nn.Module, image: np.ndarray) -> None:
    """Spread what the last layers say: scores over 0..1 and boxes of all sizes, instead of a hair around one value."""
    # as the predictor fits it in, for what is loud on one picture may shout on another
    small = cv2.resize(image, (SIDE, SIDE * PICTURE[1] // PICTURE[0]))
    above = (SIDE - len(small)) // 2
    square = cv2.copyMakeBorder(small, above, SIDE - len(small) - above, 0, 0, cv2.BORDER_CONSTANT, value=(114,) * 3)
    tensor = torch.from_numpy(square[..., ::-1].transpose(2, 0, 1)[None].copy()).float() / 255
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    net.train()
    with torch.no_grad():
        net(torch.cat([tensor, tensor.flip(3)]))
    net.eval()
    last = [(path, layer) for path, layer in net.model[-1].named_modules() if is_last(layer)]
    for path, layer in last:
        said: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda _m, _i, out, said=said: said.append(out.transpose(0, 1).flatten(1)))
        with torch.no_grad():
            net(tensor)
        hook.remove()
        if said:
            mean, spread = aim(path, layer.out_channels)
            scale = spread / said[0].std(dim=1).clamp(min=1e-6)
            with torch.no_grad():
                layer.weight *= scale[:, None, None, None]
                layer.bias.copy_(mean + scale * (layer.bias - said[0].mean(dim=1)))


def aim(path: str, channels: int) -> tuple[torch.Tensor, float]:
    """Mean of each channel and spread that make sense: few sure objects, boxes of some strides, points around them."""
    if "cv3" in path:
        return torch.full((channels,), -2.0), 1.5
    if "cv2" in path and channels > 4:
        # sixteen bins of the distance to each side, the near ones likelier
        return -0.5 * (torch.arange(channels) % 16), 1.0
    if "cv2" in path:
        return torch.full((channels,), 2.0), 0.7
    return torch.zeros(channels), 0.8


def is_last(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.Conv2d) and layer.bias is not None


def make(name: str, cfg: str, task: str, head: str, arguments: dict, folder: Path) -> None:
    """Export one network, run it as the peer does, and keep both."""
    torch.manual_seed(len(name))
    classes = ("person",) if task == "pose" else CLASSES
    yolo = YOLO(cfg, task=task)
    net = NETWORKS[task](cfg, nc=len(classes), verbose=False)
    net.names, net.task, net.args = dict(enumerate(classes)), task, yolo.model.args
    make_loud(net, picture())
    yolo.model = net
    net.pt_path = yolo.ckpt_path = str(folder / f"{name}.pt")
    path = Path(yolo.export(format="onnx", opset=17, imgsz=SIDE, conf=CONF, iou=IOU, **arguments))
    peer = YOLO(str(path), task=task)
    options = {"imgsz": SIDE, "conf": CONF, "iou": IOU, "max_det": 300, "retina_masks": True, "verbose": False}
    result = peer.predict(picture(), rect=False, **options)[0]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tensor = peer.predictor.preprocess([picture()]).numpy()
    values = session.run(None, {session.get_inputs()[0].name: tensor})
    meta = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    points = json.loads(meta["kpt_shape"]) if "kpt_shape" in meta else None
    face = {
        "made_by": "ultralytics 8.4.190, torch 2.13.0",
        "head": head,
        "classes": classes,
        "kpt_shape": points,
        "size": SIDE,
        "picture": PICTURE,
        "score": CONF,
        "iou": IOU,
        "names": [output.name for output in session.get_outputs()],
    }
    arrays = {f"output{number}": value.astype(kept_as(value)) for number, value in enumerate(values)}
    if result.boxes is not None:
        arrays["boxes"] = result.boxes.data.numpy()
    if result.masks is not None:
        arrays["masks"] = np.packbits(result.masks.data.numpy().astype(bool))
    if result.keypoints is not None:
        arrays["keypoints"] = result.keypoints.data.numpy()
    if result.obb is not None:
        arrays["boxes"] = np.concatenate([result.obb.xyxy.numpy(), result.obb.data[:, 5:].numpy()], axis=1)
        arrays["corners"] = result.obb.xyxyxyxy.numpy()
    np.savez_compressed(folder / f"{name}.npz", face=json.dumps(face), **arrays)
    print(name, meta.get("task"), {key: value.shape for key, value in arrays.items()}, flush=True)


def kept_as(value: np.ndarray) -> type:
    """Maps need no more than half precision; boxes do."""
    return np.float16 if value.ndim == 4 else np.float32


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if not sys.argv[2:] or case[0] in sys.argv[2:]:
            make(*case, folder)


if __name__ == "__main__":
    main()
