"""The daemon's configuration: one TOML file, every key typed, unknown keys refused with the nearest known one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from edge.addresses.networks import is_loopback
from edge.addresses.uris import is_live, kind_of, scheme_of
from edge.config.analytics import AnalyticsSettings, LoudSettings, SecondStageSettings, TrackSettings
from edge.config.daemon import (
    ClipTestSettings,
    GovernorSettings,
    LogSettings,
    RtspSettings,
    ServerSettings,
    SwapSettings,
    WatchLogSettings,
)
from edge.config.events import EventSettings, MqttSettings, NotifySettings, WebhookSettings
from edge.config.night import NightSettings
from edge.config.parts import part_name, refuse_unknown
from edge.config.picture import (
    HealthSettings,
    Mask,
    MotionGateSettings,
    PtzSettings,
    Region,
    Side,
    TileCount,
    TurnSettings,
)
from edge.config.recording import RecordSettings, TrackStoreSettings
from edge.config.remote import RemoteSettings, check_remote
from edge.config.section import Section
from edge.config.workers import Core, WorkersSettings
from edge.interfaces import EngineName

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="letters, digits, - and _")]

# the usual ones, to be named where somebody misspells one
SOURCES = ("synthetic", "rtsp", "rtmp", "srt", "http", "https", "udp", "csi", "v4l2")


class ModelSettings(Section):
    """A model and how it is run.

    Attributes:
        url: of a model on a server (``engine = "kserve"``): ``grpc://HOST:PORT``, or ``grpcs://`` encrypted; its name
            there behind a slash, if it is not that of ``path``.
        fallback: name of a model here that runs while the server is away.
    """

    name: Name = "model"
    path: Path
    manifest: Path | None = None
    engine: Annotated[str, part_name("edge.engines", get_args(EngineName))] = "auto"
    threads: int | None = Field(default=None, ge=1, le=256)
    cores: tuple[Core, ...] = ()
    max_batch: int | None = Field(default=None, ge=1, le=256)
    device: int = Field(default=0, ge=0, le=63)
    linger_ms: float = Field(default=2.0, ge=0, le=1000)
    url: Annotated[str, Field(pattern=r"^grpcs?://[^\s/@?#]+:\d{1,5}(/[^\s/?#]+)?$")] | None = None
    remote: RemoteSettings | None = None
    fallback: Name | None = None

    @model_validator(mode="after")
    def _remote_is_whole(self) -> ModelSettings:
        check_remote(self.url, self.engine, self.remote, self.fallback)
        return self


class StageSettings(Section):
    """A part of an installed package that sees every result of a stream and may add events and labels.

    Attributes:
        name: of the part.
        limit_ms: how long it may take for a result; a later answer is lost.
        options: all further keys, as they are.
    """

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, part_name("edge.stages", ())]
    limit_ms: float = Field(default=200, gt=0, le=60_000)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class StreamSettings(Section):
    """A camera, a file or a synthetic scene, and what is done with it.

    Attributes:
        source: what is analysed.
        record_source: the large picture of the same camera, whose packets are recorded; None: those of ``source``.
        record_open: ``needed``: ``record_source`` is opened when an event asks for a clip, which then has no pre-roll.
        live_source: a large picture of the same camera for who looks; opened while somebody does; None: that of
            ``source``.
        audio: false: its sound goes nowhere; not set: its sound is kept, unless the stream has masks.
        loud: when its sound is an event; None: nobody measures it.
    """

    name: Name
    source: str = Field(min_length=1)
    record_source: str | None = Field(default=None, min_length=1)
    record_open: Literal["always", "needed"] = "always"
    live_source: str | None = Field(default=None, min_length=1)
    username: str | None = None
    password_file: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    model: Name | None = None
    frames: Literal["auto", "newest", "every"] = "auto"
    isolation: Literal["auto", "process", "thread"] = "auto"
    open_timeout_s: float = Field(default=10, gt=0, le=300)
    stall_timeout_s: float = Field(default=5, gt=0, le=300)
    retry_base_s: float = Field(default=0.5, ge=0.05, le=60)
    retry_cap_s: float = Field(default=30, ge=0.05, le=3600)
    max_age_ms: float = Field(default=1000, gt=0, le=60_000)
    priority: int = Field(default=1, ge=1, le=100)
    decoder: Literal["auto", "opencv", "av"] = "auto"
    transport: Literal["tcp", "udp"] = "tcp"
    hardware: Literal["off", "auto", "cuda", "vaapi", "qsv", "drm", "videotoolbox"] = "off"
    hardware_device: int = Field(default=0, ge=0, le=63)
    audio: bool | None = None
    loud: LoudSettings | None = None
    max_fps: float | None = Field(default=None, gt=0, le=1000)
    size: tuple[Side, Side] | None = None
    roi: Region | None = None
    tiles: tuple[TileCount, TileCount] | None = None
    tile_overlap: float = Field(default=0.2, ge=0, le=0.5)
    rotate: Literal[0, 90, 180, 270] = 0
    masks: tuple[Mask, ...] = ()
    motion_gate: MotionGateSettings = MotionGateSettings()
    health: HealthSettings = HealthSettings()
    score: float | None = Field(default=None, ge=0, le=1)
    track: TrackSettings = TrackSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    second_stage: SecondStageSettings | None = None
    sinks: tuple[str, ...] = ()
    record: RecordSettings | None = None
    stages: tuple[StageSettings, ...] = ()
    ptz: PtzSettings | None = None

    @field_validator("source")
    @classmethod
    def _comes_with_a_package(cls, source: str) -> str:
        if kind_of(source) == "plugin":
            refuse_unknown("edge.sources", scheme_of(source), SOURCES)
        return source

    @property
    def has_sound(self) -> bool:
        """Whether the camera's sound may be kept: where it is not muted, and no part of the picture is masked."""
        return not self.masks if self.audio is None else self.audio

    @property
    def hears_large(self) -> bool:
        """Whether the sound that is heard is that of ``record_source``, which is always open then."""
        return self.record_source is not None and self.record_open == "always"

    @property
    def why_no_packets(self) -> str | None:
        """Why nobody may have the camera's own packets; None where nothing forbids it.

        They show all that the camera sees, and only a demuxer has them.
        """
        for key in ("masks", "roi", "rotate"):
            if getattr(self, key):
                return f"they would show the picture without its {key}"
        if self.record_source is None and (kind_of(self.source) != "network" or self.decoder == "opencv"):
            return "they need a network address that PyAV reads"
        return None

    @property
    def is_lossless(self) -> bool:
        """Whether every frame must come out, the source waiting if need be."""
        return self.frames == "every" or (self.frames == "auto" and not is_live(self.source))


