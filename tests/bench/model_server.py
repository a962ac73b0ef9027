"""The speed of a model on Triton on this machine next to that of the same model in this process, one thread each.

    python tests/bench/model_server.py [--batch 4] [--rounds 12]

Prints a JSON object: frames per second of both, measured in turns, over shared memory and over the network, and their
ratios (1 is no loss). Pictures are fitted in next to the engine, as in the pipeline.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "servers")]

from model_servers import Triton

import edge
from edge.config.remote import RemoteSettings
from edge.model import Model
from edge.models.shipped import FOLDER
from edge.types import UInt8

MODEL = FOLDER / "street-nano-int8.onnx"
BATCHES = 6


def frames_per_s(model: Model, images: list[UInt8]) -> float:
    """Of batches that overlap as they do in the pipeline."""
    began_s = time.perf_counter()
    under_way = [model.submit(images)]
    for _ in range(BATCHES - 1):
        under_way.append(model.submit(images))
        under_way.pop(0).wait()
    under_way.pop().wait()
    return BATCHES * len(images) / (time.perf_counter() - began_s)


def main() -> None:
    """Measure and print."""
    reader = argparse.ArgumentParser()
    reader.add_argument("--batch", type=int, default=4)
    reader.add_argument("--rounds", type=int, default=12)
    wanted = reader.parse_args()
    with edge.open_source(f"synthetic://street?seed=5&size=1280x720&frames={wanted.batch}") as source:
        images = [frame.image for frame in source]
    remote = {name: RemoteSettings(timeout_ms=20_000, shared_memory=name) for name in ("auto", "off")}
    with tempfile.TemporaryDirectory() as folder, Triton(Path(folder), MODEL) as server:
        opened = {"here": edge.open_model(MODEL, engine="ort", threads=1, max_batch=wanted.batch, is_ahead=True)}
        for name, how in (("shared memory", "auto"), ("network", "off")):
            there: dict[str, Any] = {"engine": "kserve", "url": server.url, "remote": remote[how]}
            opened[name] = edge.open_model(MODEL, **there, max_batch=wanted.batch, is_ahead=True)
        rates: dict[str, list[float]] = {name: [] for name in opened}
        for _ in range(wanted.rounds):
            for name, model in opened.items():
                rates[name].append(frames_per_s(model, images))
        names = {name: model.engine.name for name, model in opened.items()}
        for model in opened.values():
            model.close()
    median = {name: statistics.median(values) for name, values in rates.items()}
    pairs = {name: [there / here for there, here in zip(rates[name], rates["here"], strict=True)] for name in rates}
    ratio = {name: round(statistics.median(values), 3) for name, values in pairs.items() if name != "here"}
    told = {"batch": wanted.batch, "engines": names, "ratio": ratio}
    json.dump(told | {"fps": {name: round(value, 1) for name, value in median.items()}}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
