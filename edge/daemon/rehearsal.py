"""Clip tests before anything new takes over: a model, a configuration, an engine built again, another version."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.addresses.secrets import redacted_value
from edge.daemon.notify import notify, status
from edge.errors import ClipTestError
from edge.files import load_object, sha256_of, write_atomic

if TYPE_CHECKING:
    from edge.config.daemon import ClipTestSettings
    from edge.config.schema import Config

log = logging.getLogger(__name__)
PASSED = "tests-passed.json"
PAGE = "tests.html"
RECORDINGS_PAGE = "rehearsal.html"
# tests of the last recordings, and what they were made with
SEEN, MADE_WITH = "last-seen", "made-with.json"
# after a start, and from then on
KEEP_AFTER_S, KEEP_EVERY_S = 600.0, 6 * 3600.0
START_GRACE_S = 60


def rehearse(
    config: Config, folder: Path | None, mapped: Mapping[str, Any] | None = None, before: Config | None = None
) -> None:
    """Run the clip tests with what shall take over, and the last recordings, each in a process of its own.

    Args:
        config: what shall run; nothing is run without its ``tests``.
        folder: of the state: what passed is noted there, and the pages with what differs.
        mapped: see ``edge.cliptests.run.look``.
        before: what runs; None at a start, where the recordings are left alone.

    Raises:
        ClipTestError: something expected is lost.
    """
    if config.tests is None:
        return
    _run_tests(config, config.tests, folder, mapped)
    if before is not None and config.tests.rehearse != "off":
        _run_recordings(config, config.tests, folder, mapped, before)


def _run_recordings(
    config: Config, settings: ClipTestSettings, folder: Path | None, mapped: Mapping[str, Any] | None, before: Config
) -> None:
    from edge.cliptests.child import rehearse_apart

    page = None if folder is None else folder / RECORDINGS_PAGE
    since_ns = time.time_ns() - round(settings.rehearse_hours * 3600e9)
    try:
        verdicts = rehearse_apart(
            before, config, since_ns=since_ns, for_s=settings.rehearse_s, mapped=mapped, html=page
        )
        failed = [one for one in verdicts if one.differences]
        if failed:
            seen = "" if page is None else f"; {page} shows it"
            first = failed[0]
            raise ClipTestError(
                f"{len(failed)} of {len(verdicts)} recordings are seen otherwise than now: {first.name}: "
                f"{first.differences[0].text}{seen}"
            )
    except ClipTestError as error:
        if settings.rehearse == "refuse":
            raise ClipTestError(f'{error}; if that is meant: tests.rehearse = "tell"') from None
        log.warning("rehearsal: %s", error)
    else:
        log.info("rehearsal: nothing is lost in %d recordings", len(verdicts))


def _run_tests(
    config: Config, settings: ClipTestSettings, folder: Path | None, mapped: Mapping[str, Any] | None
) -> None:
    from edge.cliptests.case import cases_in
    from edge.cliptests.child import run_apart

    if not any(cases_in(settings.folder)):
        return
    page = None if folder is None else folder / PAGE
    verdicts = run_apart(config, settings.folder, settings.timeout_s, mapped=mapped, html=page)
    failed = [one for one in verdicts if one.differences]
    if not failed:
        log.info("%d clip tests: nothing expected is lost", len(verdicts))
        _note_passed(config, folder)
        return
    first, more = failed[0], sum(len(one.differences) for one in failed) - 1
    seen = "" if page is None else f"; {page} shows it"
    raise ClipTestError(
        f"{len(failed)} of {len(verdicts)} clip tests lost something: {first.name}: {first.differences[0].text}"
        f"{f' (and {more} more)' if more else ''}{seen}; if that is meant: edge test accept"
    )


def rehearse_start(config: Config, folder: Path | None) -> str:
    """Run the clip tests where the version, a model file, or the settings are others than those that passed.

    Returns:
        What is lost, where it starts all the same; empty where nothing is.

    Raises:
        ClipTestError: something expected is lost, and ``tests.on_start`` refuses to start then.
    """
    settings = config.tests
    if settings is None:
        return ""
    runs = [
        *([] if _is_of(folder, PASSED, config) else [rehearse]),
        *([_rehearse_seen] if _can_ask(folder, config) else []),
    ]
    if not runs:
        return ""
    log.info("another version, model or configuration than the one before: the clip tests run first")
    status("running the clip tests")
    notify(f"EXTEND_TIMEOUT_USEC={round((len(runs) * settings.timeout_s + START_GRACE_S) * 1e6)}")
    lost = [text for run in runs if (text := _lost_by(config, folder, run))]
    for text in lost:
        log.error("this version, model or configuration starts although %s", text)
    return "; ".join(lost)


def _lost_by(config: Config, folder: Path | None, run: Callable[[Config, Path | None], None]) -> str:
    try:
        run(config, folder)
    except ClipTestError as error:
        assert config.tests is not None
        may_refuse = run is not _rehearse_seen or config.tests.rehearse == "refuse"
        if config.tests.on_start == "refuse" and may_refuse:
            raise
        return str(error)
    return ""


def _is_of(folder: Path | None, name: str, config: Config) -> bool:
    """Whether a note in the folder was made with this configuration, its models and this version."""
    return folder is not None and load_object(folder / name) == fingerprint(config)


def _can_ask(folder: Path | None, config: Config) -> bool:
    """Whether what was seen in the last recordings says something of a version or a model that is new."""
    if folder is None or config.tests is None or config.tests.rehearse == "off":
        return False
    made_with, now = load_object(folder / SEEN / MADE_WITH), fingerprint(config)
    if not made_with or made_with == now:
        return False
    if made_with.get("settings") != now["settings"]:
        log.info("rehearsal: the settings are others than those of the last recordings; nothing is compared")
        return False
    return True


def _rehearse_seen(config: Config, folder: Path | None) -> None:
    """Run what was kept of the last recordings.

    Raises:
        ClipTestError: they are seen otherwise.
    """
    from edge.cliptests.child import run_apart

    assert config.tests is not None and folder is not None
    seen, settings = folder / SEEN, config.tests
    verdicts = run_apart(config, seen, settings.timeout_s, html=folder / RECORDINGS_PAGE)
    failed = [one for one in verdicts if one.differences]
    if failed:
        first = failed[0]
        raise ClipTestError(
            f"{len(failed)} of {len(verdicts)} recordings are seen otherwise than by what ran before: {first.name}: "
            f"{first.differences[0].text}; {folder / RECORDINGS_PAGE} shows it"
        )
    log.info("rehearsal: nothing is lost in %d recordings", len(verdicts))


def keep_seen(config: Config, folder: Path) -> None:
    """Keep what is seen now in the last recordings, for a start with another version or model.

    Args:
        config: what runs, with the engines that its models have.
        folder: of the state.
    """
    from edge.cliptests.child import keep_apart

    settings = config.tests
    assert settings is not None
    since_ns = time.time_ns() - round(settings.rehearse_hours * 3600e9)
    try:
        count = keep_apart(config, folder / SEEN, since_ns=since_ns, for_s=settings.rehearse_s)
        if count:
            write_atomic(folder / SEEN / MADE_WITH, json.dumps(fingerprint(config)))
    except (ClipTestError, OSError) as error:
        log.warning("rehearsal: %s", error)
    else:
        log.info("rehearsal: what is seen in %d recordings is kept for the next start", count)


def keep_seen_until(stopping: threading.Event, config_of: Callable[[], Config], folder: Path) -> None:
    """Keep it again and again, until asked to stop."""
    wait_s = KEEP_AFTER_S
    while not stopping.wait(wait_s):
        config, wait_s = config_of(), KEEP_EVERY_S
        if config.tests is not None and config.tests.rehearse != "off":
            keep_seen(config, folder)


def fingerprint(config: Config) -> dict[str, Any]:
    """What clip tests depend on: version, model files, and the settings of streams and models."""
    settings = [redacted_value(one.model_dump(mode="json")) for one in (*config.streams, *config.models)]
    return {
        "version": importlib.metadata.version("edgeloop"),
        "models": {one.name: sha256_of(one.path) if one.path.is_file() else "" for one in config.models},
        "settings": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    }


def _note_passed(config: Config, folder: Path | None) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / PASSED, json.dumps(fingerprint(config)))
    except OSError as error:
        # the next start runs them again
        log.warning("%s: cannot be written (%s)", folder / PASSED, error.strerror)
