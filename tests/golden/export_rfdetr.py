"""Golden files from RF-DETR's own networks, exporter and ``predict``: ``python export_rfdetr.py FOLDER``.

Run in an environment of its own (rfdetr 1.11.2, torch 2.13.0, onnx, onnxruntime); nothing of it is a dependency. The
networks are the project's at a small size, with random weights and loud class scores. One folder each, with
``golden.npz`` as ``export_transformers.py`` writes it: the prepared picture, the graph's outputs, the peer's answer.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import rfdetr  # type: ignore[import-not-found]  # of an environment of its own
import torch
from pictures import picture  # type: ignore[import-not-found]  # run as a script, next to it

SCORE = 0.3
# network, and the side of its input: of the patches and windows of each a multiple
CASES = {"rfdetr_nano": (rfdetr.RFDETRNano, 160), "rfdetr_seg_nano": (rfdetr.RFDETRSegNano, 156)}
NUM_CLASSES, NUM_QUERIES, NUM_MASKS = 5, 40, 8


def make_loud(net: torch.nn.Module, pixels: torch.Tensor) -> None:
    """Spread class scores over 0..1, boxes over the picture and masks over both signs."""
    ends = {"class_embed": 2.0, "bbox_embed.layers.2": 1.0, "bbox_embed.layers.1": 1.0}
    for path, layer in net.named_modules():
        gain = next((gain for end, gain in ends.items() if path.endswith(end)), None)
        if gain is None or not isinstance(layer, torch.nn.Linear):
            continue
        with torch.no_grad():
            torch.nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
            layer.bias.fill_(-1.0 if "class" in path else 0.0)
    with torch.no_grad():
        net(pixels)


def make(name: str, folder: Path) -> None:
    torch.manual_seed(len(name))
    kind, side = CASES[name]
    peer = kind(
        pretrain_weights=None,
        num_classes=NUM_CLASSES,
        resolution=side,
        num_queries=NUM_QUERIES,
        num_select=NUM_QUERIES,
        device="cpu",
    )
    make_loud(peer.model.model.eval(), torch.randn(1, 3, side, side))
    image = picture()
    found = peer.predict(np.ascontiguousarray(image[:, :, ::-1]), threshold=SCORE)
    with tempfile.TemporaryDirectory() as scratch:
        peer.export(output_dir=scratch)
        (path,) = Path(scratch).glob("*.onnx")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tensor = prepared(image, peer, side)
    source = session.get_inputs()[0]
    values = session.run(None, {source.name: tensor})
    names = [out.name for out in session.get_outputs()]
    face = {"made_by": f"rfdetr 1.11.2, torch {torch.__version__}", "metadata": {},
            "input": {"name": source.name, "shape": list(tensor.shape), "type": source.type},
            "outputs": [{"name": key, "shape": list(value.shape)} for key, value in zip(names, values, strict=True)],
            }  # fmt: skip
    arrays: dict[str, Any] = {f"output{index}": value.astype(np.float32) for index, value in enumerate(values)}
    arrays["tensor"] = tensor[0].astype(np.float16)
    rows = [found.xyxy, found.confidence[:, None], found.class_id[:, None]]
    arrays["boxes"] = np.concatenate(rows, axis=1).astype(np.float32)
    if found.mask is not None:
        arrays["masks"] = np.packbits(found.mask[:NUM_MASKS])
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "golden.npz", face=json.dumps(face), **arrays)
    print(name, {key: value.shape for key, value in arrays.items()}, flush=True)


def prepared(image: np.ndarray, peer: Any, side: int) -> np.ndarray:
    """(1, 3, side, side), as ``predict`` gives it to the network."""
    seen: list[torch.Tensor] = []
    hook = peer.model.model.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    peer.predict(np.ascontiguousarray(image[:, :, ::-1]), threshold=SCORE)
    hook.remove()
    return seen[0].numpy()


if __name__ == "__main__":
    for case in sys.argv[2:] or CASES:
        make(case, Path(sys.argv[1]))
