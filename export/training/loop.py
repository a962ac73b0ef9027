"""The course of a training: epochs of steps, evaluations, checkpoints; interrupted, it goes on to the same end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edge.errors import DataError
from edge.files import atomic_path
from export.config import TrainSettings
from export.data.augment import AugmentSettings
from export.data.loader import BatchSamples, Loader, make_loader
from export.data.sample import Dataset
from export.models.build import Network, form_of
from export.training import optim
from export.training import plots as pictures
from export.training.balance import draw_weights
from export.training.checkpoint import BEST, LAST, Checkpoint, Place, save_checkpoint
from export.training.distributed import Processes
from export.training.ema import Average
from export.training.logs import Journal, ProgressBar, epoch_line
from export.training.losses import Loss
from export.training.setup import identity_of, interrupted, shared, start_network, start_step, start_teacher
from export.training.step import rescaled, to_targets
from export.training.validate import judge, metric_of

log = logging.getLogger(__name__)
SEED_STRIDE = 1_000_003
# a figure takes half a second, an epoch of few pictures less
CURVES_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came out.

    Attributes:
        folder: the run folder.
        checkpoint: the best checkpoint in it.
        metric: the name of what was maximised; ``best`` is its value on the first ``run.eval_images`` validation
            pictures, reached after ``best_epoch`` epochs.
        epochs: epochs done.
        metrics: the last row of the history.
    """

    folder: Path
    checkpoint: Path
    metric: str
    best: float
    best_epoch: int
    epochs: int
    metrics: Mapping[str, float]


def crop_of(config: TrainSettings) -> tuple[tuple[int, int], AugmentSettings]:
    """Height and width of the training pictures, and the augmentation that keeps the model's scale in a crop."""
    data, settings = config.data, config.augment
    if not data.crop_width or not data.crop_height:
        return (data.height, data.width), settings
    ratio = max(data.width / data.crop_width, data.height / data.crop_height)
    scaled = replace(settings, scale_min=settings.scale_min * ratio, scale_max=settings.scale_max * ratio)
    return (data.crop_height, data.crop_width), scaled


