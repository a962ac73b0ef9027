"""Clip tests before anything new takes over: a model, a configuration, an engine built again, another version."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Mapping
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


def rehearse_start(config: Config, folder: Path | None) -> None:
    """Run the clip tests where the version, a model file, or the settings are others than those that passed.

    Raises:
        ClipTestError: something expected is lost, and ``tests.on_start`` refuses to start then.
    """
    settings = config.tests
    if settings is None or (folder is not None and load_object(folder / PASSED) == fingerprint(config)):
        return
    log.info("another version, model or configuration than the one that passed the clip tests: they run first")
    status("running the clip tests")
    notify(f"EXTEND_TIMEOUT_USEC={round((settings.timeout_s + START_GRACE_S) * 1e6)}")
    try:
        rehearse(config, folder)
    except ClipTestError as error:
        if settings.on_start == "refuse":
            raise
        log.error("%s", error)


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
