"""Golden files from timm's own networks and transforms: ``python export_timm.py FOLDER``.

Run in an environment of its own (timm 1.0.31, torch 2.13.0, torchvision 0.28.0, onnx, onnxruntime); nothing of it is a
dependency. A small network with random weights under each way to prepare pictures; one folder each: ``golden.npz`` with
the prepared picture, the graph's output and its softmax, and the ``config.json`` that timm writes for the Hub.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
from pictures import picture  # type: ignore[import-not-found]  # run as a script, next to it
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models._hub import save_config_for_hf

SIDE = 64
# name → changes of the configuration, number of classes
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "bicubic": ({}, 5),
    "lanczos": ({"interpolation": "lanczos", "crop_pct": 0.95}, 5),
    "hamming": ({"interpolation": "hamming"}, 5),
    "box": ({"interpolation": "box"}, 5),
    "squash": ({"crop_mode": "squash", "crop_pct": 0.9}, 5),
    "wide": ({"input_size": (3, 48, 80), "crop_pct": 1.0}, 5),
    "many_classes": ({}, 512),
    "features": ({}, 0),
}


def make(name: str, folder: Path) -> None:
    torch.manual_seed(len(name))
    changes, num_classes = CASES[name]
    overlay = {"input_size": (3, SIDE, SIDE), **changes}
    net = timm.create_model(
        "mobilenetv4_conv_small_035", pretrained=False, num_classes=num_classes, pretrained_cfg_overlay=overlay
    ).eval()
    transform = create_transform(**resolve_data_config({}, model=net), is_training=False)
    pixels = transform(Image.fromarray(np.ascontiguousarray(picture()[:, :, ::-1])))[None]
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    save_config_for_hf(net, out / "config.json")
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch) / "model.onnx")
        torch.onnx.export(net, (pixels,), path, input_names=["input"], output_names=["output"], opset_version=17,
                          dynamo=False)  # fmt: skip
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (values,) = session.run(None, {"input": pixels.numpy()})
    face = {"made_by": f"timm {timm.__version__}, torch {torch.__version__}", "metadata": {},
            "input": {"name": "input", "shape": list(pixels.shape), "type": "tensor(float)"},
            "outputs": [{"name": "output", "shape": list(values.shape)}]}  # fmt: skip
    probs = torch.from_numpy(values[0]).softmax(-1).numpy()
    arrays = {"output0": values, "tensor": pixels[0].numpy().astype(np.float16), "probs": probs}
    np.savez_compressed(out / "golden.npz", face=json.dumps(face), **arrays)
    print(name, tuple(pixels.shape), values.shape, flush=True)


if __name__ == "__main__":
    for case in sys.argv[2:] or CASES:
        make(case, Path(sys.argv[1]))
