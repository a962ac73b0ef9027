"""What all streams share on their way out: events and their outbox, their targets, and the recordings."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge.config.events import EventSettings
from edge.errors import ConfigError, SinkError
from edge.events.delivery import DeliveryWorker, Target
from edge.events.index import EventIndex
from edge.events.joined_delivery import JoinedDelivery
from edge.events.outbox import Outbox
from edge.events.outbox_file import MAX_NUMBER
from edge.events.schema import EnvelopeMaker, ModelFacts
from edge.events.snapshots import Snapshots
from edge.events.stored import OutboxLimits, StoredEvent
from edge.events.writer import EventWriter, KeepsEvents, KeepsPictures
from edge.result_json import ResultEncoder
from edge.sinks.events import EventSink
from edge.threads.backoff import Backoff
from edge.threads.worker import Worker

if TYPE_CHECKING:
    from edge.config.events import NotifySettings
    from edge.config.schema import Config
    from edge.events.snooze import Snoozes
    from edge.interfaces import Sink, Switch
    from edge.night.keeper import Keeper
    from edge.pipeline.messages import Messaging, Phones
    from edge.pipeline.stream import Stream
    from edge.server.recordings import Archive, Shelf
    from edge.sinks.home_assistant import Standing
    from edge.sinks.record import RecordSink
    from edge.trackstore.store import FrameLog, TrackStore
    from edge.types import Event, Frame, Result

log = logging.getLogger(__name__)
MB = 1 << 20
DRAIN_S = 2.0
LATE_S = 1.0


class Elsewhere(KeepsEvents, KeepsPictures, Protocol):
    """Keeps events and their pictures in another process."""


class SharedOutputs:
    """Built from a configuration; starts nothing before ``start``.

    Attributes:
        writer: takes events; None where nobody wants them.
        outbox: keeps them; None where nobody wants them, or another process keeps them.
        index: finds them again; None where this process keeps none.
        snapshots: keeps their pictures; used by the writer alone.
        recordings: the record sink of each recorded stream.
        tracks: keeps what the streams see; None where nobody wants that.
        night: keeps frames that are worth a label; None where nothing learns.
    """

    def __init__(
        self,
        config: Config,
        streams: Callable[[], Sequence[str]],
        elsewhere: Elsewhere | None = None,
        standings: Callable[[], Mapping[str, Standing]] = dict,
        switch: Switch | None = None,
    ) -> None:
        """Open the outbox.

        Args:
            config: what to run.
            streams: gives the names of the streams that run now.
            elsewhere: another process has the outbox and delivers; events and pictures are handed to it.
            standings: gives how the streams stand now, for targets that tell of it.
            switch: carries out what may come from a broker.

        Raises:
            ConfigError: there is no place for the outbox.
            SinkError: the outbox cannot be written.
            MissingError: a library that a target needs is not installed.
        """
        self.writer: EventWriter | None = None
        self.outbox: Outbox | None = None
        self.index: EventIndex | None = None
        self.snapshots: Snapshots | None = None
        self.messaging: Messaging | None = None
        self._settings = config.events
        self.recordings: dict[str, RecordSink] = {}
        self._deliveries: dict[str, DeliveryWorker | JoinedDelivery] = {}
        self._writers: list[Worker] = []
        self._workers: list[Worker] = []
        self._keeping: Worker | None = None
        self.tracks = _track_store(config)
        self.night = _keeper(config)
        self._night_model = config.night_model.name
        self._night_keeping: Worker | None = None
        self._run = str(uuid.uuid4())
        if not (config.events or config.mqtt or config.webhooks or config.notify):
            return
        settings = config.events or EventSettings()
        if elsewhere is not None:
            pictured = elsewhere if settings.snapshots is not None else None
            self.writer = EventWriter(elsewhere, pictured, EnvelopeMaker(run=self._run))
            return
        deliveries = _deliveries(config, streams, standings, switch)
        limits = OutboxLimits(round(settings.max_mb * MB), settings.max_age_days)
        path = outbox_path(config)
        index_path = path.with_name(f"{path.stem}.review.db")
        self.index = EventIndex(index_path, settings.review_events, settings.review_days, self._kept)
        deliveries = [*deliveries, (self.index, Backoff())]
        self.messaging = _messaging(config, path)
        phones = self.messaging.phones if self.messaging is not None else None
        names = [*config.target_names, *(phones.target_names if phones is not None else ())]
        self.outbox = Outbox(path, [*names, self.index.name], limits)
        pictures = settings.snapshots
        self.snapshots = None if pictures is None else Snapshots(pictures, round(settings.max_snapshots_mb * MB))
        self.writer = EventWriter(self.outbox, self.snapshots, EnvelopeMaker(run=self._run))
        for target, backoff in deliveries:
            self._deliveries[target.name] = DeliveryWorker(self.outbox, target, backoff, DRAIN_S)
        for notify in config.notify:
            if not notify.push and self.messaging is not None:
                self._deliveries[notify.name] = _to_service(notify, self.outbox, self.messaging.snoozes)

    def start(self) -> None:
        """Begin to write and deliver events, and to keep tracks."""
        if self.tracks is not None:
            self._keeping = Worker("track store", self.tracks.run)
            self._keeping.start()
        if self.night is not None:
            self._night_keeping = Worker("night frames", self.night.run)
            self._night_keeping.start()
        if self.writer is not None:
            self._writers = [Worker("events", self.writer.run)]
            self._workers = [Worker(f"deliver {name}", one.run) for name, one in self._deliveries.items()]
            for worker in (*self._writers, *self._workers):
                worker.start()
        if self._phones is not None and self.outbox is not None:
            self._phones.start(self.outbox)

    @property
    def _phones(self) -> Phones | None:
        return None if self.messaging is None else self.messaging.phones

    def report_event(self, event: Event) -> None:
        """Report an event that belongs to no frame: the camera is gone."""
        if self.writer is not None:
            self.writer.report_event(event)

    def log_of(self, stream: Stream) -> FrameLog | None:
        """Where a stream's tracks are kept; None where nobody wants that."""
        if self.tracks is None:
            return None
        from edge.pipeline.stream_log import facts_of

        return self.tracks.log_of(stream.name, facts_of(stream, self._run, lambda: self._faults(stream.name)))

    def _kept(self) -> list[StoredEvent]:
        """What the outbox has, oldest first."""
        return [] if self.outbox is None else self.outbox.recent(MAX_NUMBER)[::-1]

    def _faults(self, stream: str) -> dict[str, str]:
        """What keeps the events and recordings of a stream from being written or delivered, and why."""
        found = {f"target {name}": str(one.stats().get("error") or "") for name, one in self._deliveries.items()}
        found["events"] = self.outbox.error if self.outbox is not None else ""
        recording = self.recordings.get(stream)
        found["recording"] = str(recording.stats().get("error") or "") if recording is not None else ""
        return found

    def note_disagreement(self, frame: Frame) -> None:
        """A model on trial sees hardly what the one sees that runs: the frame may be worth a label."""
        if self.night is not None:
            self.night.note_disagreement(frame)

    def report_lost(self, stream: Stream, result: Result) -> None:
        """A result was dropped before it came out; its events are reported without picture and clip."""
        if self.writer is not None:
            self.writer.report(result, None, _facts(stream))

    def sinks(self, stream: Stream) -> list[Sink]:
        """The recording and the events of a stream.

        Raises:
            SinkError: a folder cannot be written.
            MissingError: there is no video encoder.
        """
        found: list[Sink] = []
        recording = _recording(stream)
        if recording is not None:
            self.recordings = {**self.recordings, stream.name: recording}
            found.append(recording)
        if self.writer is not None:
            clip_of = recording.clip_of if recording is not None else lambda _: None
            found.append(EventSink(self.writer, stream.name, lambda: _facts(stream), clip_of))
        if self.night is not None and stream.model == self._night_model:
            night = self.night.sink_of(stream.config)
            found += [] if night is None else [night]
        return found

    def archive(self, recordings: Callable[[], Mapping[str, Shelf]] | None = None) -> Archive:
        """What the live page may show of the past; ``recordings`` gives those that other processes make."""
        from edge.server.recordings import Archive, Shelf

        outbox, events = self.outbox, self._settings

        def history(limit: int, stream: str | None) -> list[str]:
            return [] if outbox is None else [event.body for event in outbox.recent(limit, stream)]

        def shelves() -> dict[str, Shelf]:
            return {name: Shelf(sink.folder, sink.entries()) for name, sink in self.recordings.items()}

        folder = None if events is None else events.snapshots
        return Archive(recordings or shelves, history, folder, self.index, self.messaging)

    def flush_tracks(self, timeout_s: float) -> None:
        """Have tracks that wait written, for a question about what has just happened."""
        if self.tracks is not None:
            self.tracks.flush(timeout_s)

    def stop(self, deadline_s: float) -> bool:
        """Write and deliver what waits, after the last output has ended; False if a part did not end in time.

        Args:
            deadline_s: by ``time.monotonic()``; every part has at least a second.
        """
        has_kept = True
        if self.tracks is not None and self._keeping is not None:
            self.tracks.close()
            has_kept = _ended(self._keeping, deadline_s)
        if self.night is not None and self._night_keeping is not None:
            self.night.close()
            has_kept &= _ended(self._night_keeping, deadline_s)
        if self.writer is None:
            return has_kept
        self.writer.close()
        ended = [_ended(worker, deadline_s) for worker in self._writers]
        for worker in self._workers:
            worker.stop()
        if self._phones is not None:
            self._phones.stop()
            ended.append(self._phones.join(deadline_s))
        ended += [_ended(worker, deadline_s) for worker in self._workers]
        is_clean = all(ended)
        if is_clean and self.outbox is not None:
            self.outbox.close()
        return is_clean and has_kept

    def stats(self) -> dict[str, object]:
        """What is known now, as JSON values."""
        events: dict[str, object] = {} if self.writer is None else {"desk": self.writer.stats()}
        if self.outbox is not None:
            events["outbox"] = {"error": self.outbox.error, **self.outbox.counts()}
            events["targets"] = {name: delivery.stats() for name, delivery in self._deliveries.items()}
        if self._phones is not None:
            events["phones"] = self._phones.stats()
        kept: dict[str, object] = {} if self.tracks is None else {"track_store": self.tracks.stats()}
        kept |= {} if self.night is None else {"night_frames": self.night.stats()}
        recordings = {name: sink.stats() for name, sink in self.recordings.items()}
        return {"events": events, "recordings": recordings, **kept}


