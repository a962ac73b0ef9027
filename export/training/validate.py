"""Judging a network under training, by the same code that judges exported models."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edge.types import Prediction, UInt8
from export.config import TrainSettings
from export.data.open_data import first
from export.data.sample import Dataset
from export.evaluate.evaluate import EVAL_SCORE, evaluate
from export.models.build import Network
from export.models.graph import TorchModel, make_manifest

# what is maximised, per task
METRIC = {"detect": "map50", "segment": "miou", "classify": "top1"}
# of detectors with masks or key points: the mean of all that they say at an overlap of 0.5
INSTANCES = "instances50"
_AT_HALF = ("map50", "mask_map50", "keypoint_map50")
SHOWN = 9
BATCH_SIZE = 16


def judge(
    network: Network, config: TrainSettings, dataset: Dataset, device: torch.device, whole: bool
) -> tuple[dict[str, float], Sequence[Prediction], Sequence[UInt8]]:
    """Measure a network.

    Args:
        network: in any state; it is not changed.
        dataset: to judge on.
        whole: use all of it, else at most ``run.eval_images`` pictures.

    Returns:
        The metrics, and some predictions with their pictures.
    """
    limit = len(dataset) if whole or config.run.eval_images == 0 else config.run.eval_images
    manifest = make_manifest(config, dataset.classes)
    # the same least score as edge eval, so that both give the same number
    keep = config.model.num_kept(many=manifest.needs_nms)
    model = TorchModel(network, manifest, device=device, score=EVAL_SCORE, keep=keep, max_batch=BATCH_SIZE)
    report = evaluate(model.predict, first(dataset, limit), batch_size=BATCH_SIZE)
    images = [dataset[index].image for index in range(min(SHOWN, len(dataset)))]
    metrics = dict(report.metrics)
    if config.has_instances:
        metrics[INSTANCES] = _mean_at_half(metrics, config)
    return metrics, model.predict(images), images


def metric_of(config: TrainSettings) -> str:
    """The name of what chooses the best epoch."""
    return INSTANCES if config.has_instances else METRIC[config.task]


def _mean_at_half(metrics: dict[str, float], config: TrainSettings) -> float:
    """What could not be measured counts as nothing found."""
    wanted = (True, config.model.prototypes > 0, len(config.model.keypoints) > 0)
    values = [metrics.get(name, 0.0) for name, is_wanted in zip(_AT_HALF, wanted, strict=True) if is_wanted]
    return sum(values) / len(values)
