"""The whole loop next to what it cannot do without: processor time a frame, of engine and decoder each alone.

    python tests/bench/loop_share.py MODEL.onnx CLIP.mp4 [--threads 1] [--rounds 3]

Every frame of the clip, tracked, as JSONL. Each of the three runs in a process of its own, in turn, several rounds;
the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from loop_peers import run_ours


def run_decoder(video: str) -> dict[str, float]:
    """All pictures of the clip, as the loop decodes them."""
    from edge.sources.av import AvSource

    source, num = AvSource(video), 1
    began_s = time.process_time()
    while source.grab():
        num += 1
    return {"frames": num, "cpu_ms": (time.process_time() - began_s) * 1e3 / num}


def run_engine(model: str, video: str, threads: int) -> dict[str, float]:
    """The engine on as many pictures as the clip has, always the first: what they show does not matter to it."""
    from pathlib import Path

    from edge.engines.ort import OrtEngine
    from edge.model import find_manifest
    from edge.models.preprocess import Preprocessor
    from edge.sources.av import AvSource

    manifest, source = find_manifest(Path(model)), AvSource(video)
    source.grab()
    tensor, _ = Preprocessor(manifest.input, 1).images([source.retrieve()])
    engine, num = OrtEngine(Path(model), threads=threads, max_batch=1), source.info.num_frames or 300
    for _ in range(10):
        engine.infer(tensor)
    began_s = time.process_time()
    for _ in range(num):
        engine.infer(tensor)
    return {"frames": num, "cpu_ms": (time.process_time() - began_s) * 1e3 / num}


def main() -> None:
    """Print a table in Markdown, or the figures of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["engine", "decoder", "loop"], help="run only this, here")
    chosen = parser.parse_args()
    runs: dict[str, Callable[[], dict[str, float]]] = {
        "engine": lambda: run_engine(chosen.model, chosen.video, chosen.threads),
        "decoder": lambda: run_decoder(chosen.video),
        "loop": lambda: run_ours(chosen.model, chosen.video, chosen.threads, draws=False),
    }
    if chosen.one:
        print(json.dumps(runs[chosen.one]()))
        return
    spent: dict[str, list[float]] = {name: [] for name in runs}
    command = [sys.executable, __file__, chosen.model, chosen.video, "--threads", str(chosen.threads), "--one"]
    for _ in range(chosen.rounds):
        for name in runs:
            done = subprocess.run([*command, name], capture_output=True, text=True, check=True)
            spent[name].append(json.loads(done.stdout.strip().splitlines()[-1])["cpu_ms"])
    print("| | ms of processor time a frame | all rounds |\n|---|---|---|")
    for name, found in spent.items():
        print(f"| {name} | {statistics.median(found):.2f} | {', '.join(f'{ms:.2f}' for ms in found)} |")
    ratio = statistics.median(spent["loop"]) / (
        statistics.median(spent["engine"]) + statistics.median(spent["decoder"])
    )
    print(f"\nthe loop takes {ratio:.3f} of engine and decoder")


if __name__ == "__main__":
    main()