def close_sink(sink: Sink) -> None:
    """Close a sink that is not needed after all; that it cannot be closed is only said."""
    try:
        sink.close()
    except SinkError as error:
        log.warning("%s", error)


def _recording(stream: Stream) -> RecordSink | None:
    settings, config = stream.config.record, stream.config
    if settings is None:
        return None
    from edge.sinks.record import RecordSink

    def is_on() -> bool:
        return stream.is_recorded

    if stream.packets is not None:
        # no result of a live stream comes out later than that; every result of a file comes out
        late_s = float("inf") if config.is_lossless else config.max_age_ms / 1e3 + LATE_S
        found = ResultEncoder(stream.manifest.classes, score=stream.score, has_masks=False).found
        need = None if stream.record_source is None else stream.record_source.need
        clock = None if stream.record_source is None else stream.event_clock
        taken_ns = None if clock is None else clock.taken_ns
        return RecordSink(
            settings,
            stream.name,
            packets=stream.packets,
            late_s=late_s,
            found=found,
            need=need,
            taken_ns=taken_ns,
            is_on=is_on,
        )
    fps = stream.status.info.fps if stream.status.info else 0.0
    return RecordSink(settings, stream.name, fps=fps, is_lossless=config.is_lossless, is_on=is_on)


def _ended(worker: Worker, deadline_s: float) -> bool:
    if worker.join(max(1.0, deadline_s - time.monotonic())):
        return True
    worker.stop()
    return worker.join(1.0)


