"""Train a network by a recipe: open the data, join the other processes, run."""

from __future__ import annotations

from pathlib import Path

import torch

from export.config import TrainSettings
from export.data.cache import CachedDataset
from export.data.instances import InstanceDataset
from export.data.open_data import open_dataset
from export.data.sample import Dataset
from export.training.distributed import join_processes
from export.training.loop import Trainer, TrainResult
from export.training.setup import check_data

__all__ = ["TrainResult", "train"]


def train(config: TrainSettings, folder: Path, *, resume: bool = False) -> TrainResult:
    """Run one training, alone or as one of ``torchrun``'s processes.

    Args:
        config: the recipe.
        folder: the run folder; made if missing. Receives ``last.pt``, ``best.pt``, ``metrics.csv``, ``curves.png``,
            ``predictions.png``, ``first-batch.png`` and ``tensorboard/``.
        resume: go on from the folder's ``last.pt``.

    Raises:
        DataError: the data sets are wrong, or the loss is not a number.
        UsageError: the folder holds another training.
        MissingError: a GPU was asked for and there is none.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    folder.mkdir(parents=True, exist_ok=True)
    with join_processes(config.run.device) as processes:
        # the main process fills the cache, the others then find it full
        if not processes.is_main:
            processes.wait()
        data = _open(config, folder, is_learned=True), _open(config, folder, is_learned=False)
        if processes.is_main:
            processes.wait()
        check_data(config, *data)
        return Trainer(config, folder, data, processes, resume).run()


def _open(config: TrainSettings, folder: Path, *, is_learned: bool) -> Dataset:
    uri = config.data.train if is_learned else config.data.val
    dataset = open_dataset(uri, config.task, on_error=config.data.bad)
    size, model = (config.data.height, config.data.width), config.model
    if config.has_instances:
        if not is_learned:
            # resized pictures have no outlines to be judged by
            return dataset
        dataset = InstanceDataset(dataset, has_masks=model.prototypes > 0, keypoints=model.keypoints)
    if not config.data.cache:
        return dataset
    return CachedDataset(dataset, folder / "cache", size, has_masks=model.prototypes > 0)
