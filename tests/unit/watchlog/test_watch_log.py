"""The watch log: whoever removes, adds, reorders or edits anything of it is found, and what happened is told."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import DataError
from edge.recording.retention import Keep
from edge.types import Event
from edge.watchlog import log as log_module
from edge.watchlog.certificate import certify, check_certificate, checked_folder, write_certificate
from edge.watchlog.chain import HEAD_NAME, numbered
from edge.watchlog.keys import KEY_NAME, DeviceKey, fingerprint
from edge.watchlog.log import Moment, WatchLog
from edge.watchlog.seconds import Analysed, Seconds
from edge.watchlog.statement import sentence_of

NS = 1_000_000_000
# 2026-11-30T02:00:00Z at monotonic second 1,000
WALL_S = 1_796_004_000
OFFSET_NS = (WALL_S - 1000) * NS
FACTS = {"version": "0", "model": "a" * 64, "config": "b" * 64, "masks": "", "masked_share": 0.0}
KEEP = Keep(None, None)


def moment(second: int, boot: str = "one", by_s: float = 0.0) -> Moment:
    return Moment(second, OFFSET_NS + round(by_s * NS), boot)


def row(second: int, word: str = "analysed", **more: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {"n": 10, "at": [0, 900, 100]} if word == "analysed" else {}
    return {"s": second, "is": word, **seen, **more}


class Device:
    """A state folder, its key, and the log of its camera ``door``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = DeviceKey.made_in(folder)

    def begin(self, now: Moment, keep: Keep = KEEP) -> WatchLog:
        log = WatchLog(self.folder / "door", "door", self.key, keep)
        log.begin(now, FACTS)
        return log

    def write(self, log: WatchLog, first: int, until: int, word: str = "analysed") -> None:
        for second in range(first, until):
            log.add(row(second, word))
            if second % 5 == 4:
                log.flush()

    def statement(self, first_s: float, until_s: float) -> dict[str, Any]:
        start_ns, end_ns = (round((WALL_S - 1000 + s) * NS) for s in (first_s, until_s))
        certificate = certify(self.folder / "door", "door", self.key, start_ns, end_ns)
        path = self.folder / "door.certificate.json"
        write_certificate(path, certificate)
        assert check_certificate(path) == json.loads(path.read_text())
        return dict(certificate["statement"])

    def problems(self) -> list[str]:
        return checked_folder(self.folder / "door", "door", self.key.public)[1].problems


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(log_module, "SECONDS_PER_FILE", 20)
    return Device(tmp_path)


# what is told


def test_an_undisturbed_time_is_analysed_whole(device: Device) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1100)
    log.close("stopped")
    found = device.statement(1010, 1090)
    assert found["analysed_share"] == 1
    assert (found["seconds"], found["frames"], found["largest_gap_s"]) == (80, 800, 0.1)
    assert found["happened"] == []
    assert device.problems() == []
    assert sentence_of(found).endswith("analysed 100.0 %, largest gap 0.1 s, no crossings")


def test_gaps_drops_and_crossings_are_told(device: Device) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1010)
    log.add(row(1010, "dropped", drops={"drop_too_old": 9}))
    log.add(row(1011, events={"line_crossed:gate:in": 2, "line_crossed:gate:out": 1}) | {"at": [300, 900, 100]})
    device.write(log, 1012, 1060)
    log.close("stopped")
    found = device.statement(1000, 1060)
    assert found["analysed_s"] == 59
    # the last frame before stands at 1009.9, the next one at 1011.3
    assert found["largest_gap_s"] == 1.4
    assert found["states"] == {"dropped": 1}
    assert found["drops"] == {"drop_too_old": 9}
    assert sentence_of(found).endswith("analysed 98.3 %, largest gap 1.4 s, 3 crossings; not analysed: 1 s dropped")


def test_time_before_and_after_the_log_is_no_analysed_time(device: Device) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1010)
    log.close("stopped")
    found = device.statement(995, 1035)
    assert found["unaccounted_s"] == 30
    assert found["analysed_share"] == 0.25
    assert found["largest_gap_s"] == 25.1


