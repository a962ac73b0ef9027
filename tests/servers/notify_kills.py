"""Kills a process that tells people of 200 events at 4 cameras, and checks what was told: KILLS SEED SECONDS FOLDER.

The events come within SECONDS; with fewer than 60 the waiting times of the messages are as much shorter.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from message_server import MessageServer

from edge.config.events import NotifySettings
from edge.events.joined_delivery import JoinedDelivery
from edge.events.outbox import Outbox
from edge.events.schema import Envelope
from edge.pipeline.shared_outputs import joined_delivery

NUM_EVENTS, CAMERAS = 200, ("door", "yard", "street", "garage")
EVENTS_OF_A_TRACK = 5


def envelope(number: int) -> Envelope:
    stream, track = CAMERAS[number % 4], number // (4 * EVENTS_OF_A_TRACK)
    facts = {"time": "2026-11-30T07:00:00.000Z", "track_id": track, "data": {"class": "car", "zone": f"z{number}"}}
    return Envelope(f"id-{number}", "zone_entered", stream, time.time_ns(), json.dumps(facts))


def opened(folder: Path, seconds: float) -> tuple[Outbox, JoinedDelivery]:
    default = NotifySettings(url_file=folder / "url")
    scale = seconds / 60
    settings = default.model_copy(
        update={"join_s": default.join_s * scale, "cool_down_s": default.cool_down_s * scale, "backoff_base_s": 0.05}
    )
    outbox = Outbox(folder / "events.db", [settings.name])
    return outbox, joined_delivery(settings, outbox)


def work(folder: Path, first: int, began_s: float, seconds: float, said: int) -> None:
    """Until killed, or told all: report the events in their time, and say which are kept."""
    outbox, delivery = opened(folder, seconds)
    threading.Thread(target=delivery.run, args=(threading.Event(),), daemon=True).start()
    for number in range(first, NUM_EVENTS):
        time.sleep(max(0.0, began_s + number * seconds / NUM_EVENTS - time.time()))
        outbox.put([envelope(number)])
        os.write(said, f"{number + 1}\n".encode())
    while outbox.counts()[f"waiting_{delivery.messenger.name}"]:
        time.sleep(0.05)
    os._exit(0)


def one_life(
    folder: Path, first: int, began_s: float, seconds: float, lives_s: float | None, server: MessageServer | None = None
) -> int:
    """The number after the last event that the process said to be kept.

    It is killed after a while; where a server is given, then in the moment in which that gets a message.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        work(folder, first, began_s, seconds, writer)
    os.close(writer)
    if lives_s is not None:
        time.sleep(lives_s)
        num_got = 0 if server is None else len(server.got)
        deadline_s = time.monotonic() + seconds
        while server is not None and len(server.got) == num_got and time.monotonic() < deadline_s:
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert lives_s is not None or status == 0, status
    with os.fdopen(reader, "rb") as rest:
        lines = rest.read().split()
    return int(lines[-1]) if lines else first


def main() -> None:
    num_kills, seed, seconds, folder = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    chance = random.Random(seed)
    server = MessageServer()
    (folder / "url").write_text(f"json://127.0.0.1:{server.port}/\n")
    opened(folder, seconds)[0].close()
    began_s, first = time.time(), 0
    for number in range(num_kills):
        lives_s = chance.uniform(0.3, 1.6) * seconds / (num_kills + 1)
        first = one_life(folder, first, began_s, seconds, lives_s, server if number % 2 else None)
    first = one_life(folder, first, began_s, seconds, None)
    texts = [json.loads(got.body)["message"] for got in server.got]
    # a message that was sent again has the same text
    messages = set(texts)
    told = Counter(zone for text in messages for zone in re.findall(r"\bz\d+", text))
    assert told == Counter(f"z{number}" for number in range(NUM_EVENTS)), "an event is missing, or in two messages"
    assert "and " not in "".join(messages), "an event is counted and not named"
    print(f"{NUM_EVENTS} events, {num_kills} kills, {len(messages)} messages, {len(texts) - len(messages)} sent twice")


if __name__ == "__main__":
    main()
