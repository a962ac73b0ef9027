"""No damaged state file of any kind keeps a camera from starting: it is set aside, said, and everything goes on."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.config.load import parse_config
from edge.daemon.state import CrashLoopGuard, keep_swapped, load_or_last_good, with_swapped
from edge.engines import trial
from edge.errors import ConfigError
from edge.events.outbox import Outbox
from edge.events.schema import Envelope
from edge.recording.index import Recorded, RecordingIndex
from edge.recording.recording import RecordingFolder
from edge.recording.retention import Keep
from edge.server.recordings import Shelf, _listed, _summary
from edge.sinks.retained import Retained

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
from counts_kills import Counting

CONFIG = parse_config({"model": {"path": "m.onnx"}, "streams": [{"name": "door", "source": "0"}]}, where="test")
START_NS = 1_795_000_000_000_000_000


@dataclass(frozen=True)
class Kind:
    """A file of the state: its name, what makes a whole one, and what must work whatever it holds."""

    name: str
    make: Callable[[Path], None]
    use: Callable[[Path], None]


def make_counts(folder: Path) -> None:
    counting = Counting(folder / "door.analytics.json", 1)
    counting.walk()
    counting.analysis.save()


def use_counts(folder: Path) -> None:
    counting = Counting(folder / "door.analytics.json", 100)
    counting.see()
    before = counting.total
    counting.walk()
    counting.walk()
    assert counting.analysis.fault == ""
    assert counting.total >= before + 1
    counting.analysis.save()
    json.loads((folder / "door.analytics.json").read_text())


def make_retained(folder: Path) -> None:
    told = Retained(folder / "events.mqtt.json")
    told.published({f"edge/{name}/state": "{}" for name in ("door", "yard")}, set(), is_whole=True)


def use_retained(folder: Path) -> None:
    told, wanted = Retained(folder / "events.mqtt.json"), {"edge/door/state": "{}"}
    missing = told.missing(wanted, set(), is_whole=True)
    assert missing["edge/door/state"] == "{}"
    assert not any(text for topic, text in missing.items() if topic not in wanted)
    told.published(wanted, set(), is_whole=True)
    assert told.missing(wanted, set(), is_whole=True) == {}


def make_index(folder: Path) -> None:
    index = RecordingIndex(folder)
    for number in range(5):
        name = f"20261122T10000{number}.000Z.mp4"
        (folder / name).write_bytes(b"no video")
        start_ns = START_NS + number * 10**9
        index.add(Recorded(name, "segment", start_ns, start_ns + 10**9, 8, 25, 320, 240, ((start_ns, "tick"),)))


def use_index(folder: Path) -> None:
    recording = RecordingFolder(folder, Keep(max_bytes=1 << 20))
    recording.close()
    entries = recording.index.entries
    assert all((folder / entry.file).is_file() for entry in entries)
    # what the page asks for
    text = json.dumps(
        [_summary(Shelf(folder, entries)), *[_listed("door", entry) for entry in entries]], allow_nan=False
    )
    assert text.startswith("[")
    again = RecordingIndex(folder)
    again.load()
    assert again.entries == entries


def make_starts(folder: Path) -> None:
    for _ in range(3):
        CrashLoopGuard(folder).begin()


def use_starts(folder: Path) -> None:
    assert 0 <= CrashLoopGuard(folder).begin() <= 120
    CrashLoopGuard(folder).end()


def make_swapped(folder: Path) -> None:
    (folder / "new.onnx").write_text("new")
    keep_swapped("model", CONFIG.models[0].path, folder / "new.onnx", folder)


def use_swapped(folder: Path) -> None:
    # a file that has the right hash is the right one, wherever a damaged path leads
    assert with_swapped(CONFIG, folder).models[0].path.name in ("m.onnx", "new.onnx")
    make_swapped(folder)
    assert with_swapped(CONFIG, folder).models[0].path == folder / "new.onnx"


def make_trials(folder: Path) -> None:
    os.environ["EDGELOOP_CACHE"] = str(folder)
    for number in range(4):
        trial._remember(f"key-{number}", "ort")


def use_trials(folder: Path) -> None:
    os.environ["EDGELOOP_CACHE"] = str(folder)
    trial._remember("another", 4)
    assert trial._remembered()["another"] == 4


def make_last_good(folder: Path) -> None:
    text = '[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "0"\n'
    (folder / "last-good.toml").write_text(text)


def use_last_good(folder: Path) -> None:
    whole = folder / "edge.toml"
    whole.write_text('[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "0"\n')
    assert load_or_last_good(whole)[1] == ""
    whole.write_text("[broken")
    os.environ["STATE_DIRECTORY"] = str(folder)
    try:
        load_or_last_good(whole)
    except ConfigError as error:
        assert "\n\n" not in str(error)
    finally:
        del os.environ["STATE_DIRECTORY"]


def envelope(name: str) -> Envelope:
    return Envelope(name, "tick", "door", START_NS, json.dumps({"n": name, "filler": "x" * 200}))


def make_outbox(folder: Path) -> None:
    outbox = Outbox(folder / "events.db", ["a"])
    outbox.put([envelope(f"id-{n}") for n in range(60)])
    outbox.acknowledge("a", 20)
    outbox.close()


def use_outbox(folder: Path) -> None:
    """What is put from now on is delivered, whatever became of what was there."""
    outbox = Outbox(folder / "events.db", ["a"])
    for _ in range(3):
        try:
            outbox.put([envelope("new")])
        except Exception as error:  # noqa: BLE001
            assert type(error).__name__ == "SinkError", error
        else:
            break
    found: list[str] = []
    for _ in range(40):
        try:
            events = outbox.pending("a", 64)
            if not events:
                break
            found += [event.id for event in events]
            assert all(isinstance(event.body.encode(), bytes) for event in events)
            outbox.acknowledge("a", events[-1].number)
            outbox.recent(9)
        except Exception as error:  # noqa: BLE001
            assert type(error).__name__ == "SinkError", error
            outbox.put([envelope("new")])
    assert "new" in found
    outbox.close()


KINDS = [
    Kind("door.analytics.json", make_counts, use_counts),
    Kind("index.jsonl", make_index, use_index),
    Kind("starts.json", make_starts, use_starts),
    Kind("swapped-models.json", make_swapped, use_swapped),
    Kind("engine-trials.json", make_trials, use_trials),
    Kind("last-good.toml", make_last_good, use_last_good),
    Kind("events.db", make_outbox, use_outbox),
    Kind("events.mqtt.json", make_retained, use_retained),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files need not reach the disk; the environment is as it was afterwards."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setenv("EDGELOOP_CACHE", "")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The content with bits, runs, ends or pieces of JSON in wrong places."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(found) + 1)
        length = chance.choice((1, 1, 4, 100, 2000))
        match chance.randrange(7):
            case 0 if found:
                found[place % len(found)] ^= 1 << chance.randrange(8)
            case 1:
                found[place : place + length] = bytes(min(length, len(found) - place))
            case 2:
                del found[place:]
            case 3:
                del found[place : place + length]
            case 4:
                found[place : place + length] = chance.randbytes(min(length, len(found) - place))
            case 5:
                found[place:place] = chance.choice(PIECES)
            case _:
                other = chance.randrange(len(found) + 1)
                found[place : place + length] = found[other : other + length]
    return bytes(found)


WORDS = ["1e999", "NaN", "-Infinity", "null", "true", "[]", "{}", '"', "\\ud800", "-1", "0.5", '"x":1,', "\0"]
LONG = [b"9" * 20, b"9" * 400, b"[" * 3000, b'{"a":' * 3000, b"\xff\xfe"]
PIECES = [*[word.encode() for word in WORDS], *LONG]


def rot(kind: Kind, folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for index in range(count):
        place = folder / str(index)
        place.mkdir()
        kind.make(place)
        victim = place / kind.name
        victim.write_bytes(damaged(victim.read_bytes(), chance))
        kind.use(place)


@kinds
def test_damaged_files_of_each_kind_are_no_end(kind: Kind, tmp_path: Path) -> None:
    rot(kind, tmp_path, 100, 3)


@kinds
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_10_000_damaged_files_are_no_end(kind: Kind, tmp_path: Path) -> None:
    rot(kind, tmp_path, 10_003 // len(KINDS), 5)


WHOLE = {
    "empty": b"",
    "zeros": bytes(4096),
    "another kind of value": b"[1]",
    "a wrong value": b'{"model": [1], "unclean": {"a": 1}, "schema": 1, "key-1": []}',
    "brackets without end": b"[" * 100_000,
    "a number without end": b'{"unclean": [1e999, ' + b"9" * 5000 + b"]}",
    "text that is none": b"\xff\xfe\x00\x80" * 99,
}


@kinds
@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE.keys())
def test_a_file_that_holds_something_else_is_no_end(kind: Kind, content: bytes, tmp_path: Path) -> None:
    kind.make(tmp_path)
    (tmp_path / kind.name).write_bytes(content)
    kind.use(tmp_path)


@kinds
@pytest.mark.parametrize("form", ["folder", "pipe", "link to nowhere", "link to itself"])
def test_what_is_no_file_is_no_end(kind: Kind, form: str, tmp_path: Path) -> None:
    kind.make(tmp_path)
    victim = tmp_path / kind.name
    victim.unlink()
    match form:
        case "folder":
            victim.mkdir()
        case "pipe":
            os.mkfifo(victim)
        case "link to nowhere":
            victim.symlink_to(tmp_path / "nowhere")
        case _:
            victim.symlink_to(victim)
    kind.use(tmp_path)


def test_what_is_damaged_is_kept_for_people_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind in KINDS:
        if kind.name in ("index.jsonl", "last-good.toml"):
            # made again line by line; never read while the file of the user is whole
            continue
        kind.make(tmp_path)
        (tmp_path / kind.name).write_bytes(b"{cut" * 2000)
        kind.use(tmp_path)
        assert (tmp_path / f"{kind.name}.broken").read_bytes() == b"{cut" * 2000
        assert f"{kind.name} is damaged" in caplog.text


def test_one_damaged_page_of_a_table_costs_that_file_and_no_camera(tmp_path: Path) -> None:
    make_outbox(tmp_path)
    path = tmp_path / "events.db"
    with sqlite3.connect(path) as database:
        root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()[0]
    database.close()
    data = bytearray(path.read_bytes())
    data[(root - 1) * 4096 : (root - 1) * 4096 + 100] = b"\x5a" * 100
    path.write_bytes(bytes(data))
    use_outbox(tmp_path)
    assert (tmp_path / "events.db.broken").is_file()
