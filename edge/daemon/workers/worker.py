"""A worker: some of the streams with engines of their own, in a process that the daemon begins, watches and replaces.

Run by ``edge.daemon.workers.process`` as ``python -m edge.daemon.workers.worker CHANNEL PAGE SETUP``, the numbers of
three open files. It does what it is told over the channel, and ends when the daemon does.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import cv2

from edge.addresses.secrets import register_uri
from edge.addresses.uris import kind_of, may_hang
from edge.config.daemon import SwapSettings
from edge.config.schema import Config, StreamSettings
from edge.daemon import logs
from edge.daemon.credentials import with_secrets
from edge.daemon.helpers import Helpers
from edge.daemon.watchdog import Watchdog
from edge.daemon.workers.events import EventsElsewhere
from edge.daemon.workers.link import Link, LinkClosedError, Message
from edge.daemon.workers.pages import PageMemory, PlaceTaker, WorkerBoard
from edge.diagnose.process_facts import process_facts
from edge.errors import EdgeError
from edge.pipeline.pipeline import Part, Pipeline
from edge.threads.worker import Worker, described
from edge.trackers import association
from edge.types import Result

log = logging.getLogger(__name__)
BEAT_S = 0.2
# all statistics of all streams: while somebody looks, and otherwise
STATS_S, IDLE_STATS_S = 0.5, 2.0
LOOKED_FOR_S = 5.0
# a worker whose daemon is gone
ORPHAN_S = 5.0
# decoders that a spare has ready: some 40 MB each
MAX_AHEAD = 8


class WorkerProcess:
    """The process while it lives. ``run`` returns its exit code."""

    def __init__(self, channel: socket, memory: PageMemory, setup: Message) -> None:
        self._setup = setup
        self._link = Link(channel, self._handle)
        self._places = PlaceTaker(memory)
        self._board = WorkerBoard(self._link, self._places)
        self._links = Worker("daemon", self._link.run)
        self._going, self._stopping = threading.Event(), threading.Event()
        self._stop_s = ORPHAN_S
        self._looked_at_s = self._stats_at_s = 0.0
        self._orders: dict[str, Callable[[Message], Mapping[str, Any]]] = {
            "add": self._add,
            "watch": self._watch_other,
            "remove": self._remove,
            "swap": self._swap,
            "heat": self._heat,
        }

    def run(self) -> int:
        """Load, wait for the word, and work until told to stop, until all streams have ended, or the daemon is gone."""
        self._links.start()
        try:
            self._pipeline = self._loaded()
            self._tell_models()
            self._link.send("ready")
            self._work()
        except EdgeError as error:
            self._tell_failure(error)
            return 1
        return 0

    def _loaded(self) -> Pipeline:
        config = with_secrets(Config.model_validate(self._setup["config"]))
        for name, index in self._setup["indices"].items():
            self._board.set_index(name, index)
        streams = tuple(stream for stream in config.streams if stream.name in self._setup["streams"])
        board = self._board if config.server.enabled or config.rtsp.enabled else None
        part = Part(streams, EventsElsewhere(self._link, self._places), self._setup["off"])
        turning = frozenset(rule.event for stream in config.streams if stream.ptz for rule in stream.ptz.on_event)
        on_result = partial(self._tell_happened, turning) if turning else None
        pipeline = Pipeline(config, board, on_result=on_result, part=part)
        self._helpers = Helpers(config, pipeline)
        self._watchdog = Watchdog(pipeline.progress)
        _import_ahead(config)
        if not streams:
            _begin_decoders_ahead(config)
        return pipeline

    def _tell_happened(self, kinds: frozenset[str], result: Result) -> None:
        """Tell the daemon of what may turn a camera; a daemon that takes nothing turns none."""
        for event in result.events:
            if event.kind in kinds:
                data = {key: event.data[key] for key in ("line", "zone", "class") if key in event.data}
                facts = {"event": event.kind, "stream": event.stream, "data": data}
                _ignore_closed(lambda facts=facts: self._link.send("happened", may_drop=True, **facts))  # type: ignore[misc]

    def _work(self) -> None:
        while not self._going.wait(BEAT_S):
            if self._has_to_stop:
                return
            self._link.send("status", may_drop=True, is_waiting=True)
        if not self._has_to_stop:
            self._watch()
        self._end()

    def _watch(self) -> None:
        """Tell how it goes until it is over."""
        fed_s = time.monotonic()
        while not self._stopping.wait(BEAT_S):
            if self._watchdog.may_feed():
                fed_s = time.monotonic()
            failure = next(iter(self._pipeline.failures()), None)
            self._link.send("status", may_drop=True, **self._status(failure, time.monotonic() - fed_s))
            self._send_stats()
            if not self._links.is_alive or (failure is None and not self._pipeline.is_running):
                return

    @property
    def _has_to_stop(self) -> bool:
        return self._stopping.is_set() or not self._links.is_alive

    def _status(self, failure: BaseException | None, unfed_s: float) -> Message:
        streams = self._pipeline.streams
        infos = {name: stream.status.info for name, stream in streams.items()}
        return {
            "emitted": {name: stream.metrics.counters["emitted"] for name, stream in streams.items()},
            "lengths": {name: None if info is None else info.num_frames for name, info in infos.items()},
            "not_ready": self._pipeline.not_ready(),
            "stuck": self._watchdog.stuck(),
            "unfed_s": round(unfed_s, 1),
            "failure": None if failure is None else described(failure),
        }

    def _send_stats(self) -> None:
        now_s = time.monotonic()
        if now_s < self._stats_at_s:
            return
        is_wanted = now_s - self._looked_at_s < LOOKED_FOR_S
        self._stats_at_s = now_s + (STATS_S if is_wanted else IDLE_STATS_S)
        shared = self._pipeline.outputs.stats()
        for name, stream in list(self._pipeline.streams.items()):
            recording = shared["recordings"].get(name) if isinstance(shared["recordings"], dict) else None
            facts = {"stats": stream.stats(), "summary": stream.summary(), "recording": recording}
            self._link.send("stream", may_drop=True, name=name, **facts)
        events = shared["events"]
        governor = None if self._helpers.governor is None else self._helpers.governor.facts()
        desk = events.get("desk", {}) if isinstance(events, dict) else {}
        kept = shared.get("track_store")
        self._link.send("facts", may_drop=True, process=process_facts(), governor=governor, desk=desk, track_store=kept)

    def _end(self) -> None:
        """Drain and close everything, and say what came of it."""
        if not self._links.is_alive:
            # nothing that hangs keeps a process that nobody knows any more
            threading.Timer(2 * ORPHAN_S, lambda: os._exit(1)).start()
        self._helpers.stop()
        config = self._pipeline.config
        self._pipeline.config = config.model_copy(update={"stop_timeout_s": self._stop_s})
        is_clean = self._pipeline.stop()
        self._helpers.finish()
        for name, stream in self._pipeline.streams.items():
            self._link.send("stream", name=name, stats=stream.stats(), summary=stream.summary(), recording=None)
        self._link.send("ended", is_clean=is_clean, failures=[_error(one) for one in self._pipeline.failures()])

    def _handle(self, message: Message) -> None:
        """One message of the daemon, in the thread of the link; what takes time gets a thread of its own."""
        match message["kind"]:
            case "go":
                Worker("go", lambda _: self._answered(message, self._go)).start()
            case "look":
                self._looked_at_s = time.monotonic()
            case "off":
                self._pipeline.switches.put(message["name"], message["off"])
            case "away":
                self._pipeline.tell_away(message["name"], is_away=message["is_away"])
            case "stop":
                self._stop_s = message["seconds"]
                self._stopping.set()
                self._going.set()
            case kind:
                order = self._orders[kind]
                Worker(kind, lambda _: self._answered(message, order)).start()

    def _answered(self, message: Message, act: Callable[[Message], Mapping[str, Any]]) -> None:
        try:
            facts = act(message)
        except EdgeError as error:
            self._link.answer_error(message, error)
        except OSError as error:
            self._link.answer_error(message, EdgeError(error.strerror or str(error)))
        else:
            self._link.answer(message, **facts)

    def _go(self, _: Message) -> Mapping[str, Any]:
        self._helpers.start()
        self._pipeline.start()
        self._going.set()
        return {}

    def _add(self, message: Message) -> Mapping[str, Any]:
        stream = StreamSettings.model_validate(message["stream"])
        for address in filter(None, (stream.source, stream.record_source, stream.live_source)):
            register_uri(address)
        self._board.set_index(stream.name, message["index"])
        self._pipeline.switches.put(stream.name, message["off"])
        self._pipeline.add_stream(stream)
        return {}

    def _watch_other(self, message: Message) -> Mapping[str, Any]:
        self._pipeline.change_analytics(StreamSettings.model_validate(message["stream"]))
        return {}

    def _remove(self, message: Message) -> Mapping[str, Any]:
        return {"has_ended": self._pipeline.remove_stream(message["name"])}

    def _swap(self, message: Message) -> Mapping[str, Any]:
        settings = SwapSettings.model_validate(message["settings"])
        self._pipeline.config = self._pipeline.config.model_copy(update={"swap": settings})
        report = self._pipeline.swap_model(
            message["name"],
            Path(message["path"]),
            renamed=message["renamed"],
            has_trial=message["has_trial"],
            on_phase=lambda phase: _ignore_closed(lambda: self._link.send("phase", phase=phase)),
        )
        self._tell_models()
        return {"report": report.as_dict()}

    def _heat(self, message: Message) -> Mapping[str, Any]:
        drawn = self._pipeline.heat(message["name"])
        number = None if drawn is None else self._places.put(drawn.tobytes())
        return {"place": number, "shape": None if drawn is None else drawn.shape}

    def _tell_models(self) -> None:
        for name, model in self._pipeline.models.items():
            manifest = model.manifest.model_dump(mode="json")
            self._link.send("model", name=name, manifest=manifest, engine=model.engine.name)
        for name, found in self._pipeline.crop_manifests.items():
            self._link.send("crop model", name=name, manifest=found.model_dump(mode="json"))

    def _tell_failure(self, error: EdgeError) -> None:
        facts = _error(error)
        _ignore_closed(lambda: self._link.send("failed", error=facts["error"], error_kind=facts["error_kind"]))


def _import_ahead(config: Config) -> None:
    """Load what streams need when they begin: who takes over has no time for it."""
    association.solver()
    names = ["edge.sources.choose", "edge.sources.isolation.source", "edge.sinks.live", "edge.sinks.events"]
    names += ["edge.sources.synthetic"] * any(kind_of(stream.source) == "synthetic" for stream in config.streams)
    names += ["edge.sinks.record"] * any(stream.record is not None for stream in config.streams)
    names += ["edge.sinks.jsonl"] * any(spec.startswith("jsonl:") for stream in config.streams for spec in stream.sinks)
    for name in names:
        importlib.import_module(name)


def _begin_decoders_ahead(config: Config) -> None:
    """Of a spare: have the processes ready that its cameras will be opened in."""
    from edge.sources.isolation.process import begin_ahead

    cameras = sum(may_hang(stream.source) for stream in config.streams)
    try:
        begin_ahead(min(cameras, MAX_AHEAD))
    except OSError as error:
        log.warning("the spare worker has no decoders ready (%s)", error.strerror)


def _ignore_closed(act: Callable[[], object]) -> None:
    try:
        act()
    except LinkClosedError as error:
        log.debug("%s", error)


def _error(failure: BaseException) -> dict[str, str]:
    kind = type(failure).__name__ if isinstance(failure, EdgeError) else "EdgeError"
    text = str(failure) if isinstance(failure, EdgeError) else f"a part failed: {failure!r}; see the log"
    return {"error": text, "error_kind": kind}


def _files() -> Iterator[int]:
    for number in map(int, sys.argv[1:4]):
        # its decoders need none of them
        os.set_inheritable(number, False)
        yield number


def main() -> None:
    """Work for the daemon that has begun this process."""
    faulthandler.enable()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # sent to the daemon and all its processes, and the daemon says what is to be done; decoders inherit no handler
        signal.signal(number, lambda *_: None)
    os.environ.pop("NOTIFY_SOCKET", None)
    channel, page, setup_file = _files()
    with os.fdopen(setup_file, "rb") as file:
        setup = json.load(file)
    logs.set_up(setup["log_level"], setup["log_form"])
    # as in a single process: see edge.daemon.service
    cv2.setNumThreads(1)
    if setup["cores"]:
        os.sched_setaffinity(0, setup["cores"])
    code = WorkerProcess(socket(fileno=channel), PageMemory(page), setup).run()
    logging.shutdown()
    sys.stdout.flush()
    # threads that hang in a library are left behind
    os._exit(code)


if __name__ == "__main__":
    main()
