"""Golden files from transformers' networks, image processors and answers: ``python export_transformers.py FOLDER``.

Run in an environment of its own (transformers 5.24.0, torch 2.13.0, torchvision 0.28.0, onnx, onnxruntime); nothing of
it is a dependency. Small networks with random weights and loud class scores, exported by ``torch.onnx.export`` as users
do. One folder each: ``golden.npz`` with the prepared picture, the graph's outputs and the peer's answer for the picture
of ``pictures.py``, and the two JSON files that ``save_pretrained`` writes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers as hf
from pictures import picture  # type: ignore[import-not-found]  # run as a script, next to it

SIDE = 160
CLASSES = ("ball", "helmet", "no helmet", "vest", "cone")
SCORE = 0.3
NAMES = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: number for number, name in enumerate(CLASSES)}}
SMALL = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
         "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 100}  # fmt: skip
Case = tuple[Callable[[], Any], Callable[[], Any]]


def resnet(stages: tuple[str, ...] = ("stage4",)) -> hf.ResNetConfig:
    return hf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1],
                           layer_type="basic", out_features=list(stages))  # fmt: skip


def of_resnet(**more: Any) -> dict[str, Any]:
    return {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_kwargs": None,
            "backbone_config": resnet(), **NAMES, **SMALL, **more}  # fmt: skip


def stretched(kind: Any, **more: Any) -> Any:
    return kind(size={"height": SIDE, "width": SIDE}, **more)


def small_vit(kind: Any, config: Any) -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return kind(config(image_size=96, **sizes, **NAMES))


def rtdetr_like(**more: Any) -> dict[str, Any]:
    stages = {"layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"], "depths": [1, 1, 1, 1]}
    backbone = hf.RTDetrResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], **stages)
    return {"backbone_config": backbone, "encoder_in_channels": [32, 48, 64],
            "encoder_hidden_dim": 32, "d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_layers": 2,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "feat_strides": [8, 16, 32], "num_queries": 60,
            "decoder_in_channels": [32, 32, 32], **NAMES, **more}  # fmt: skip


CASES: dict[str, Case] = {
    "detr": (
        lambda: hf.DetrForObjectDetection(hf.DetrConfig(**of_resnet())),
        lambda: stretched(hf.DetrImageProcessor, do_pad=False),
    ),
    "conditional_detr": (
        lambda: hf.ConditionalDetrForObjectDetection(hf.ConditionalDetrConfig(**of_resnet())),
        lambda: stretched(hf.ConditionalDetrImageProcessor, do_pad=False),
    ),
    "deformable_detr": (
        lambda: hf.DeformableDetrForObjectDetection(
            hf.DeformableDetrConfig(
                **of_resnet(backbone_config=resnet(("stage2", "stage3", "stage4")), decoder_layers=2)
            )
        ),
        lambda: stretched(hf.DeformableDetrImageProcessor, do_pad=False),
    ),
    "yolos": (
        lambda: hf.YolosForObjectDetection(
            hf.YolosConfig(
                image_size=[SIDE, SIDE],
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                num_detection_tokens=60,
                **NAMES,
            )
        ),
        lambda: stretched(hf.YolosImageProcessor, do_pad=False),
    ),
    "rtdetr": (
        lambda: hf.RTDetrForObjectDetection(hf.RTDetrConfig(**rtdetr_like())),
        lambda: stretched(hf.RTDetrImageProcessor),
    ),
    "rtdetr_v2": (
        lambda: hf.RTDetrV2ForObjectDetection(hf.RTDetrV2Config(**rtdetr_like())),
        lambda: stretched(hf.RTDetrImageProcessor),
    ),
    "dab_detr": (
        lambda: hf.DabDetrForObjectDetection(
            hf.DabDetrConfig(**{key: value for key, value in of_resnet(hidden_size=32).items() if key != "d_model"})
        ),
        lambda: stretched(hf.ConditionalDetrImageProcessor, do_pad=False),
    ),
    "deimv2": (
        lambda: hf.Deimv2ForObjectDetection(hf.Deimv2Config(**rtdetr_like())),
        lambda: stretched(hf.RTDetrImageProcessor),
    ),
    "dfine": (
        lambda: hf.DFineForObjectDetection(hf.DFineConfig(**rtdetr_like())),
        lambda: stretched(hf.RTDetrImageProcessor),
    ),
    "vit": (
        lambda: hf.ViTForImageClassification(
            hf.ViTConfig(
                image_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **NAMES
            )
        ),
        lambda: hf.ViTImageProcessor(size={"height": 96, "width": 96}),
    ),
    "deit": (
        lambda: small_vit(hf.DeiTForImageClassification, hf.DeiTConfig),
        lambda: hf.DeiTImageProcessor(size={"height": 110, "width": 110}, crop_size={"height": 96, "width": 96}),
    ),
    "vit_lanczos": (
        lambda: small_vit(hf.ViTForImageClassification, hf.ViTConfig),
        lambda: hf.ViTImageProcessor(size={"height": 96, "width": 96}, resample=1),
    ),
    "vit_nearest": (
        lambda: small_vit(hf.ViTForImageClassification, hf.ViTConfig),
        lambda: hf.ViTImageProcessor(size={"height": 96, "width": 96}, resample=0),
    ),
    "convnext": (
        lambda: hf.ConvNextForImageClassification(
            hf.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], **NAMES)
        ),
        lambda: hf.ConvNextImageProcessor(size={"shortest_edge": 128}, crop_pct=0.875),
    ),
    "mobilenet_v2": (
        lambda: hf.MobileNetV2ForImageClassification(
            hf.MobileNetV2Config(image_size=128, depth_multiplier=0.35, **NAMES)
        ),
        lambda: hf.MobileNetV2ImageProcessor(size={"shortest_edge": 146}, crop_size={"height": 128, "width": 128}),
    ),
    "efficientnet": (
        lambda: hf.EfficientNetForImageClassification(
            hf.EfficientNetConfig(
                image_size=128, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320, **NAMES
            )
        ),
        lambda: hf.EfficientNetImageProcessor(size={"height": 128, "width": 128}),
    ),
    "resnet": (
        lambda: hf.ResNetForImageClassification(hf.ResNetConfig(**{**resnet().to_dict(), **NAMES})),
        lambda: hf.ConvNextImageProcessor(size={"shortest_edge": 128}, crop_pct=0.875),
    ),
    "segformer": (
        lambda: hf.SegformerForSemanticSegmentation(
            hf.SegformerConfig(
                hidden_sizes=[8, 16, 24, 32],
                depths=[1, 1, 1, 1],
                num_attention_heads=[1, 1, 2, 2],
                decoder_hidden_size=16,
                **NAMES,
            )
        ),
        lambda: stretched(hf.SegformerImageProcessor),
    ),
    "mobilevit_seg": (
        lambda: hf.MobileViTForSemanticSegmentation(
            hf.MobileViTConfig(
                image_size=128,
                hidden_sizes=[16, 24, 32],
                neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 64],
                aspp_out_channels=16,
                **NAMES,
            )
        ),
        lambda: hf.MobileViTImageProcessor(size={"shortest_edge": 144}, crop_size={"height": 128, "width": 128}),
    ),
}


class Plain(torch.nn.Module):
    """The network with a tuple of tensors as its answer, as exporters want it."""

    def __init__(self, net: torch.nn.Module, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.keys = net, keys

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.net(pixels)
        return tuple(getattr(found, key) for key in self.keys)


def make_loud(net: torch.nn.Module, pixels: torch.Tensor) -> None:
    """Spread what the class layers say: scores over 0..1 instead of a hair around one value."""
    widths = (len(CLASSES), len(CLASSES) + 1)
    ends = [
        layer
        for layer in net.modules()
        if (isinstance(layer, torch.nn.Linear) and layer.out_features in widths)
        or (isinstance(layer, torch.nn.Conv2d) and layer.out_channels in widths)
    ]
    for layer in ends:
        spread: list[float] = []
        hook = layer.register_forward_hook(lambda _m, _i, out, spread=spread: spread.append(float(out.detach().std())))
        with torch.no_grad():
            net(pixels)
        hook.remove()
        if spread and spread[0] > 0:
            with torch.no_grad():
                layer.weight *= 2.0 / spread[0]


def answer(processor: Any, found: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """The peer's own result for the picture of (height, width)."""
    if hasattr(processor, "post_process_object_detection") and "pred_boxes" in found:
        boxes = processor.post_process_object_detection(found, threshold=SCORE, target_sizes=[shape])[0]
        rows = [boxes["boxes"].numpy(), boxes["scores"].numpy()[:, None], boxes["labels"].numpy()[:, None]]
        return {"boxes": np.concatenate(rows, axis=1).astype(np.float32)}
    if hasattr(processor, "post_process_semantic_segmentation") and found.logits.ndim == 4:
        return {
            "map": processor.post_process_semantic_segmentation(found, target_sizes=[shape])[0].numpy().astype(np.uint8)
        }
    return {"probs": found.logits.softmax(-1)[0].numpy()}


