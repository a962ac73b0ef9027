"""Images per second of the trainer next to a plain torch loop of the same network and loss, data already in memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from export.config import load_config
from export.data.cache import CachedDataset
from export.data.open_data import open_dataset
from export.training import optim
from export.training.distributed import Processes
from export.training.loop import Trainer
from export.training.setup import start_network
from export.training.step import TrainingStep, to_targets

STEPS = 12
LEAST_SHARE = 0.85


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_trainer_keeps_most_of_the_speed_of_a_plain_loop(tmp_path: Path) -> None:
    uri = "synthetic:street?seed=1&count=64&size=640x360"
    config = load_config("street-synthetic", [f"data.train={uri}", f"data.val={uri}"])
    torch.set_num_threads(1)
    size = (config.data.height, config.data.width)
    dataset = CachedDataset(open_dataset(uri, "detect"), tmp_path / "cache", size)
    device = torch.device("cpu")
    trainer = Trainer(config, tmp_path, (dataset, dataset), Processes(0, 1, device), resume=False)
    # epochs after the first find the cache full
    loader = trainer._loader(0)
    batches = [loader.batch(number) for number in range(len(loader))]

    network = start_network(config, dataset, device)
    step, optimizer = TrainingStep(network, config), optim.make_optimizer(network, config.optim)
    amp = optim.mixed_precision(config.optim, device)
    network.train()
    trainer._network.train()
    ours, plain = [], []
    for number in range(STEPS):
        # taken in turns, in processor time: a busy machine slows both alike
        began = time.process_time()
        trainer._one_step(loader.batch(number % len(batches)))
        between = time.process_time()
        step(to_targets(batches[number % len(batches)], config, device), amp).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        ours.append(between - began)
        plain.append(time.process_time() - between)
    share = float(np.median(plain[2:]) / np.median(ours[2:]))
    images = config.optim.batch_size
    print(f"trainer {images / np.median(ours[2:]):.1f}, plain loop {images / np.median(plain[2:]):.1f} images per "
          f"processor second, share {share:.3f}")  # fmt: skip
    assert share >= LEAST_SHARE