def test_a_stop_a_kill_and_a_power_cut_are_told_as_what_they_are(device: Device) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1010)
    log.close("stopped")
    log = device.begin(moment(1013))
    device.write(log, 1013, 1020)
    log.flush()
    log.add(row(1020))
    # killed with a row that was not signed
    log = device.begin(moment(1030))
    device.write(log, 1030, 1040)
    # the power goes; the machine is back after five seconds, its monotonic clock at 7
    log = device.begin(Moment(7, (WALL_S - 1000 + 1045 - 7) * NS, "two"))
    device.write(log, 7, 20)
    log.close("stopped")
    found = device.statement(1000, 1058)
    assert [one["what"] for one in found["happened"]] == [
        "the program was stopped and started again; 3 s were not watched",
        "the program was killed; 10 s were not watched",
        "the machine lost its power, or was restarted at once; 5 s were not watched",
    ]
    assert found["unaccounted_s"] == 18
    assert found["analysed_s"] == 40
    assert found["largest_gap_s"] == 10.1
    assert device.problems() == []


@pytest.mark.parametrize(
    ("by_s", "asleep_s", "told", "window", "unaccounted_s"),
    [
        (3600.0, 0.0, "the clock was set forward by 3600.0 s", (1000, 1040 + 3600), 0),
        (-15.0, 0.0, "the clock was set back by 15.0 s", (1000, 1025), 0),
        (60.0, 60.0, "the machine slept for 60.0 s", (1000, 1100), 60),
    ],
)
def test_a_clock_that_jumps_is_told(
    by_s: float, asleep_s: float, told: str, window: tuple[int, int], unaccounted_s: int, device: Device
) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1020)
    log.note_clock(moment(1020, by_s=by_s), by_s, asleep_s)
    device.write(log, 1020, 1040)
    log.close("stopped")
    found = device.statement(*window)
    assert [one["what"] for one in found["happened"]] == [told]
    assert found["unaccounted_s"] == unaccounted_s
    # 40 s went by, whatever the clock showed
    assert found["analysed_s"] == 40
    assert found["largest_gap_s"] == (60.1 if asleep_s else 0.1)


def test_another_model_is_told_with_its_hash(device: Device) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1010)
    log.note_facts({**FACTS, "model": "c" * 64})
    device.write(log, 1010, 1030)
    log.close("stopped")
    assert [facts["model"][0] for facts in device.statement(1000, 1030)["facts"]] == ["a", "c"]
    assert [facts["model"][0] for facts in device.statement(1015, 1030)["facts"]] == ["c"]


# a disk that takes nothing, and bounds


def test_a_full_disk_costs_no_second_that_it_takes_later(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1005)
    real = os.fsync
    monkeypatch.setattr(os, "fsync", _full)
    device.write(log, 1005, 1050)
    assert not log.flush()
    monkeypatch.setattr(os, "fsync", real)
    device.write(log, 1050, 1060)
    log.close("stopped")
    assert device.statement(1000, 1060)["analysed_share"] == 1


