"""What the page asks about the past: one question at a time, each in a process of its own that can be ended."""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from edge.config.section import Section
from edge.errors import ConfigError, DataError, EdgeError, UsageError
from edge.threads.python_process import Asked
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.config.schema import StreamSettings
    from edge.daemon.edit import ConfigEditor
    from edge.daemon.run import Run

log = logging.getLogger(__name__)
MAX_WAITING = 4
# answers hold pictures: some 2 MB each
MAX_KEPT = 8
KEPT_S = 900.0
TIMEOUTS_S: Mapping[str, float] = {"why": 120.0, "what-if": 300.0, "test": 600.0}
# a longer recording is cut around a moment
MAX_TEST_S = 120.0
FLUSH_S = 3.0
STAGED = ".asked-"
NS_PER_S = 1_000_000_000


class _Why(Section):
    """``at``: seconds since 1970; ``part``: of a line or zone, ``kind``: of an event, empty for any."""

    ask: Literal["why"]
    stream: str
    at: float = Field(gt=0, lt=1e11)
    within_s: float = Field(default=3.0, ge=0.1, le=60)
    part: str = Field(default="", max_length=64)
    kind: str = Field(default="", max_length=64)


class _WhatIf(Section):
    """``drawn``: as it would be saved; ``hours``: so far back."""

    ask: Literal["what-if"]
    stream: str
    drawn: dict[str, Any]
    hours: float = Field(default=24, gt=0, le=24 * 31)


class _Test(Section):
    """``file``: a recording; ``at``: seconds since 1970, the middle of what is taken of it; None: all of it."""

    ask: Literal["test"]
    stream: str
    file: str = Field(max_length=255)
    at: float | None = Field(default=None, gt=0, lt=1e11)
    around_s: float = Field(default=15, ge=1, le=MAX_TEST_S / 2)
    name: str = Field(default="", max_length=64)


_Form = TypeVar("_Form", _Why, _WhatIf, _Test)


@dataclass(slots=True)
class _Job:
    """A question on its way; ``staged``: where a test waits to be saved."""

    ask: str
    stream: str
    request: Mapping[str, Any]
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    error: str = ""
    answer: Mapping[str, Any] | None = None
    asked: Asked | None = None
    staged: Path | None = None
    begun_s: float = 0.0
    seconds: float = 0.0
    ended_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        now_s = time.monotonic() - self.begun_s if self.state == "running" else self.seconds
        facts = {"ask": self.ask, "state": self.state, "error": self.error, "seconds": round(now_s, 1)}
        return {**facts, "limit_s": TIMEOUTS_S[self.ask], "answer": self.answer}


