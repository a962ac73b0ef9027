"""Kills a process that tells people of 200 events at 4 cameras, and checks what was told.

KILLS SEED SECONDS FOLDER [apprise | push]: the events come within SECONDS; with fewer than 60 the waiting times of the
messages are as much shorter. They go to a service of Apprise, or to a phone over a push service.
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
from typing import Any

from message_server import MessageServer
from push_server import PushServer

from edge.config.events import NotifySettings
from edge.events.outbox import Outbox
from edge.events.phones import PhoneBook
from edge.events.schema import Envelope
from edge.events.snooze import Snoozes
from edge.pipeline.messages import PREFIX, Phones, joined_delivery
from edge.sinks.notify import NotifyTarget

NUM_EVENTS, CAMERAS = 200, ("door", "yard", "street", "garage")
EVENTS_OF_A_TRACK = 5


def envelope(number: int) -> Envelope:
    stream, track = CAMERAS[number % 4], number // (4 * EVENTS_OF_A_TRACK)
    facts = {"time": "2026-11-30T07:00:00.000Z", "track_id": track, "data": {"class": "car", "zone": f"z{number}"}}
    return Envelope(f"id-{number}", "zone_entered", stream, time.time_ns(), json.dumps(facts))


class Apprise:
    """A service as Apprise knows them."""

    def __init__(self, folder: Path) -> None:
        self.server = MessageServer()
        (folder / "url").write_text(f"json://127.0.0.1:{self.server.port}/\n")
        self.settings = {"url_file": folder / "url"}
        self.target = "notify"

    def begin(self, folder: Path, settings: NotifySettings) -> Outbox:
        outbox = Outbox(folder / "events.db", [self.target])
        delivery = joined_delivery(settings, outbox, NotifyTarget(settings))
        threading.Thread(target=delivery.run, args=(threading.Event(),), daemon=True).start()
        return outbox

    def num_got(self) -> int:
        return len(self.server.got)

    def texts(self) -> list[str]:
        return [json.loads(got.body)["message"] for got in self.server.got]


class Push:
    """A phone behind a push service."""

    def __init__(self, folder: Path) -> None:
        self.server = PushServer(folder)
        self.browser = self.server.browser()
        facts = {"contact": self.server.contact, "push_hosts": ("127.0.0.1",), "push_ca_file": self.server.ca_file}
        self.settings = {"push": True, **facts}
        phone = PhoneBook(folder / "events.phones.secret", ["127.0.0.1"]).add(self.browser.subscription())
        self.target = f"{PREFIX}{phone.id}"

    def begin(self, folder: Path, settings: NotifySettings) -> Outbox:
        place = folder / "events.db"
        phones = Phones(settings, place, Snoozes(folder / "events.snoozes.json"))
        outbox = Outbox(place, phones.target_names)
        phones.start(outbox)
        return outbox

    def num_got(self) -> int:
        return len(self.browser.got)

    def texts(self) -> list[str]:
        assert not self.server.faults, self.server.faults
        return [got["body"] for got in self.browser.got]


def scaled(settings: dict[str, Any], seconds: float) -> NotifySettings:
    default, scale = NotifySettings.model_validate(settings), seconds / 60
    return default.model_copy(
        update={"join_s": default.join_s * scale, "cool_down_s": default.cool_down_s * scale, "backoff_base_s": 0.05}
    )


def work(service: Apprise | Push, folder: Path, first: int, began_s: float, seconds: float, said: int) -> None:
    """Until killed, or told all: report the events in their time, and say which are kept."""
    outbox, target = service.begin(folder, scaled(service.settings, seconds)), service.target
    for number in range(first, NUM_EVENTS):
        time.sleep(max(0.0, began_s + number * seconds / NUM_EVENTS - time.time()))
        outbox.put([envelope(number)])
        os.write(said, f"{number + 1}\n".encode())
    while outbox.claimed(target) or outbox.unclaimed(target, 0, 1):
        time.sleep(0.05)
    os._exit(0)


def one_life(
    service: Apprise | Push,
    folder: Path,
    first: int,
    began_s: float,
    seconds: float,
    lives_s: float | None,
    *,
    is_told: bool = False,
) -> int:
    """The number after the last event that the process said to be kept.

    It is killed after a while; with ``is_told`` then in the moment in which the service gets a message.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        work(service, folder, first, began_s, seconds, writer)
    os.close(writer)
    if lives_s is not None:
        time.sleep(lives_s)
        num_got, deadline_s = service.num_got(), time.monotonic() + seconds
        while is_told and service.num_got() == num_got and time.monotonic() < deadline_s:
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
    service = Push(folder) if "push" in sys.argv[5:] else Apprise(folder)
    Outbox(folder / "events.db", [service.target]).close()
    began_s, first = time.time(), 0
    for number in range(num_kills):
        lives_s = chance.uniform(0.3, 1.6) * seconds / (num_kills + 1)
        first = one_life(service, folder, first, began_s, seconds, lives_s, is_told=bool(number % 2))
    first = one_life(service, folder, first, began_s, seconds, None)
    texts = service.texts()
    # a message that was sent again has the same text
    messages = set(texts)
    told = Counter(zone for text in messages for zone in re.findall(r"\bz\d+", text))
    assert told == Counter(f"z{number}" for number in range(NUM_EVENTS)), "an event is missing, or in two messages"
    assert "and " not in "".join(messages), "an event is counted and not named"
    print(f"{NUM_EVENTS} events, {num_kills} kills, {len(messages)} messages, {len(texts) - len(messages)} sent twice")


if __name__ == "__main__":
    main()
