"""How much of its rate a live loop keeps while a night shift learns beside it, held and let go in turns.

    python tests/bench/night_rate.py FOLDER [--turns 12] [--seconds 5]

FOLDER is that of night_course.py. The loop is a camera's: decoded picture in, the shipped INT8 detector, one thread.
The shift is its real process, of idle priority; SIGSTOP holds it for every second turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "bench")]

from night_course import TEACHER, Course, keep_a_day, settings_of
from night_street import DUSK, film, street_of

from edge.model import Model, open_model
from edge.night.shift import Job, ShiftProcess
from edge.types import UInt8

LIVE = ROOT / "edge" / "models" / "street-nano-int8.onnx"
TICKS = os.sysconf("SC_CLK_TCK")


def used_s(pid: int) -> float:
    """Processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def turn(model: Model, pictures: list[UInt8], seconds: float) -> tuple[float, float]:
    """Frames per second, and processor milliseconds per frame."""
    begun_s, cpu_s, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - begun_s < seconds:
        model.predict([pictures[count % len(pictures)]])
        count += 1
    return count / (time.monotonic() - begun_s), 1e3 * (time.process_time() - cpu_s) / count


def measure(folder: Path, course: Course, turns: int, seconds: float) -> None:
    settings = settings_of(course, [TEACHER], processor_minutes=60)
    shutil.rmtree(folder, ignore_errors=True)
    keep_a_day(folder, settings, course.first, 0)
    job = Job("rate", "site", course.first, course.first, settings)
    job.write(folder)
    shift = ShiftProcess(folder, job)
    pictures = [image for image, _ in film(street_of(0, DUSK), 0, 20)]
    rates: dict[bool, list[float]] = {False: [], True: []}
    costs: dict[bool, list[float]] = {False: [], True: []}
    shift_s = 0.0
    try:
        with closing(open_model(LIVE, engine="ort", threads=1)) as model:
            turn(model, pictures, 2)
            for number in range(2 * turns):
                # off on, on off, …: what drifts drifts for both
                is_on = number % 4 in (1, 2)
                shift.pause(not is_on)
                before_s = used_s(shift.pid)
                rate, cost = turn(model, pictures, seconds)
                shift_s += used_s(shift.pid) - before_s
                rates[is_on].append(rate)
                costs[is_on].append(cost)
                assert not shift.ended(), "the shift ended before the measurement"
    finally:
        shift.stop()
    pairs = [on / off for on, off in zip(rates[True], rates[False], strict=True)]
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, {turns} turns of {seconds:g} s each way")
    for name, on in (("alone", False), ("beside the shift", True)):
        print(f"{name}: median {statistics.median(rates[on]):.2f} fps, {statistics.median(costs[on]):.2f} cpu ms/frame")
    whole = sum(rates[True]) / sum(rates[False])
    print(f"rate kept: {whole:.3f} (median of pairs {statistics.median(pairs):.3f})")
    print(f"the shift had {shift_s / (turns * seconds):.2f} of a processor while it was let go")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=5)
    asked = parser.parse_args()
    course = Course(asked.folder.resolve(), 24)
    measure(asked.folder.resolve() / "rate", course, asked.turns, asked.seconds)


if __name__ == "__main__":
    main()