def make(name: str, folder: Path) -> None:
    torch.manual_seed(len(name))
    build, prepare = CASES[name]
    net, processor = build().eval(), prepare()
    image = picture()
    pixels = processor(images=np.ascontiguousarray(image[:, :, ::-1]), return_tensors="pt")["pixel_values"]
    make_loud(net, pixels)
    with torch.no_grad():
        found = net(pixels)
    keys = ("logits", "pred_boxes") if "pred_boxes" in found else ("logits",)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        torch.onnx.export(Plain(net, keys), (pixels,), str(path), input_names=["pixel_values"], output_names=list(keys),
                          opset_version=17, dynamo=False)  # fmt: skip
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        values = session.run(None, {"pixel_values": pixels.numpy()})
    for key, value in zip(keys, values, strict=True):
        assert np.abs(value - found[key].numpy()).max() < 1e-3, key
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    net.config.save_pretrained(out)
    processor.save_pretrained(out)
    face = {"made_by": f"transformers {hf.__version__}, torch {torch.__version__}", "metadata": {},
            "input": {"name": "pixel_values", "shape": list(pixels.shape), "type": "tensor(float)"},
            "outputs": [{"name": key, "shape": list(value.shape)} for key, value in zip(keys, values, strict=True)],
            }  # fmt: skip
    arrays: dict[str, Any] = {f"output{index}": value.astype(np.float32) for index, value in enumerate(values)}
    arrays["tensor"] = pixels[0].numpy().astype(np.float16)
    result = answer(processor, found, image.shape[:2])
    np.savez_compressed(out / "golden.npz", face=json.dumps(face), **arrays, **result)
    print(name, {key: value.shape for key, value in (arrays | result).items()}, flush=True)


def main() -> None:
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        try:
            make(name, folder)
        except Exception as error:  # noqa: BLE001  a case that the peer refuses is reported, not kept
            print("FAILED", name, repr(error)[:300], flush=True)


if __name__ == "__main__":
    main()
