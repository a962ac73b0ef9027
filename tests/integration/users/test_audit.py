"""The audit log: bounded, whole after a kill, readable by its owner alone, and honest about what it lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.addresses.secrets import register
from edge.errors import DataError
from edge.users.audit import AuditLog, older_of, read_audit


def test_lines_come_back_newest_first_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", 1 << 20)
    for number in range(3):
        log.note(f"look /recordings/door/{number}.mp4", "anna", "10.0.0.9", camera="door")
    lines = list(read_audit(log.path))
    assert [line["what"][-5] for line in lines] == ["2", "1", "0"]
    assert lines[0]["who"] == "anna" and lines[0]["from"] == "10.0.0.9" and lines[0]["camera"] == "door"
    assert lines[0]["time"].endswith("Z")
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_it_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", 20_000)
    for number in range(500):
        log.note(f"{number} {'x' * 100}", "anna", "10.0.0.9")
    sizes = [path.stat().st_size for path in (log.path, older_of(log.path))]
    assert all(0 < size <= 10_000 for size in sizes) and len(list(tmp_path.iterdir())) == 2
    numbers = [int(line["what"].split()[0]) for line in read_audit(log.path)]
    assert numbers == list(range(499, 499 - len(numbers), -1)) and len(numbers) >= 50


@settings(max_examples=examples(), deadline=None)
@given(st.binary(max_size=80))
def test_what_a_kill_left_unfinished_joins_no_line(tmp_path_factory: pytest.TempPathFactory, rest: bytes) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    path.write_bytes(b'{"who":"anna"}\n' + rest)
    AuditLog(path, 1 << 20).note("login", "bert", "")
    whos = [line.get("who") for line in read_audit(path)]
    assert whos[0] == "bert" and whos[-1] == "anna"


def _write(path: Path, count: int) -> None:
    log = AuditLog(path, 1 << 20)
    for number in range(count):
        log.note(f"line {number}", str(os.getpid()), "")


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    writers = [multiprocessing.get_context("fork").Process(target=_write, args=(path, 60)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert len(list(read_audit(path))) == 120 == path.read_bytes().count(b"\n")


KILLED = """
import sys
from pathlib import Path
from edge.users.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), 6000)
for number in range(10**6):
    log.note(f"line {number} " + "x" * 80, "anna", "10.0.0.9")
    print(number, flush=True)
"""


def test_a_kill_loses_no_line_that_was_told_as_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for wait_s in (0.01, 0.02, 0.03):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(wait_s)
            writer.send_signal(signal.SIGKILL)
            told = [line for line in writer.stdout.read().split("\n")[:-1] if line]
        numbers = [int(line["what"].split()[1]) for line in read_audit(path)]
        assert numbers[0] >= int(told[-1] if told else 0)
        path.unlink()
        older_of(path).unlink(missing_ok=True)


def test_a_line_that_does_not_fit_is_told_and_the_next_one_says_how_many_were_lost(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, 1 << 20)
    log.note("login", "anna", "")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(DataError, match=r"audit.jsonl: the audit log cannot be written"):
                log.note("PUT /api/streams/door/drawn", "anna", "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert log.num_lost == 2
    log.note("logout", "anna", "")
    lines = list(read_audit(path))
    assert [line["what"] for line in lines] == ["logout", "login"] and lines[0]["lost_before"] == 2


def test_no_secret_and_no_endless_text_stands_in_it(tmp_path: Path) -> None:
    register("canary-of-the-audit")
    log = AuditLog(tmp_path / "audit.jsonl", 1 << 20)
    log.note("x canary-of-the-audit " + "y" * 5000, "anna\n{}", "")
    text = log.path.read_text()
    assert "canary" not in text and len(text) < 400 and text.count("\n") == 1
    assert json.loads(text)["who"] == "anna\n{}"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("keep")
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(DataError):
        AuditLog(tmp_path / "audit.jsonl", 1 << 20).note("login", "anna", "")
    assert (tmp_path / "other").read_text() == "keep"
