"""A recipe for one's own data: task, size, crops, batch and epochs guessed from the pictures and labels at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edge.errors import UsageError
from export.config import TrainSettings, changed_tree, parse_config
from export.data.loader import make_loader
from export.data.open_data import open_dataset
from export.data.sample import Dataset
from export.data.statistics import Statistics, measure
from export.training.loop import crop_of
from export.training.optim import mixed_precision
from export.training.setup import start_network
from export.training.step import TrainingStep, to_targets

NAME = "my-data"
STRIDE = 32
LARGEST_SIDE, SMALLEST_SIDE = 640, 64
# a side of a small object (the lowest twentieth) in the model's input, below which it is hardly found
LEAST_OBJECT = 12.0
# crops of this side see enough around an object, and make many more steps of the same time
CROP = 256
# pictures (or crops) that a network should see: below, more epochs bring more; above, hardly
SEEN_PER_PICTURE, LEAST_SEEN, MOST_SEEN = 60, 8_000, 60_000
TIMED_STEPS = 3


@dataclass(frozen=True, slots=True)
class Guess:
    """A recipe and why it is so. Attributes: ``reasons`` in words; ``seconds`` that it will take on this machine."""

    config: TrainSettings
    reasons: tuple[str, ...]
    seconds: float


def guess_recipe(changes: Sequence[str]) -> Guess:
    """Make a recipe from the data that ``changes`` name; other changes are kept as they are.

    Args:
        changes: ``key=value`` as for any recipe, with ``data.train`` and ``data.val``.

    Raises:
        UsageError: the data is not named.
        DataError: it cannot be read.
        ConfigError: a change is wrong.
    """
    given = changed_tree({}, changes)
    places = given.get("data", {})
    if not places.get("train") or not places.get("val"):
        raise UsageError(f"edge train {NAME} needs data.train=… and data.val=…: pictures to learn from and to judge by")
    dataset = open_dataset(places["train"], given.get("task"), on_error="skip")
    tree, reasons = guessed(measure(dataset))
    config = parse_config(changed_tree(tree, changes), NAME)
    return Guess(config, tuple(reasons), estimate_s(config, dataset))


def guessed(facts: Statistics) -> tuple[dict[str, Any], list[str]]:
    """The recipe as a tree of values, and why."""
    width, height, reasons = _size(facts)
    is_small_set = facts.num_images < 300
    seen = min(MOST_SEEN, max(LEAST_SEEN, SEEN_PER_PICTURE * facts.num_images))
    epochs = max(5, round(seen / facts.num_images))
    batch = 8 if is_small_set else 16
    reasons.append(
        f"{epochs} epochs of {facts.num_images} pictures in batches of {batch}: {epochs * facts.num_images} are seen"
    )
    data: dict[str, Any] = {"width": width, "height": height, "bad": "skip"}
    optim = {"optimizer": "adamw", "lr": 0.002, "epochs": epochs, "batch_size": batch, "weight_decay": 0.05}
    optim |= {"warmup_steps": 100, "balance": _is_uneven(facts), "plain_epochs": max(1, epochs // 10)}
    tree: dict[str, Any] = {"task": facts.task, "name": NAME, "data": data, "optim": optim}
    tree["run"] = {"eval_every": max(1, epochs // 10), "patience": 4}
    tree["augment"] = {}
    if optim["balance"]:
        reasons.append("some classes are ten times as frequent as others: rare ones count more")
    if facts.task != "classify" and min(width, height) > CROP:
        data |= {"crop_width": CROP, "crop_height": CROP}
        reasons.append(f"crops of {CROP}x{CROP} at the model's scale: more steps in the same time")
        tree["augment"] = {"focus": 0.7} if facts.task == "detect" else {}
    if facts.task == "classify":
        tree["model"] = {"tiny_input": width <= 64}
    return tree, reasons


def _size(facts: Statistics) -> tuple[int, int, list[str]]:
    """Model width and height, and why."""
    width, height = facts.widths[2], facts.heights[2]
    longest = max(width, height)
    side, why = min(longest, 416.0), f"pictures are {width:.0f}x{height:.0f}"
    if facts.task == "classify":
        side = min(longest, 224.0)
    elif facts.box_sides and facts.box_sides[1] * side / longest < LEAST_OBJECT:
        side = min(longest, float(LARGEST_SIDE), LEAST_OBJECT * longest / facts.box_sides[1])
        why += f", small objects are {facts.box_sides[1]:.0f} pixels wide"
    scale = min(1.0, side / longest)
    least = STRIDE if facts.task == "classify" else SMALLEST_SIDE
    found = [max(least, round(value * scale / STRIDE) * STRIDE) for value in (width, height)]
    return found[0], found[1], [f"input {found[0]}x{found[1]}: {why}"]


def _is_uneven(facts: Statistics) -> bool:
    counts = [next(iter(values.values())) for values in facts.per_class.values()]
    return bool(counts) and max(counts) > 10 * max(1, min(counts))


def estimate_s(config: TrainSettings, dataset: Dataset, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds by this clock that the training's steps will take here, from a few of them; judging comes on top."""
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    cpu = torch.device("cpu")
    size, settings = crop_of(config)
    batch_size = config.optim.batch_size
    loader = make_loader(dataset, size=size, batch_size=batch_size, augment=settings, seed=1, epoch=0)
    step = TrainingStep(start_network(config, dataset, cpu), config)
    amp = mixed_precision(config.optim, cpu)
    spent = []
    for number in range(min(TIMED_STEPS, len(loader))):
        started = clock()
        step(to_targets(loader.batch(number), config, cpu), amp).total.backward()
        spent.append(clock() - started)
    # the first step makes what later ones find made
    return min(spent) * len(loader) * config.optim.epochs