class Trainer:
    """One training in one process. Made, then ``run`` once.

    Args:
        config: the recipe.
        folder: the run folder, existing.
        data: training and validation set.
        processes: this process among all.
        resume: go on from ``last.pt`` if there is one.
    """

    def __init__(
        self, config: TrainSettings, folder: Path, data: tuple[Dataset, Dataset], processes: Processes, resume: bool
    ) -> None:
        self._config, self._folder, self._processes = config, folder, processes
        self._train_set, self._val_set = data
        self._classes = list(self._train_set.classes)
        saved = interrupted(folder, config, data, resume)
        self._network = start_network(config, self._train_set, processes.device, saved)
        self._average = Average(self._network, config.optim.ema_decay, config.optim.ema_steps)
        self._teacher = start_teacher(config, processes.device)
        step = start_step(self._network, config, self._train_set, processes, self._teacher)
        self._imitation = step.imitation
        self._optimizer = optim.make_optimizer(step, config.optim, config.transfer)
        self._amp = optim.mixed_precision(config.optim, processes.device)
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=self._amp == torch.float16)
        self._draw = draw_weights(self._train_set) if config.optim.balance and config.task == "detect" else None
        self._step = shared(step, processes)
        self._place = Place()
        self._sums: dict[str, float] = {}
        self._history: list[dict[str, float]] = []
        if saved is not None:
            self._restore(saved)
        self._num_batches = len(self._loader(0))
        self._saved_at_s, self._draw_at_s = time.monotonic(), 0.0

    def run(self) -> TrainResult:
        """Train to the end, or until nothing gets better any more.

        Raises:
            DataError: the loss is not a number; the batch is saved and named.
        """
        config = self._config
        total = config.optim.epochs * self._num_batches
        done = self._place.epoch * self._num_batches + self._place.batch
        journal = Journal(self._folder)
        with ProgressBar(total, done, self._processes.is_main) as bar:
            while not self._is_done():
                self._epoch(bar)
                if self._processes.is_main:
                    journal.write(self._history)
                    self._draw_now_and_then()
                    pictures_per_epoch = self._num_batches * config.optim.batch_size
                    row, metric = self._history[-1], metric_of(config)
                    log.info("%s", epoch_line(row, metric, config.optim.epochs, pictures_per_epoch))
        journal.close()
        place = self._place
        best = self._folder / BEST
        return TrainResult(
            self._folder, best, metric_of(config), place.best, place.best_epoch, place.epoch, self._history[-1]
        )

    def _epoch(self, bar: ProgressBar) -> None:
        """Train one epoch, or the rest of one; then judge and save."""
        place, started_s, images = self._place, time.monotonic(), 0
        processor_s = time.process_time()
        prefixes = optim.frozen_prefixes(self._config.transfer, place.epoch)
        optim.freeze(self._network, prefixes)
        optim.set_training_mode(self._network, self._config.optim, prefixes)
        for batch in self._loader(place.epoch, place.batch):
            if self._place.step == 0 and self._processes.is_main:
                pictures.draw_batch(batch, self._classes, self._folder / "first-batch.png")
            loss = self._one_step(batch)
            images += len(batch.ids) * self._processes.world_size
            self._count(loss)
            speed = images / max(1e-9, time.monotonic() - started_s)
            bar.advance(f"epoch {place.epoch + 1}", speed)
            if self._place.batch < self._num_batches:
                self._save_now_and_then()
        speed = images / max(1e-9, time.monotonic() - started_s)
        self._finish_epoch({"images_per_s": speed, "processor_s": time.process_time() - processor_s})

    def _one_step(self, batch: BatchSamples) -> Loss:
        config, step = self._config.optim, self._place.step
        # each step seeds itself, so a resumed run draws what an unbroken one would have drawn
        torch.manual_seed(self._config.run.seed * SEED_STRIDE + step)
        optim.set_learning_rate(self._optimizer, self._lr())
        targets = to_targets(batch, self._config, self._processes.device)
        targets = rescaled(targets, config.scales, (self._config.run.seed, step))
        if self._teacher is not None:
            targets = replace(targets, taught=self._teacher.maps(targets.images))
        loss: Loss = self._step(targets, self._amp)
        self._check(loss, batch)
        self._scaler.scale(loss.total).backward()
        self._scaler.unscale_(self._optimizer)
        if config.clip_norm:
            nn.utils.clip_grad_norm_(self._network.parameters(), config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._average.update(self._network, step + 1)
        self._place = replace(self._place, step=step + 1, batch=self._place.batch + 1)
        return loss

    def _check(self, loss: Loss, batch: BatchSamples) -> None:
        """Stop at the first loss that is not a number, with the batch at hand."""
        if bool(torch.isfinite(loss.total)):
            return
        path = self._folder / "nan-batch.npz"
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, images=batch.images, ids=np.array(batch.ids))
        place = self._place
        raise DataError(
            f"the loss became {float(loss.total)} in epoch {place.epoch + 1}, batch {place.batch + 1}, "
            f"pictures {', '.join(batch.ids[:4])}, …; the batch is in {path}; "
            f"look at its labels, or lower optim.lr (now {self._lr():.3g})"
        )

    def _count(self, loss: Loss) -> None:
        for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def _finish_epoch(self, cost: Mapping[str, float]) -> None:
        """Judge, note, save. ``cost``: what its steps took."""
        epochs = self._place.epoch + 1
        means = self._processes.mean({name: value / self._num_batches for name, value in self._sums.items()})
        row = {"epoch": float(epochs), **means, "lr": self._lr(), **cost}
        is_last = epochs == self._config.optim.epochs
        place = replace(self._place, epoch=epochs, batch=0)
        if is_last or epochs % self._config.run.eval_every == 0:
            metrics, value = self._judge(is_last)
            row |= metrics
            if value > place.best:
                place = replace(place, best=value, best_epoch=epochs)
        self._place, self._sums = place, {}
        self._history.append(row)
        # the best first: killed in between, a run that goes on from the older last.pt writes it again
        if place.best_epoch == epochs:
            self._save(BEST)
        self._save(LAST)

    def _judge(self, is_last: bool) -> tuple[dict[str, float], float]:
        """Measure the averaged weights by the main process.

        Returns:
            The metrics, at the end of all validation pictures, and the value to compare with other evaluations, which
            is always of the same ``run.eval_images`` pictures and known to all processes.
        """
        name = metric_of(self._config)
        metrics: dict[str, float] = {}
        value = 0.0
        if self._processes.is_main:
            metrics = self._measure(whole=False)
            value = metrics[name]
            if is_last and 0 < self._config.run.eval_images < len(self._val_set):
                metrics = self._measure(whole=True)
        value = self._processes.agree(value)
        return metrics or {name: value}, value

    def _measure(self, *, whole: bool) -> dict[str, float]:
        metrics, predictions, images = judge(self._judged(), self._config, self._val_set, self._processes.device, whole)
        pictures.draw_predictions(images, predictions, self._classes, self._folder / "predictions.png")
        return metrics

    def _judged(self) -> Network:
        return self._average.model if self._config.optim.ema_decay else self._network

    def _is_done(self) -> bool:
        return self._place.epoch >= self._config.optim.epochs or self._is_stale()

    def _is_stale(self) -> bool:
        """Whether the last evaluations brought nothing."""
        config, place = self._config.run, self._place
        waited = (place.epoch - place.best_epoch) // config.eval_every
        return config.patience > 0 and place.best >= 0 and waited >= config.patience

    def _lr(self) -> float:
        return optim.learning_rate(self._place.step, self._config.optim.epochs * self._num_batches, self._config.optim)

    def _loader(self, epoch: int, skip_batches: int = 0) -> Loader:
        config = self._config
        is_plain = epoch >= config.optim.epochs - config.optim.plain_epochs
        size, settings = crop_of(config)
        return make_loader(
            self._train_set,
            size=size,
            batch_size=config.optim.batch_size,
            augment=settings.without_mixing() if is_plain else settings,
            seed=config.run.seed,
            epoch=epoch,
            rank=self._processes.rank,
            world_size=self._processes.world_size,
            num_workers=config.data.workers,
            skip_batches=skip_batches,
            weights=self._draw,
        )

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at_s >= self._config.run.save_every_s:
            self._save(LAST)

    def _draw_now_and_then(self) -> None:
        """The curves so far; at the end all of them."""
        if self._is_done() or time.monotonic() >= self._draw_at_s:
            pictures.draw_curves(self._history, self._folder / "curves.png")
            self._draw_at_s = time.monotonic() + CURVES_EVERY_S

    def _save(self, name: str) -> None:
        self._saved_at_s = time.monotonic()
        if not self._processes.is_main:
            return
        checkpoint = Checkpoint(
            config=self._config.model_dump(mode="json"),
            classes=self._classes,
            model=self._network.state_dict(),
            ema=self._judged().state_dict(),
            optimizer=self._optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
            place=self._place,
            sums=self._sums,
            history=self._history,
            dataset=identity_of(self._train_set, self._val_set),
            imitation=self._imitation.state_dict() if self._imitation else {},
            form=form_of(self._network),
        )
        save_checkpoint(checkpoint, self._folder / name)

    def _restore(self, saved: Checkpoint) -> None:
        self._network.load_state_dict(saved.model)
        self._average.model.load_state_dict(saved.ema)
        self._optimizer.load_state_dict(saved.optimizer)
        if self._imitation:
            self._imitation.load_state_dict(saved.imitation)
        self._scaler.load_state_dict(saved.scaler)
        torch.set_rng_state(saved.rng)
        self._place, self._sums, self._history = saved.place, dict(saved.sums), list(saved.history)
        log.info("resumed at epoch %d, batch %d", saved.place.epoch + 1, saved.place.batch + 1)