class Questions:
    """Takes questions from any thread, and answers them one after the other.

    Args:
        pipeline: that runs.
        editor: gives what changes the file, for what-if; None where there is no file.
    """

    def __init__(self, pipeline: Run, editor: Callable[[], ConfigEditor | None]) -> None:
        self._pipeline = pipeline
        self._editor = editor
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._worker: Worker | None = None
        self._is_ending = False

    def can(self) -> dict[str, bool]:
        """Which questions this configuration can answer."""
        config = self._pipeline.config
        has_tracks = config.track_store is not None
        return {
            "why": has_tracks,
            "what-if": has_tracks and config.server.can_edit,
            "test": config.tests is not None and config.server.can_add_tests,
        }

    def ask(self, body: Any) -> str:
        """Put a question; returns its id.

        Raises:
            UsageError: it is none, or nothing is kept that could answer it.
            EdgeError: too many wait.
        """
        ask = body.get("ask") if isinstance(body, dict) else None
        job_id = uuid.uuid4().hex
        match ask:
            case "why":
                why = _checked(_Why, body)
                job = _Job(ask, why.stream, self._why(why))
            case "what-if":
                what_if = _checked(_WhatIf, body)
                job = _Job(ask, what_if.stream, self._what_if(what_if))
            case "test":
                test = _checked(_Test, body)
                request = self._test(test, job_id)
                job = _Job(ask, test.stream, request, staged=Path(request["folder"]))
            case _:
                raise UsageError('expected "ask" to be one of: why, what-if, test')
        with self._lock:
            self._forget()
            if sum(one.state == "waiting" for one in self._jobs.values()) >= MAX_WAITING:
                raise EdgeError(f"{MAX_WAITING} questions wait already; ask again later")
            if self._is_ending:
                raise EdgeError("the program is about to end")
            self._jobs[job_id] = job
            if self._worker is None:
                self._worker = Worker("questions", self._run)
                self._worker.start()
        return job_id

    def state(self, job_id: str) -> dict[str, Any]:
        """How it goes, and the answer. Raises: DataError: there is no such question any more."""
        with self._lock:
            return self._job(job_id).as_json()

    def stream_of(self, job_id: str) -> str:
        """The stream that a question is about. Raises: DataError: there is none of this id."""
        with self._lock:
            return self._job(job_id).stream

    def cancel(self, job_id: str) -> None:
        """End it, and forget a test that waits to be saved. Raises: DataError: there is no such question any more."""
        with self._lock:
            job = self._job(job_id)
            if job.state in ("waiting", "running"):
                job.state = "cancelled"
            if job.asked is not None:
                job.asked.cancel()
            elif job.staged is not None:
                shutil.rmtree(job.staged, ignore_errors=True)

    def save(self, job_id: str, name: str) -> dict[str, Any]:
        """Make the test that was shown one of the tests, under this name.

        Raises:
            DataError: there is none. UsageError: the name cannot be used.
        """
        from edge.cliptests.add import place_for

        with self._lock:
            job = self._job(job_id)
            if job.staged is None or job.state != "done" or job.answer is None or not job.staged.is_dir():
                raise DataError("there is no test that waits to be saved; ask for it again")
            place = place_for(job.staged.parent, name)
            try:
                (job.staged / job.answer["name"]).rename(place)
            except OSError as error:
                raise DataError(f"{place}: cannot be written ({error.strerror})") from None
            shutil.rmtree(job.staged, ignore_errors=True)
        log.info("%s: was added as a test from the page", place)
        return {"name": place.name}

    def stop(self) -> None:
        """End what runs; nothing more is taken. Does not wait long."""
        with self._lock:
            self._is_ending = True
            jobs, worker = list(self._jobs), self._worker
        for job_id in jobs:
            self.cancel(job_id)
        if worker is not None:
            worker.join(2.0)

    def _why(self, form: _Why) -> dict[str, Any]:
        wanted = {"at_ns": round(form.at * NS_PER_S), **form.model_dump(include={"within_s", "part", "kind"})}
        return {**self._stored(self._stream(form.stream), "why"), **wanted}

    def _what_if(self, form: _WhatIf) -> dict[str, Any]:
        editor = self._editor()
        if editor is None:
            raise UsageError("this daemon was started from arguments; there is no file to change")
        stream = editor.drafted(form.stream, form.drawn)
        since_ns = time.time_ns() - round(form.hours * 3600) * NS_PER_S
        return {**self._stored(stream, "what-if"), "since_ns": since_ns, "until_ns": None}

    def _stored(self, stream: StreamSettings, ask: str) -> dict[str, Any]:
        from edge.pipeline.shared_outputs import tracks_path

        config = self._pipeline.config
        if config.track_store is None:
            raise UsageError("no tracks are kept; add a [track_store] table and restart")
        snapshots = config.events.snapshots if config.events is not None else None
        return {
            "ask": ask,
            "stream": stream.model_dump(mode="json", exclude_none=True),
            "store": str(tracks_path(config)),
            "snapshots": None if snapshots is None else str(snapshots),
        }

    def _test(self, form: _Test, job_id: str) -> dict[str, Any]:
        config = self._pipeline.config
        if config.tests is None:
            raise UsageError("there is no place for tests; add a [tests] table with its folder")
        shelf = self._pipeline.outputs.archive().shelves().get(form.stream)
        entry = next((one for one in shelf.entries if one.file == form.file), None) if shelf is not None else None
        if shelf is None or entry is None:
            raise DataError("there is no such recording; it may have made room for newer ones")
        length_s = (entry.end_ns - entry.start_ns) / NS_PER_S
        if form.at is None and length_s > MAX_TEST_S:
            raise UsageError(f"the recording is longer than {MAX_TEST_S:g} s; choose a moment in it")
        middle_s = 0.0 if form.at is None else form.at - entry.start_ns / NS_PER_S
        return {
            "ask": "test",
            "config": config.model_dump(mode="json", exclude_none=True),
            "source": str(shelf.folder / entry.file),
            "stream": form.stream,
            "folder": str(config.tests.folder / f"{STAGED}{job_id}"),
            "name": form.name,
            "span_s": None if form.at is None else (max(0.0, middle_s - form.around_s), middle_s + form.around_s),
        }

    def _stream(self, name: str) -> StreamSettings:
        found = next((one for one in self._pipeline.config.streams if one.name == name), None)
        if found is None:
            raise ConfigError(f"there is no stream {name!r}")
        return found

    def _job(self, job_id: str) -> _Job:
        if job_id not in self._jobs:
            raise DataError("there is no such question any more; ask it again")
        return self._jobs[job_id]

    def _forget(self) -> None:
        """Let go of what nobody asks for any more."""
        ended = [job_id for job_id, job in self._jobs.items() if job.ended_s]
        late_s = time.monotonic() - KEPT_S
        for job_id in ended:
            if self._jobs[job_id].ended_s < late_s or len(self._jobs) >= MAX_KEPT + MAX_WAITING:
                job = self._jobs.pop(job_id)
                if job.staged is not None:
                    shutil.rmtree(job.staged, ignore_errors=True)

    def _run(self, stopping: threading.Event) -> None:
        while True:
            with self._lock:
                job = next((one for one in self._jobs.values() if one.state == "waiting"), None)
                if job is None or self._is_ending:
                    self._worker = None
                    return
                job.state, job.begun_s, job.asked = "running", time.monotonic(), Asked("edge.diagnose.asked")
            self._answer(job)

    def _answer(self, job: _Job) -> None:
        assert job.asked is not None
        if job.staged is None:
            # a question is often about what has just happened
            self._pipeline.outputs.flush_tracks(FLUSH_S)
        else:
            _sweep(job.staged.parent, {one.staged for one in self._jobs.values()})
        answer = job.asked.answer(job.request, TIMEOUTS_S[job.ask])
        with self._lock:
            job.seconds, job.ended_s, job.asked = time.monotonic() - job.begun_s, time.monotonic(), None
            if job.state == "cancelled":
                pass
            elif answer.is_late:
                job.state, job.error = "failed", f"it took longer than {TIMEOUTS_S[job.ask]:g} s and was ended"
            elif answer.value is None:
                job.state, job.error = "failed", f"its process ended with code {answer.code} and no answer"
            else:
                job.error, job.answer = answer.value["error"], answer.value.get("answer")
                job.state = "failed" if job.error else "done"
            if job.state != "done" and job.staged is not None:
                shutil.rmtree(job.staged, ignore_errors=True)


def _sweep(folder: Path, known: set[Path | None]) -> None:
    """Remove tests that a program left unsaved when it was killed."""
    for path in folder.glob(f"{STAGED}*"):
        if path not in known:
            shutil.rmtree(path, ignore_errors=True)


def _checked(form: type[_Form], body: Any) -> _Form:
    try:
        return form.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{'.'.join(map(str, first['loc'])) or 'the question'}: {first['msg']}") from None