def _facts(stream: Stream) -> ModelFacts:
    return ModelFacts(stream.manifest.name, stream.manifest.sha256 or "")


def tracks_path(config: Config) -> Path:
    """The folder of the track store.

    Raises:
        ConfigError: there is no place for it.
    """
    chosen = None if config.track_store is None else config.track_store.folder
    return _place(config, chosen, "tracks", "track_store.folder: there is no place for the tracks")


def night_folder(config: Config) -> Path:
    """Where the night shift keeps everything.

    Raises:
        ConfigError: there is no place for it.
    """
    chosen = None if config.night is None else config.night.folder
    return _place(config, chosen, "night", "night.folder: there is no place for frames")


def _keeper(config: Config) -> Keeper | None:
    if config.night is None or not config.night.enabled:
        return None
    from edge.night.keeper import Keeper

    return Keeper(config.night, night_folder(config))


def _track_store(config: Config) -> TrackStore | None:
    if config.track_store is None:
        return None
    from edge.trackstore.store import TrackStore

    return TrackStore(config.track_store, tracks_path(config))


def outbox_path(config: Config) -> Path:
    """Where events are kept.

    Raises:
        ConfigError: there is no place for them.
    """
    chosen = None if config.events is None else config.events.outbox
    return _place(config, chosen, "events.db", "events.outbox: there is no place for events")


