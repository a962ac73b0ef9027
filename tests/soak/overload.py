"""Runs parts of the suite again and again, several at a time: the machine is overloaded. A table of what failed.

    nice python tests/soak/overload.py --runs 20 --at-once 3 --out FOLDER [--minutes M] [PATH …]

No native crash and no failure but a named time limit is what an overloaded machine may show: it ends with 1 otherwise.
FOLDER has the log and the JUnit file of each run, and ``table.txt``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
PARTS = ("tests/contract", "tests/e2e", "tests/integration")
MARKS = "not bench and not soak and not gpu"
# tests/waiting.py, a line that compares the time with a limit, and pytest-timeout
LIMIT = re.compile(
    r"time limit|^> +assert time\.monotonic\(\) <|Timeout \(?>|TimeoutExpired|TimeoutError", re.MULTILINE
)
CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}


@dataclass
class Run:
    """One run of the parts in a process of its own, and the folder with what it leaves."""

    folder: Path
    process: subprocess.Popen[bytes]
    was_cut: bool = False

    @classmethod
    def begun(cls, folder: Path, files: list[str]) -> Run:
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "pytest", *files, "-m", MARKS, "-p", "no:cacheprovider"]
        command += [f"--junitxml={folder / 'junit.xml'}", f"--basetemp={folder / 'tmp'}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, env=environment, start_new_session=True
            )
        return cls(folder, process)

    def stop(self) -> None:
        """End it as Ctrl-C does: it writes what it found so far."""
        self.was_cut = True
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def turned(paths: list[Path], number: int, count: int) -> list[str]:
    """All files of tests, each run from another one on: runs that are cut short have shown different ones."""
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("test_*.py")))
    first = number * len(files) // count
    return [str(file) for file in files[first:] + files[:first]]


@dataclass
class Table:
    """What all runs showed."""

    num_runs: int = 0
    num_whole: int = 0
    num_tests: int = 0
    crashes: list[str] = field(default_factory=list)
    # test → kind of failure → how often; and the first words of the last of it
    failures: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    words: dict[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return not self.crashes and not any("fault" in kinds for kinds in self.failures.values())

    def add(self, run: Run) -> None:
        code = run.process.returncode
        self.num_runs += 1
        self.num_whole += not run.was_cut and code in (0, 1)
        if code in CRASHES:
            self.crashes.append(f"{run.folder.name}: {signal.Signals(-code).name}")
        junit = run.folder / "junit.xml"
        for case in ElementTree.parse(junit).iter("testcase") if junit.is_file() else ():
            self.num_tests += case.find("skipped") is None
            name = f"{case.get('classname')}::{case.get('name')}"
            for found in (*case.findall("failure"), *case.findall("error")):
                text = f"{found.get('message')}\n{found.text}"
                self.failures[name]["time limit" if LIMIT.search(text) else "fault"] += 1
                self.words[name] = " ".join(str(found.get("message")).split())[:160]
        # gigabytes of recordings
        shutil.rmtree(run.folder / "tmp", ignore_errors=True)

    def __str__(self) -> str:
        lines = [
            f"{self.num_runs} runs, {self.num_whole} of them to their end; {self.num_tests} tests ran, "
            f"{sum(kinds.total() for kinds in self.failures.values())} failed; {len(self.crashes)} native crashes",
            *self.crashes,
        ]
        for name, kinds in sorted(self.failures.items(), key=lambda one: -one[1].total()):
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            lines.append(f"{counts:>24}  {name}\n{'':26}{self.words[name]}")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end then, whatever is left")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / part for part in PARTS])
    chosen = parser.parse_args()
    until_s, running, table, number = time.monotonic() + chosen.minutes * 60, list[Run](), Table(), 0
    while running or number < chosen.runs:
        is_over = time.monotonic() > until_s
        while len(running) < chosen.at_once and number < chosen.runs and not is_over:
            files = turned(chosen.paths, number, chosen.runs)
            number += 1
            running.append(Run.begun(chosen.out / f"run-{number:02}", files))
        for run in [one for one in running if is_over or one.process.poll() is not None]:
            if is_over:
                run.stop()
            running.remove(run)
            table.add(run)
            (chosen.out / "table.txt").write_text(f"{table}\n")
        if is_over:
            break
        time.sleep(1)
    print(table)
    return 0 if table.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