class Config(Section):
    """The whole file."""

    version: Literal[1] = 1
    models: tuple[ModelSettings, ...] = Field(min_length=1)
    streams: tuple[StreamSettings, ...] = Field(min_length=1)
    server: ServerSettings = ServerSettings()
    rtsp: RtspSettings = RtspSettings()
    log: LogSettings = LogSettings()
    swap: SwapSettings = SwapSettings()
    governor: GovernorSettings = GovernorSettings()
    workers: WorkersSettings = WorkersSettings()
    events: EventSettings | None = None
    watch_log: WatchLogSettings | None = None
    tests: ClipTestSettings | None = None
    night: NightSettings | None = None
    mqtt: tuple[MqttSettings, ...] = ()
    webhooks: tuple[WebhookSettings, ...] = ()
    notify: tuple[NotifySettings, ...] = ()
    track_store: TrackStoreSettings | None = None
    state_dir: Path | None = None
    encoder: Literal["auto", "x264", "openh264", "hardware"] = "auto"
    memory_budget_mb: float | None = Field(default=None, gt=0)
    stop_timeout_s: float = Field(default=10, gt=0, le=300)

    @model_validator(mode="before")
    @classmethod
    def _one_model_is_a_list_of_one(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "model" in raw:
            if "models" in raw:
                raise ValueError("state either [model] or [[models]], not both")
            rest = {key: value for key, value in raw.items() if key != "model"}
            return rest | {"models": [raw["model"]]}
        return raw

    @model_validator(mode="before")
    @classmethod
    def _one_broker_is_a_list_of_one(cls, raw: Any) -> Any:
        is_one = isinstance(raw, dict) and isinstance(raw.get("mqtt"), dict)
        return raw | {"mqtt": [raw["mqtt"]]} if is_one else raw

    @model_validator(mode="after")
    def _rtsp_is_closed(self) -> Config:
        has_token = self.server.token_file is not None
        if self.rtsp.enabled and self.server.users_file is not None and not has_token:
            raise ValueError("rtsp knows no users, so a server.token_file is expected: its clients show that token")
        is_open = not has_token and not (self.server.allow_anyone or is_loopback(self.rtsp.host))
        if self.rtsp.enabled and is_open:
            raise ValueError(
                f"rtsp.host = {self.rtsp.host!r} lets others see the cameras, so a server.token_file is expected; "
                "write server.allow_anyone = true if everybody may look"
            )
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Config:
        models = [model.name for model in self.models]
        _refuse_twins("models", models)
        _refuse_twins("streams", [stream.name for stream in self.streams])
        _refuse_twins("event targets", self.target_names)
        if sum(notify.push for notify in self.notify) > 1:
            raise ValueError("two [[notify]] tables have push = true; expected one, for all phones")
        for notify in self.notify:
            _refuse_unknown_streams(notify, {stream.name for stream in self.streams})
        for one in self.models:
            _refuse_unfit_fallback(one, self.models)
        for stream in self.streams:
            if stream.audio and stream.masks:
                raise ValueError(
                    f"stream {stream.name!r}: audio = true would keep what is said where masks forbid to look"
                )
            _refuse_unfit_loud(stream)
            if stream.ptz is not None and stream.masks:
                raise ValueError(f"stream {stream.name!r}: ptz would turn the camera to where its masks hide nothing")
            if stream.ptz is not None and stream.ptz.onvif is None and kind_of(stream.source) != "network":
                raise ValueError(f"stream {stream.name!r}: expected ptz.onvif, the camera's address")
            for rule in () if stream.ptz is None else stream.ptz.on_event:
                _refuse_unfit_turn(stream.name, rule, self.streams)
            _refuse_unfit_source_recording(stream)
            _refuse_unfit_record_source(stream)
            _refuse_unfit_live_source(stream)
            _refuse_unfit_remote(stream, self.model_of(stream))
            second = stream.second_stage.model if stream.second_stage else None
            for model in {stream.model, second, stream.track.appearance_model} - {None, *models}:
                raise ValueError(f"stream {stream.name!r} asks for model {model!r}; known: {', '.join(models)}")
        return self

    @model_validator(mode="after")
    def _night_fits(self) -> Config:
        if self.night is None:
            return self
        names = [model.name for model in self.models]
        if self.night.model not in (None, *names):
            raise ValueError(f"night.model: no model is called {self.night.model!r}; known: {', '.join(names)}")
        if self.night_model.engine == "kserve":
            raise ValueError(f"night.model: {self.night_model.name!r} runs on a server; expected one that runs here")
        return self

    @property
    def night_model(self) -> ModelSettings:
        """The model that the night shift teaches."""
        wanted = None if self.night is None else self.night.model
        return next((model for model in self.models if model.name == wanted), self.models[0])

    @property
    def target_names(self) -> list[str]:
        """Of everything that events are delivered to; each phone that takes messages is one more."""
        broker_names = [broker.name for broker in self.mqtt]
        services = [notify.name for notify in self.notify if not notify.push]
        return broker_names + [hook.name for hook in self.webhooks] + services

    def model_of(self, stream: StreamSettings) -> ModelSettings:
        """The model of a stream: the one that it names, else the first."""
        return next((model for model in self.models if model.name == stream.model), self.models[0])

    def with_model_file(self, name: str, path: Path) -> Config:
        """The same with another file for the model of this name; its manifest is then that of the file."""
        return self._with_file({name}, path)

    def with_model_for_frames(self, path: Path) -> Config:
        """The same with another file for every model that frames go to."""
        return self._with_file({model.name for model in self.models if self.has_frames(model)}, path)

    def _with_file(self, names: set[str], path: Path) -> Config:
        other = {"path": path, "manifest": None}
        models = tuple(model.model_copy(update=other) if model.name in names else model for model in self.models)
        return self.model_copy(update={"models": models})

    def with_stream(self, stream: StreamSettings) -> Config:
        """The same with this stream: in the place of the one of its name, else as the last."""
        is_new = all(one.name != stream.name for one in self.streams)
        streams = tuple(stream if one.name == stream.name else one for one in self.streams)
        return self.model_copy(update={"streams": (*streams, stream) if is_new else streams})

    def without_stream(self, name: str) -> Config:
        """The same without the stream of this name."""
        return self.model_copy(update={"streams": tuple(one for one in self.streams if one.name != name)})

    def has_frames(self, model: ModelSettings) -> bool:
        """Whether a stream's frames go to this model; others look at crops, or are not used."""
        return self.rows_at_once(model) > 0

    def is_used(self, model: ModelSettings) -> bool:
        """Whether the pipeline runs it: for the frames of a stream, or in the place of a server that is away."""
        return self.has_frames(model) or any(
            other.fallback == model.name and self.has_frames(other) for other in self.models
        )

    def rows_at_once(self, model: ModelSettings) -> int:
        """How many pictures may be there for a model at the same time: one per stream, or one per tile."""
        streams = [stream for stream in self.streams if self.model_of(stream).name == model.name]
        return sum(math.prod(stream.tiles or (1, 1)) for stream in streams)


def _refuse_twins(table: str, names: Sequence[str]) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(f"two {table} are called {twins[0]!r}; names must differ")


def _refuse_unknown_streams(notify: NotifySettings, known: AbstractSet[str]) -> None:
    named = {*notify.streams, *(stream for place in notify.neighbours for stream in place)}
    if named - known:
        raise ValueError(
            f"notify {notify.name!r}: no stream is called {min(named - known)!r}; known: {', '.join(sorted(known))}"
        )


def _refuse_unfit_turn(name: str, rule: TurnSettings, streams: Sequence[StreamSettings]) -> None:
    """What turns a camera must be able to happen."""
    start = f"stream {name!r}: ptz.on_event"
    found = next((one for one in streams if one.name == (rule.stream or name)), None)
    if found is None:
        known = ", ".join(one.name for one in streams)
        raise ValueError(f"{start}: no stream is called {rule.stream!r}; known: {known}")
    if rule.event == "loud":
        if found.loud is None:
            raise ValueError(f"{start}: nobody asks how loud {found.name!r} is; expected [streams.loud] there")
        return
    what = "line" if rule.event == "line_crossed" else "zone"
    parts = found.analytics.lines if what == "line" else found.analytics.zones
    names = [part.name for part in parts]
    if rule.name not in (None, *names) or not names:
        known = ", ".join(names) or "none"
        raise ValueError(f"{start}: {found.name!r} has no {what} {rule.name or ''!r} for {rule.event}; known: {known}")


def _refuse_unfit_record_source(stream: StreamSettings) -> None:
    """A second picture of a camera is recorded as it comes; it is no other camera's, and no file."""
    if stream.record_source is None:
        if stream.record_open != "always":
            raise ValueError(f"stream {stream.name!r}: record_open says when record_source is open; set that too")
        return
    start = f"stream {stream.name!r}: record_source"
    if stream.record is None or stream.record.content != "source":
        raise ValueError(f'{start} is recorded as it comes: expected [streams.record] with content = "source"')
    if kind_of(stream.record_source) != "network" or not is_live(stream.source):
        raise ValueError(f"{start} needs a network address, next to a source that is a camera")
    if stream.record_open == "needed" and stream.record.mode == "continuous":
        raise ValueError(f'{start}: mode = "continuous" always needs it; use record_open = "always"')


def _refuse_unfit_live_source(stream: StreamSettings) -> None:
    """Another picture of a camera is no other camera's, and no file."""
    if stream.live_source is None:
        return
    if kind_of(stream.live_source) != "network" or not is_live(stream.source):
        raise ValueError(
            f"stream {stream.name!r}: live_source needs a network address, next to a source that is a camera"
        )
    if stream.decoder == "opencv":
        raise ValueError(f'stream {stream.name!r}: live_source is read by PyAV; expected decoder = "auto" or "av"')


def _refuse_unfit_loud(stream: StreamSettings) -> None:
    """What may not be heard is not measured either."""
    if stream.loud is None:
        return
    start = f"stream {stream.name!r}: loud"
    if not stream.has_sound:
        why = "audio = false mutes it" if stream.audio is False else "masks forbid to listen as they forbid to look"
        raise ValueError(f"{start} listens to the camera, and {why}; remove one of the two")
    is_read_by_av = kind_of(stream.source) in ("network", "file") and stream.decoder != "opencv"
    if not (stream.hears_large or is_read_by_av):
        raise ValueError(f"{start} needs a network address or a video file that PyAV reads, found {stream.source!r}")


def _refuse_unfit_fallback(model: ModelSettings, models: Sequence[ModelSettings]) -> None:
    if model.fallback is None:
        return
    found = next((other for other in models if other.name == model.fallback), None)
    if found is None:
        raise ValueError(
            f"model {model.name!r}: no model is called {model.fallback!r}; known: "
            f"{', '.join(other.name for other in models)}"
        )
    if found.engine == "kserve":
        raise ValueError(f"model {model.name!r}: fallback {model.fallback!r} is on a server too; expected one of here")


def _refuse_unfit_remote(stream: StreamSettings, model: ModelSettings) -> None:
    """What comes too late is worth nothing; and a picture in tiles is many batches, of which each may be late."""
    if model.engine != "kserve":
        return
    timeout_ms = (model.remote or RemoteSettings()).timeout_ms
    if not stream.is_lossless and timeout_ms > stream.max_age_ms:
        raise ValueError(
            f"stream {stream.name!r}: max_age_ms = {stream.max_age_ms:g} is less than remote.timeout_ms = "
            f"{timeout_ms:g} of model {model.name!r}; expected it not to be"
        )
    if stream.tiles is not None:
        raise ValueError(f"stream {stream.name!r}: tiles need a model of here; {model.name!r} is on a server")


def _refuse_unfit_source_recording(stream: StreamSettings) -> None:
    """A camera's own packets show all that the camera sees, and only a demuxer has them."""
    if stream.record is None or stream.record.content != "source":
        return
    start = f'stream {stream.name!r}: record.content = "source"'
    for key in ("masks", "roi", "rotate"):
        if getattr(stream, key):
            raise ValueError(f'{start} would show the picture without its {key}; use "plain" or "annotated"')
    is_read_by_av = kind_of(stream.source) in ("network", "file") and stream.decoder != "opencv"
    if stream.record_source is None and not is_read_by_av:
        raise ValueError(f'{start} needs a network address or a video file that PyAV reads; use "plain"')