def _place(config: Config, chosen: Path | None, name: str, problem: str) -> Path:
    """The chosen path, else this name in ``state_dir``. Raises: ConfigError: there is none, the problem."""
    if chosen is not None:
        return chosen
    if config.state_dir is None:
        raise ConfigError(f"{problem}; set it, or state_dir")
    return config.state_dir / name


def _messaging(config: Config, place: Path) -> Messaging | None:
    """What is asked of messages to people; None where nobody is told anything."""
    if not config.notify:
        return None
    from edge.events.snooze import Snoozes
    from edge.pipeline.messages import Messaging, Phones
    from edge.pipeline.phone_owners import PhoneOwners

    snoozes = Snoozes(place.with_name(f"{place.stem}.snoozes.json"))
    push = next((notify for notify in config.notify if notify.push), None)
    server = config.server
    has_others = server.users_file is None or server.token_file is not None
    owners = PhoneOwners(server.users_file, has_others=has_others)
    return Messaging(None if push is None else Phones(push, place, snoozes, owners), snoozes)


def _to_service(settings: NotifySettings, outbox: Outbox, snoozes: Snoozes) -> JoinedDelivery:
    """Messages through Apprise.

    Raises:
        ConfigError: a time zone of its quiet hours is not known.
        MissingError: Apprise is not installed.
    """
    from edge.pipeline.messages import joined_delivery
    from edge.sinks.notify import NotifyTarget

    target = NotifyTarget(settings, lambda message: snoozes.offer(settings.name, message.happened))
    return joined_delivery(settings, outbox, target, snoozes)


def _deliveries(
    config: Config,
    streams: Callable[[], Sequence[str]],
    standings: Callable[[], Mapping[str, Standing]],
    switch: Switch | None,
) -> Sequence[tuple[Target, Backoff]]:
    found: list[tuple[Target, Backoff]] = []
    node = "".join(char if char.isalnum() else "-" for char in socket.gethostname()) or "edge"
    kept = outbox_path(config)
    for broker in config.mqtt:
        from edge.sinks.mqtt import MqttTarget

        backoff = Backoff(base_s=broker.backoff_base_s, cap_s=broker.backoff_cap_s)
        memory = kept.with_name(f"{kept.stem}.{broker.name}.json")
        found.append((MqttTarget(broker, streams, node, standings, memory, switch), backoff))
    for hook in config.webhooks:
        from edge.sinks.webhook import WebhookTarget

        found.append((WebhookTarget(hook), Backoff(base_s=hook.backoff_base_s, cap_s=hook.backoff_cap_s)))
    return found
