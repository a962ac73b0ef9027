"""The network as it is exported: bytes in, boxes, instances, class map or probabilities out; and run by torch alike.

Shape letters: N batch, K kept boxes, C classes, h w pixels of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edge.heads.choose import open_head
from edge.models.manifest import InputSpec, Manifest, Provenance, Thresholds
from edge.models.preprocess import Preprocessor
from edge.types import Prediction, UInt8
from export.config import TrainSettings
from export.models.blocks import fused
from export.models.build import Network
from export.models.detector import Detector
from export.models.segmenter import Segmenter

INPUT = "frames"


class ExportGraph(nn.Module):
    """A network fused for inference, with its input scale folded into the first convolution.

    The network learned on ``x / 255`` without a mean, so the scale alone goes into the weights and zero padding stays
    black: the folded graph is exact, borders included.

    Args:
        network: trained; it is copied.
        many: export the many-boxes branch, for NMS in the runtime.
        keep: K, boxes per picture.
    """

    def __init__(self, network: Network, *, many: bool = False, keep: int = 100) -> None:
        super().__init__()
        self.net = fused(network).float()
        self.net.fold_input()
        self.many = many
        self.keep = keep

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, h, w, 3) uint8 BGR to the outputs named by ``output_names``."""
        # the cast comes first: TensorRT takes bytes at its inputs only
        x = self.net.enter(frames.float())
        if isinstance(self.net, Detector) and self.net.instances is not None:
            rows, prototypes = self.net.rows(x, self.keep, self.many)
            return (rows, prototypes) if self.net.instances.num_prototypes else (rows,)
        if isinstance(self.net, Detector):
            boxes, scores, labels = self.net.best(x, self.keep, self.many)
            return boxes, scores, labels.to(torch.int32)
        if isinstance(self.net, Segmenter):
            return (self.net(x).argmax(1).to(torch.uint8),)
        return (self.net(x).softmax(1),)


def output_names(network: Network) -> tuple[str, ...]:
    """What the outputs of ``ExportGraph`` are called."""
    if isinstance(network, Detector) and network.instances is not None:
        return ("objects", "prototypes") if network.instances.num_prototypes else ("objects",)
    if isinstance(network, Detector):
        return ("boxes", "scores", "labels")
    return ("class_map",) if isinstance(network, Segmenter) else ("probs",)


def make_manifest(config: TrainSettings, classes: Sequence[str], dataset: dict[str, str] | None = None) -> Manifest:
    """What the runtime must know of a network trained by this recipe."""
    model, about = config.model, dataset or {}
    kinds = f"{'-seg' if model.prototypes else ''}{'-pose' if model.keypoints else ''}"
    heads = {"detect": f"end2end{kinds}" if kinds else "edgenet", "segment": "semantic", "classify": "classify"}
    return Manifest(
        name=config.name,
        task=config.task,
        head=heads[config.task],
        input=InputSpec(
            name=INPUT,
            width=config.data.width,
            height=config.data.height,
            layout="nhwc",
            dtype="uint8",
            colour="bgr",
        ),
        classes=tuple(classes),
        thresholds=Thresholds(),
        needs_nms=config.task == "detect" and model.nms,
        kpt_shape=(len(model.keypoints), 3) if model.keypoints else None,
        keypoints=model.keypoints or None,
        provenance=Provenance(
            dataset=about.get("name", ""),
            dataset_sha256=about.get("fingerprint", ""),
            source=about.get("source", ""),
            config_sha256=config.sha256,
            seed=config.run.seed,
            terms=config.data.terms,
        ),
    )


class TorchModel:
    """A network run by torch behind the runtime's own preprocessing and head: the same numbers as its exported file.

    Args:
        network: in any state; a fused copy is made.
        manifest: of its export.
        score: least score of a detection; low, because average precision wants the whole curve.
    """

    def __init__(
        self, network: Network, manifest: Manifest, *, device: torch.device | str = "cpu", score: float = 0.01,
        keep: int = 100, max_batch: int = 16,
    ) -> None:  # fmt: skip
        thresholds = manifest.thresholds.model_copy(update={"track_score": score})
        self.manifest = manifest.model_copy(update={"thresholds": thresholds})
        self._graph = ExportGraph(network, many=manifest.needs_nms, keep=keep).to(device)
        self._names = output_names(network)
        self._device = device
        self._max_batch = max_batch
        self._preprocessor = Preprocessor(self.manifest.input, max_batch)
        self._head = open_head(self.manifest)

    def predict(self, images: Sequence[UInt8]) -> list[Prediction]:
        """One prediction per (H, W, 3) uint8 BGR image."""
        found: list[Prediction] = []
        for start in range(0, len(images), self._max_batch):
            tensor, letterboxes = self._preprocessor.images(images[start : start + self._max_batch])
            with torch.inference_mode():
                outputs = self._graph(torch.from_numpy(tensor).to(self._device))
            arrays = {name: value.cpu().numpy() for name, value in zip(self._names, outputs, strict=True)}
            found += self._head.decode(arrays, letterboxes)
        return found
