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
    model = TorchModel(network, manifest, device=device, score=EVAL_SCORE, keep=config.model.keep, max_batch=BATCH_SIZE)
    report = evaluate(model.predict, first(dataset, limit), batch_size=BATCH_SIZE)
    images = [dataset[index].image for index in range(min(SHOWN, len(dataset)))]
    return dict(report.metrics), model.predict(images), images
