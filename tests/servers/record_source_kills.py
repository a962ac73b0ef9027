"""Kills a process that records a camera's packets, again and again, and checks the files."""

from __future__ import annotations

import os
import random
import sys
import time
from functools import partial
from pathlib import Path

import record_kills as scene

from edge.metrics.clock import WallClock
from edge.recording.recording import RecordingFolder
from edge.recording.retention import Keep
from edge.sinks.record import RecordSink
from edge.video.encoder import VideoEncoder, find_encoder
from edge.video.packets import PacketForm, PacketQueue, SourcePacket

# a camera's packets come one by one: no more than a few wait for the disk
QUEUE_BYTES = 4096


def work(folder: Path, mode: str, first: int, told: int, gop_s: float) -> None:
    """Until killed: be a camera whose key pictures are far apart, in fast time, and say what was handed over."""
    clock = WallClock(1_795_000_000_000_000_000, time.monotonic_ns)
    settings = scene.settings(folder, mode).model_copy(update={"content": "source"})
    packets = PacketQueue(QUEUE_BYTES, is_lossless=True)
    sink = RecordSink(settings, "door", packets=packets, late_s=float("inf"), clock=clock)
    encoder = VideoEncoder(find_encoder(), scene.WIDTH, scene.HEIGHT, fps=scene.FPS, key_every_s=gop_s)
    number = first
    while True:
        result = scene.result(number, has_event=True)
        for packet in encoder.encode(result.frame.image, (number - first) * 90_000 // scene.FPS):
            if number == first:
                packets.begin(PacketForm("h264", scene.WIDTH, scene.HEIGHT, encoder.form_with(packet).sample))
            time_ns = result.frame.time_ns
            packets.take(SourcePacket(packet.data, packet.pts, packet.pts, packet.is_key, time_ns, time_ns))
        sink.write(result, lambda image=result.frame.image: image)  # type: ignore[misc]
        os.write(told, f"{number}\n".encode())
        number += 1


def main() -> None:
    """Arguments: ROUNDS SEED FOLDER MODE GOP_S."""
    rounds, seed, folder, mode = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    gop_s = float(sys.argv[5])
    record = partial(work, gop_s=gop_s)
    chance = random.Random(seed)
    first, num_files, worst = 0, 0, 0
    seen: set[Path] = set()
    for _ in range(rounds):
        last = scene.one_kill(folder, mode, first, chance.randrange(1, 300), chance.uniform(0.0, 0.02), record)
        recovered = RecordingFolder(folder / "door", Keep())
        recovered.close()
        assert not list((folder / "door").glob(".*.part")), "something unfinished is left"
        files = set((folder / "door").glob("*.mp4")) - seen
        found = [number for path in files for number in scene.check(path)]
        shown = sorted(set(found) if mode == "events" else found)
        if shown:
            assert shown == list(range(first, shown[-1] + 1)), "a picture is missing inside"
        worst = max(worst, last - (shown[-1] if shown else first - 1))
        seen |= files
        num_files += len(files)
        first = last + 1
    assert worst <= scene.FRAGMENT_S * scene.FPS, f"{worst / scene.FPS:.2f} s were lost"
    print(f"{rounds} kills, {num_files} files, {first} pictures, at most {worst / scene.FPS:.2f} s lost")


if __name__ == "__main__":
    main()
