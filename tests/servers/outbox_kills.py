"""Kills a process that fills and empties an outbox, again and again, and checks what is left: ROUNDS SEED FOLDER."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from edge.events.outbox import Outbox
from edge.events.schema import Envelope

TARGET = "log"


def work(folder: Path, first: int, accepted: int, delivered: int) -> None:
    """Until killed: keep batches and say so, deliver batches and say so, then acknowledge."""
    outbox = Outbox(folder / "events.db", [TARGET])
    number = first
    while True:
        size = 1 + number % 7
        batch = [
            Envelope(f"id-{n}", "tick", "door", time.time_ns(), f'{{"n":{n}}}') for n in range(number, number + size)
        ]
        outbox.put(batch)
        number += size
        os.write(accepted, f"{number}\n".encode())
        events = outbox.pending(TARGET, 5)
        os.write(delivered, "".join(f"{event.id} {event.body}\n" for event in events).encode())
        outbox.acknowledge(TARGET, events[-1].number)


def one_kill(folder: Path, first: int, delivered: int, wait_s: float, is_early: bool) -> int:
    """The number after the last event that the killed process was told to be kept. Early: maybe while it opens."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        work(folder, first, writer, delivered)
    os.close(writer)
    said = b"" if is_early else os.read(reader, 100)
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as rest:
        lines = (said + rest.read()).split()
    return int(lines[-1]) if lines else first


def main() -> None:
    rounds, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    chance = random.Random(seed)
    log = folder / "delivered.txt"
    delivered = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Outbox(folder / "events.db", [TARGET]).close()
    first, num_busy = 0, 0
    for index in range(rounds):
        told = one_kill(folder, first, delivered, chance.uniform(0.0, 0.05), is_early=index % 5 == 0)
        num_busy += told > first
        outbox = Outbox(folder / "events.db", [TARGET])
        kept = [event.id for event in outbox.recent(10**9)][::-1]
        outbox.close()
        assert kept[:told] == [f"id-{n}" for n in range(told)], "something that was kept is gone"
        first = len(kept)
    outbox = Outbox(folder / "events.db", [TARGET])
    while events := outbox.pending(TARGET, 100):
        os.write(delivered, "".join(f"{event.id} {event.body}\n" for event in events).encode())
        outbox.acknowledge(TARGET, events[-1].number)
    lines = log.read_text().split("\n")[:-1]
    assert {f'id-{n} {{"n":{n}}}' for n in range(first)} == set(lines), "an event is missing, or changed its id"
    print(f"{rounds} kills, {num_busy} while busy, {first} events, {len(lines) - first} delivered twice")


if __name__ == "__main__":
    main()