def test_rows_that_no_disk_took_are_told_as_lost(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING", 30)
    log = device.begin(moment(1000))
    device.write(log, 1000, 1005)
    real = os.fsync
    monkeypatch.setattr(os, "fsync", _full)
    device.write(log, 1005, 1100)
    monkeypatch.setattr(os, "fsync", real)
    device.write(log, 1100, 1110)
    log.close("stopped")
    found = device.statement(1000, 1110)
    assert device.problems() == []
    assert found["unaccounted_s"] + found["analysed_s"] == 110
    assert found["unaccounted_s"] > 60
    assert any("could not be written (No space left on device)" in one["what"] for one in found["happened"])


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_the_oldest_hours_go_beyond_the_limit_and_the_rest_is_whole(device: Device) -> None:
    log = device.begin(moment(1000), Keep(None, 12_000))
    device.write(log, 1000, 1400)
    log.close("stopped")
    files = numbered(device.folder / "door")
    assert 2 <= len(files) < 10
    assert sum(path.stat().st_size for path in files) < 16_000
    assert device.problems() == []
    assert device.statement(1350, 1390)["analysed_share"] == 1


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    public = DeviceKey.made_in(tmp_path).public
    assert (tmp_path / KEY_NAME).stat().st_mode & 0o777 == 0o600
    assert DeviceKey.made_in(tmp_path).public == public
    assert len(fingerprint(public)) == 39
    (tmp_path / KEY_NAME).chmod(0o644)
    with pytest.raises(DataError, match="others may read"):
        DeviceKey.of_folder(tmp_path)


def test_processes_that_begin_at_once_have_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as many:
        keys = set(many.map(lambda _: DeviceKey.made_in(tmp_path).public, range(24)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_NAME]


# nothing of it can be touched


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """Ten files: hours, a stop, a kill, a clock that was set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "SECONDS_PER_FILE", 20)
        device = Device(tmp_path_factory.mktemp("watch"))
        log = device.begin(moment(1000))
        device.write(log, 1000, 1070)
        log.close("stopped")
        log = device.begin(moment(1075))
        device.write(log, 1075, 1110)
        log = device.begin(moment(1120))
        device.write(log, 1120, 1140)
        log.note_clock(moment(1140, by_s=-30), -30.0, 0.0)
        device.write(log, 1140, 1180)
        log.close("stopped")
        assert device.problems() == []
        yield device


Lines = list[bytes]


def edited_byte(lines: Lines, at: int, to: int) -> Lines:
    line = bytearray(lines[at])
    line[to % len(line)] ^= 1 << to % 8
    return [*lines[:at], bytes(line), *lines[at + 1 :]]


def swapped(lines: Lines, at: int, to: int) -> Lines:
    lines = list(lines)
    lines[at], lines[to] = lines[to], lines[at]
    return lines


def cut_off(lines: Lines, at: int, to: int) -> Lines:
    joined = b"".join(lines)
    return [joined[: len(joined) * at // len(lines) + to]]


FORGED = b'{"s":1003,"is":"analysed","n":10,"at":[0,900,100]}\n'
IN_A_FILE: dict[str, Callable[[Lines, int, int], Lines]] = {
    "a row removed": lambda lines, at, _: [*lines[:at], *lines[at + 1 :]],
    "a row repeated": lambda lines, at, to: [*lines[:to], lines[at], *lines[to:]],
    "two rows exchanged": swapped,
    "a byte edited": edited_byte,
    "a count edited": lambda lines, at, _: [
        *lines[:at],
        lines[at].replace(b'"n":10', b'"n":11').replace(b'"seal":"', b'"seal":"A'),
        *lines[at + 1 :],
    ],
    "a row added": lambda lines, at, _: [*lines[:at], FORGED, *lines[at:]],
    "the end removed": lambda lines, at, _: lines[:at],
    "cut off somewhere": cut_off,
}


def remove(path: Path, _: Path, __: Path) -> None:
    path.unlink()


def exchange(path: Path, other: Path, _: Path) -> None:
    mine = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(mine)


def add(path: Path, _: Path, folder: Path) -> None:
    shutil.copy(path, folder / f"{len(numbered(folder)) + 1:08d}.jsonl")


def remove_and_close_the_gap(path: Path, _: Path, folder: Path) -> None:
    path.unlink()
    for number, rest in enumerate(numbered(folder), 1):
        rest.rename(folder / f"{number:08d}.jsonl")


def take_the_rows_of_another(path: Path, other: Path, _: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True), other.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[0][:1] + lines[1][1:]))


def remove_the_head(_: Path, __: Path, folder: Path) -> None:
    (folder / HEAD_NAME).unlink()


def remove_the_newest_and_the_head(path: Path, _: Path, folder: Path) -> None:
    for rest in numbered(folder):
        if rest >= path:
            rest.unlink()
    (folder / HEAD_NAME).unlink()


def edit_the_head(path: Path, other: Path, folder: Path) -> None:
    head = json.loads((folder / HEAD_NAME).read_text())
    head[("first", "last", "lines")[int(path.stem) % 3]] += 1 if path < other else -1
    (folder / HEAD_NAME).write_text(json.dumps(head))


def sign_with_another_key(_: Path, __: Path, folder: Path) -> None:
    (folder.parent / "forger").mkdir()
    forger = Device(folder.parent / "forger")
    log = forger.begin(moment(1000))
    forger.write(log, 1000, 1070)
    log.close("stopped")
    shutil.copy(numbered(forger.folder / "door")[0], numbered(folder)[0])


WITH_FILES: tuple[Callable[[Path, Path, Path], None], ...] = (
    *(remove, exchange, add, remove_and_close_the_gap, take_the_rows_of_another, remove_the_head),
    *(remove_the_newest_and_the_head, edit_the_head, sign_with_another_key),
)


def problems_of(folder: Path, whole: Device) -> list[str]:
    try:
        _, checked = checked_folder(folder, "door", whole.key.public)
    except DataError as error:
        # nothing at all is left
        return [str(error)]
    if checked.problems:
        with pytest.raises(DataError, match="not as it was written"):
            certify(folder, "door", whole.key, WALL_S * NS, (WALL_S + 60) * NS)
    return [*checked.problems, *checked.notes]


@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kind=st.sampled_from(sorted(IN_A_FILE)))
def test_whatever_is_touched_in_a_file_is_found(
    whole: Device, tmp_path_factory: pytest.TempPathFactory, data: Any, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("touched")
    shutil.copytree(whole.folder / "door", folder / "door")
    path = data.draw(st.sampled_from(numbered(folder / "door")))
    lines = path.read_bytes().splitlines(keepends=True)
    at, to = data.draw(st.integers(0, len(lines) - 1)), data.draw(st.integers(0, len(lines) - 1))
    path.write_bytes(b"".join(IN_A_FILE[kind](lines, at, to)))
    if path.read_bytes() != b"".join(lines):
        assert problems_of(folder / "door", whole), f"{kind} was not found"
    shutil.rmtree(folder)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), act=st.sampled_from(WITH_FILES))
def test_whatever_is_done_to_files_is_found(
    whole: Device, tmp_path_factory: pytest.TempPathFactory, data: Any, act: Callable[[Path, Path, Path], None]
) -> None:
    folder = tmp_path_factory.mktemp("touched")
    shutil.copytree(whole.folder / "door", folder / "door")
    files = numbered(folder / "door")
    path = data.draw(st.sampled_from(files))
    act(path, data.draw(st.sampled_from([file for file in files if file != path])), folder / "door")
    assert problems_of(folder / "door", whole), f"{act.__name__} was not found"
    shutil.rmtree(folder)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_certificate_that_was_touched_is_refused(whole: Device, tmp_path: Path, data: Any) -> None:
    path = tmp_path / "whole.json"
    if not path.exists():
        write_certificate(path, certify(whole.folder / "door", "door", whole.key, WALL_S * NS, (WALL_S + 90) * NS))
    text = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= 1 << data.draw(st.integers(0, 7))
    edited = tmp_path / "edited.json"
    edited.write_bytes(text)
    try:
        if json.loads(bytes(text)) == json.loads(path.read_text()):
            return
    except ValueError:
        pass
    with pytest.raises(DataError):
        check_certificate(edited)


def test_a_log_that_was_cut_before_a_restart_is_told_for_ever(device: Device) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1015)
    log.flush()
    path = numbered(device.folder / "door")[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    seals = [number for number, line in enumerate(lines) if line.startswith(b'{"seal"')]
    path.write_bytes(b"".join(lines[: seals[1] + 1]))
    log = device.begin(moment(1020))
    device.write(log, 1020, 1030)
    log.close("stopped")
    happened = device.statement(1000, 1030)["happened"]
    assert happened[0]["what"].startswith("the program began again, and the end of the log before was gone")


def test_a_restart_heals_no_edited_row(device: Device) -> None:
    log = device.begin(moment(1000))
    device.write(log, 1000, 1015)
    path = numbered(device.folder / "door")[-1]
    path.write_bytes(path.read_bytes().replace(b'"s":1003,"is":"analysed"', b'"s":1003,"is":"analysee"'))
    log = device.begin(moment(1020))
    device.write(log, 1020, 1030)
    log.close("stopped")
    assert device.problems()[0] == "00000001.jsonl, line 8: the seal does not fit what stands above it"


# from frames to rows


def test_every_second_has_its_row_whatever_comes() -> None:
    seconds = Seconds(100)
    seconds.note_frame(Analysed(100 * NS + 250_000_000, "m", ()))
    crossing = Event("line_crossed", "door", 0, 1, {"line": "gate", "direction": "in"})
    seconds.note_frame(Analysed(100 * NS + 750_000_000, "m", (crossing,)))
    seconds.note_state(100, "streaming", (), {"drop_replaced": 0})
    seconds.note_state(102, "backing_off", (), {})
    seconds.note_state(103, "streaming", (), {"drop_replaced": 3})
    seconds.note_state(104, "streaming", (), {"drop_no_motion": 3})
    seconds.note_state(105, "streaming", ("dark",), {})
    seconds.note_frame(Analysed(105 * NS, "m", ()))
    seconds.note_state(106, "streaming", (), {})
    rows = list(seconds.close(107))
    noted = {"n": 2, "at": [250, 750, 500], "events": {"line_crossed:gate:in": 1}}
    assert rows[0] == {"s": 100, "is": "analysed", **noted}
    words = [row["is"] for row in rows]
    assert words == ["analysed", "halted", "offline", "dropped", "skipped", "dark", "silent"]
    assert [row["s"] for row in rows] == list(range(100, 107))


def test_a_frame_that_comes_late_is_counted_and_changes_no_row() -> None:
    seconds = Seconds(100)
    assert [row["is"] for row in seconds.close(103)] == ["halted"] * 3
    seconds.note_frame(Analysed(101 * NS, "m", ()))
    (late,) = seconds.close(104)
    assert (late["is"], late["n"], "at" in late) == ("analysed", 1, False)
