"""What all tests share: where the data next to the project is, and the rule that CI may not skip what it must run."""

from __future__ import annotations

import json
import locale
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

# a machine may be told to keep no bytecode: each of thousands of processes would then compile the package again,
# which is a fifth of the processor time of a short `edge run`
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

from needs import NO_SHARED, need, summed_up
from quiet import QUIET, files

import edge  # noqa: F401 - before a test imports a library: its telemetry is off

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
# markers whose tests may be left out in CI: they are opt-in or need hardware
OPTIONAL = {"gpu", "bench", "soak"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_skipped_in_ci: list[str] = []
# what was missing → how many tests that cost
_missing: Counter[str] = Counter()
# which engine is faster here must not decide what a test sees; processes that tests start inherit it
os.environ.setdefault("EDGELOOP_ENGINE_TRIAL", "off")
# several processes of tests already use all cores: each of them trains with one
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


UMASK = umask()


@pytest.fixture(autouse=True)
def process_is_left_as_it_was() -> Iterator[None]:
    """What a test changes for its whole process meets those after it; one fixture, since it runs 4,000 times.

    Signals: a run that keeps Ctrl-C would leave the program that called it deaf. Locale, of the process or a thread: it
    changes what open() without encoding reads. Umask: files of later tests would be private, or open to all. Log: lines
    of a command that ran here, whatever of it still runs, would go to a stream that is closed.
    """
    handlers, codeset = [signal.getsignal(number) for number in SIGNALS], locale.nl_langinfo(locale.CODESET)
    yield
    logging.root.handlers = [one for one in logging.root.handlers if not getattr(one, "is_of_edge", False)]
    kept = [signal.getsignal(number) for number in SIGNALS]
    for number, before, after in zip(SIGNALS, handlers, kept, strict=True):
        if after is not before and before is not None:
            signal.signal(number, before)
    mask = umask()
    os.umask(UMASK)
    assert kept == handlers
    assert locale.nl_langinfo(locale.CODESET) == codeset
    assert mask == UMASK, "edge run takes the umask of its process: here.run_here gives it back"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skips-later", type=Path, help="write what was skipped here; a later run sums it up")
    parser.addoption("--skips-before", type=Path, help="what an earlier run wrote is part of the closing sentence")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    quiet = {path for kind in QUIET for path in files(kind)}
    for item in items:
        if item.path in quiet:
            item.add_marker("quiet")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data next to the project; skips where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(NO_SHARED)
    return SHARED


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    # the time limit of a test holds its report too, where it would end the whole run: it waits meanwhile
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    outcome = yield
    if left_s:
        signal.setitimer(signal.ITIMER_REAL, left_s)
    report = outcome.get_result()  # type: ignore[attr-defined]
    # goes with the report from the process that ran the test
    report.is_optional = bool(OPTIONAL & {mark.name for mark in item.iter_markers()})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and os.environ.get("CI") and not report.is_optional and not hasattr(report, "wasxfail"):
        _skipped_in_ci.append(report.nodeid)
    if report.skipped and isinstance(report.longrepr, tuple):
        _missing[report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skipped_in_ci and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _skipped_in_ci:
        terminalreporter.write_sep("=", "skipped although CI must run them", red=True)
        for name in _skipped_in_ci:
            terminalreporter.write_line(name)
    before, later = config.getoption("skips_before"), config.getoption("skips_later")
    if before is not None and before.stat().st_size:
        _missing.update(json.loads(before.read_text(encoding="utf-8")))
    if later is not None:
        later.write_text(json.dumps(_missing), encoding="utf-8")
    elif _missing:
        terminalreporter.write_line(summed_up(_missing))


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that nobody signed, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, "-keyout", key, "-out", cert, *subject], check=True, capture_output=True)
    return cert, key
