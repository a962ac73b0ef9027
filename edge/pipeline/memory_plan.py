"""How much memory a configuration can need at most, computed before it runs: frames under way times their size.

The bounds that it counts on are kept elsewhere: slots per ring and rings per stream (``edge.sources.isolation.ring``),
frames that wait (``edge.pipeline.latest_frames``), results that wait (``edge.pipeline.stream``), and the size of a
picture (``edge.sources.picture``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.addresses.uris import kind_of, may_hang
from edge.config.recording import RecordSettings
from edge.config.workers import NUM_PLACES
from edge.errors import ConfigError
from edge.events.writer import MAX_PICTURES
from edge.recording.boxes import MAX_BYTES as NOTES_BYTES
from edge.recording.shots import SHOT_CAPACITY
from edge.second_stage.classifier import MAX_WAITING
from edge.sinks.choose import PUSHED, passes_sound
from edge.sinks.restream import CAPACITY as RESTREAM_CAPACITY
from edge.sources.isolation.packet_wire import RING_BYTES
from edge.sources.isolation.ring import MAX_RINGS, NUM_SLOTS
from edge.sources.synthetic import parse_synthetic
from edge.video.packets import QUEUE_BYTES

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.models.manifest import InputSpec, Manifest

# a picture of unknown size is planned as this; with a budget, a larger one is made smaller
LARGEST_PX = (1920, 1080)
# Python, NumPy and OpenCV or PyAV in a capture child: measured 55 to 75 MB
CHILD_MB = 80.0
# Python, NumPy, OpenCV, pydantic and an engine's library in the main process: measured 120 to 170 MB
PROCESS_MB = 190.0
# Python and TLS in the process before the live server, and 256 connections that have not shown a token: measured 22 MB
GATE_MB = 30.0
# Python and PyAV, 64 clients that are late with 512 KB each, and 16 MB that wait for it: measured 45 MB without clients
RTSP_MB = 110.0
# a decoder's reference pictures (H.264, level 4: at most 16, and one in work) at 1.5 bytes, and three as BGR
DECODER_BYTES_PER_PX = 17 * 1.5 + 3 * 3
# in thread mode: being read, waiting (at most 2), in inference and waiting as results (4), in output, and one to spare
THREAD_FRAMES = 9
# pictures of live_source that wait for their results (edge.pipeline.live_source)
LIVE_WAITING = 8
# the picture that is drawn on, its JPEG, and the scene or sinks that hold one more
OUTPUT_FRAMES = 3
# x264 without look-ahead: measured 24 to 36 bytes a pixel from 1920x1080 to 640x360, on pictures of noise
ENCODER_BYTES_PER_PX, ENCODER_MB = 30.0, 5.0
# a coded picture of noise; streets need a tenth of it
CODED_BYTES_PER_PX, CODED_FPS = 0.4, 30.0
# Python and PyAV in the process that sends to a receiver: measured 27 MB, 61 MB with all that others may share
SENDER_MB = 65.0
RECORD_SINK = RecordSettings(folder=Path())
# weights and arena of an engine, relative to the model file
ENGINE_TIMES_FILE = 4.0
ENGINE_MB = 60.0
# 32 maps of float32 with a cell for 4 x 4 pixels of the model's input
MAP_BYTES_PER_PX = 32 * 4 / 16
DTYPE_BYTES = {"uint8": 1, "float16": 2, "float32": 4}
STEP_MB = 1e6


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One part of the plan: whose, what for, how many megabytes (10^6 bytes)."""

    owner: str
    what: str
    mb: float


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The worst case of a configuration."""

    rows: tuple[MemoryRow, ...]

    @property
    def total_mb(self) -> float:
        return sum(row.mb for row in self.rows)

    def by_owner(self) -> dict[str, float]:
        """Megabytes of each stream, each model, and the process."""
        owned: dict[str, float] = {}
        for row in self.rows:
            owned[row.owner] = owned.get(row.owner, 0.0) + row.mb
        return owned

    def refuse_over(self, budget_mb: float | None) -> None:
        """Check it against a budget, None for none.

        Raises:
            ConfigError: it needs more; the message names the largest part.
        """
        if budget_mb is None or self.total_mb <= budget_mb:
            return
        largest = max(self.rows, key=lambda row: row.mb)
        raise ConfigError(
            f"memory_budget_mb = {budget_mb:g}: this configuration can need {self.total_mb:.0f} MB; the largest part "
            f"is {largest.mb:.0f} MB for {largest.owner}, {largest.what}; give streams a smaller size, or fewer of them"
        )


def plan_memory(config: Config, manifests: Mapping[str, Manifest], num_workers: int = 0) -> MemoryPlan:
    """The worst case of a configuration.

    Args:
        config: what is to run.
        manifests: of the models that are used, by name.
        num_workers: processes that have all models loaded, behind the daemon's own; 0: only that one.
    """
    rows = _process_rows(config, num_workers)
    for model in config.models:
        if model.name in manifests:
            loaded = _model_rows(model.name, model.path, manifests[model.name].input, model.max_batch or 16)
            rows += [replace(row, mb=max(1, num_workers) * row.mb) for row in loaded]
    for name in sorted(
        {stream.second_stage.model for stream in config.streams if stream.second_stage} & set(manifests)
    ):
        side = max(manifests[name].input.width, manifests[name].input.height)
        rows.append(MemoryRow(name, f"{MAX_WAITING} crops that wait", MAX_WAITING * side * side * 3 / STEP_MB))
    for stream in config.streams:
        is_shown = config.server.enabled or config.rtsp.enabled
        rows += [*_stream_rows(stream), *_sound_rows(stream, is_heard=is_shown or any(map(passes_sound, stream.sinks)))]
        rows += _live_rows(stream) if is_shown else []
        rows += _outlet_rows(stream, is_shown=is_shown)
        manifest = manifests.get(config.model_of(stream).name)
        if manifest is not None and manifest.has_masks:
            rows.append(_mask_row(stream, manifest.input))
    if config.events is not None and config.events.snapshots is not None:
        largest_mb = max((_frame_mb(stream) for stream in config.streams), default=0.0)
        rows.append(MemoryRow("events", f"{MAX_PICTURES} pictures of events", MAX_PICTURES * largest_mb))
    return MemoryPlan(tuple(rows))


def _process_rows(config: Config, num_workers: int) -> list[MemoryRow]:
    """What the processes take that are there whatever streams run."""
    rows = [MemoryRow("process", "Python and libraries", PROCESS_MB)]
    if num_workers:
        rows.append(MemoryRow("workers", f"{num_workers} more processes", num_workers * PROCESS_MB))
        if config.server.enabled or config.rtsp.enabled:
            shown_mb = NUM_PLACES * max(map(_shown_mb, config.streams), default=0.0)
            rows.append(MemoryRow("workers", "pictures for the page in shared memory", num_workers * shown_mb))
    server = config.server
    if server.enabled and (server.token_file is not None or server.users_file is not None):
        rows.append(MemoryRow("server", "the process that looks for tokens", GATE_MB))
    if config.rtsp.enabled:
        rows.append(MemoryRow("rtsp", "the process that serves, and what waits for it", RTSP_MB))
    return rows


def _model_rows(name: str, path: Path, spec: InputSpec, max_batch: int) -> list[MemoryRow]:
    file_mb = path.stat().st_size / STEP_MB if path.is_file() else 0.0
    values = max_batch * spec.width * spec.height * 3
    # the batch, the one that is filled meanwhile, and what the engine makes of it on its way
    tensor_mb = 3 * values * DTYPE_BYTES.get(spec.dtype, 4) / STEP_MB
    return [
        MemoryRow(name, "weights and engine", ENGINE_MB + ENGINE_TIMES_FILE * file_mb),
        MemoryRow(name, f"batch of {max_batch}", tensor_mb),
    ]


def _stream_rows(stream: StreamSettings) -> list[MemoryRow]:
    width, height = size_of(stream)
    frame_mb = _frame_mb(stream)
    rows = [MemoryRow(stream.name, f"drawing and encoding {width}x{height}", OUTPUT_FRAMES * frame_mb)]
    if is_isolated(stream):
        slots = MAX_RINGS * NUM_SLOTS
        rows.append(MemoryRow(stream.name, f"{slots} pictures in shared memory", slots * frame_mb))
        rows.append(MemoryRow(stream.name, "capture child and its decoder", child_limit_mb(stream)))
    else:
        rows.append(MemoryRow(stream.name, f"{THREAD_FRAMES} pictures under way", THREAD_FRAMES * frame_mb))
        rows.append(MemoryRow(stream.name, "decoder", decoder_mb(stream)))
    if stream.tiles is not None:
        # each overlaps its neighbours by at most a half, in both directions
        rows.append(MemoryRow(stream.name, "tiles", 4 * frame_mb))
    return [*rows, *_record_rows(stream)]


def _mask_row(stream: StreamSettings, spec: InputSpec) -> MemoryRow:
    """The prototypes of the results that are under way, one set per tile; pixels are made one object at a time."""
    pictures = 1 if stream.tiles is None else stream.tiles[0] * stream.tiles[1] + 1
    maps_mb = spec.width * spec.height * MAP_BYTES_PER_PX / STEP_MB
    return MemoryRow(stream.name, "maps of masks under way", THREAD_FRAMES * pictures * maps_mb)


def _record_rows(stream: StreamSettings) -> list[MemoryRow]:
    record = stream.record
    rows = []
    if record is not None and record.mode == "events":
        rows.append(MemoryRow(stream.name, "pre-roll", record.pre_roll_mb * 2**20 / STEP_MB))
    if record is not None and record.content == "source":
        # a file in the main process has no ring
        ring = RING_BYTES if is_isolated(stream) else 0
        waiting = QUEUE_BYTES + ring + NOTES_BYTES
        if stream.record_source is not None:
            rows.append(MemoryRow(stream.name, "the process that reads record_source", CHILD_MB))
            waiting += RING_BYTES
        rows.append(MemoryRow(stream.name, "packets of the camera under way", waiting / STEP_MB))
    return rows


def _live_rows(stream: StreamSettings) -> list[MemoryRow]:
    """The large picture for who looks: its process, pictures in shared memory and waiting, drawing and encoding."""
    if stream.live_source is None:
        return []
    width, height = LARGEST_PX
    px = width * height
    pictures_mb = (MAX_RINGS * NUM_SLOTS + LIVE_WAITING + OUTPUT_FRAMES) * px * 3 / STEP_MB
    coded_mb = CHILD_MB + px * (DECODER_BYTES_PER_PX + ENCODER_BYTES_PER_PX) / STEP_MB + RING_BYTES / STEP_MB
    return [MemoryRow(stream.name, "live_source: its process, pictures and encoder", pictures_mb + coded_mb)]


def _sound_rows(stream: StreamSettings, *, is_heard: bool) -> list[MemoryRow]:
    """The way of the sound out of the process that reads the camera, where none of a recording leads there."""
    has_way = stream.record is not None and stream.record.content == "source"
    if kind_of(stream.source) != "network" or not stream.has_sound or has_way or not (is_heard or stream.loud):
        return []
    return [MemoryRow(stream.name, "sound of the camera under way", RING_BYTES / STEP_MB)]


def _outlet_rows(stream: StreamSettings, *, is_shown: bool) -> list[MemoryRow]:
    """Recordings, restreams and video for viewers: pictures that wait for an encoder, and the encoder."""
    kinds = [sink.split(":", 1)[0] for sink in stream.sinks]
    recordings = [stream.record] if stream.record is not None else []
    recordings += [RECORD_SINK for kind in kinds if kind == "record"]
    encoded_mb = _encoder_mb(stream)
    rows = []
    for settings in recordings:
        if settings.content != "source":
            waiting_mb = SHOT_CAPACITY * _frame_mb(stream)
            rows.append(MemoryRow(stream.name, "recording: waiting pictures and encoder", waiting_mb + encoded_mb))
        rows.append(MemoryRow(stream.name, "recording: a fragment", _fragment_mb(stream, settings)))
    for _ in (kind for kind in kinds if kind in PUSHED):
        sent_mb = RESTREAM_CAPACITY * _frame_mb(stream) + encoded_mb + SENDER_MB
        rows.append(MemoryRow(stream.name, "restream: pictures, encoder and sender", sent_mb))
    if "mp4" in kinds:
        rows.append(MemoryRow(stream.name, "mp4: encoder", encoded_mb))
    if is_shown:
        # what it draws on is counted already
        rows.append(MemoryRow(stream.name, "live video: encoder", encoded_mb + _frame_mb(stream)))
    return rows


def _fragment_mb(stream: StreamSettings, settings: RecordSettings) -> float:
    """The coded pictures that are written at once."""
    width, height = size_of(stream)
    return width * height * CODED_BYTES_PER_PX * CODED_FPS * settings.fragment_s / STEP_MB


def _encoder_mb(stream: StreamSettings) -> float:
    width, height = size_of(stream)
    return ENCODER_MB + width * height * ENCODER_BYTES_PER_PX / STEP_MB


def _shown_mb(stream: StreamSettings) -> float:
    """The largest picture of a stream that is shown, as BGR."""
    largest_mb = LARGEST_PX[0] * LARGEST_PX[1] * 3 / STEP_MB
    return _frame_mb(stream) if stream.live_source is None else max(_frame_mb(stream), largest_mb)


def _frame_mb(stream: StreamSettings) -> float:
    """A picture as BGR."""
    width, height = size_of(stream)
    return width * height * 3 / STEP_MB


def child_limit_mb(stream: StreamSettings) -> float:
    """The private memory that a capture child may use; beyond it is killed and replaced."""
    return CHILD_MB + decoder_mb(stream)


def decoder_mb(stream: StreamSettings) -> float:
    """What the decoder of a camera needs at most."""
    width, height = LARGEST_PX if stream.size is not None else size_of(stream)
    return width * height * DECODER_BYTES_PER_PX / STEP_MB


def size_of(stream: StreamSettings) -> tuple[int, int]:
    """The largest picture that a stream can put into the pipeline, width and height."""
    if stream.size is not None:
        return stream.size
    if kind_of(stream.source) == "synthetic":
        scene = parse_synthetic(stream.source)
        return scene.width, scene.height
    return LARGEST_PX


def is_isolated(stream: StreamSettings) -> bool:
    """Whether the stream decodes in a child process."""
    if stream.isolation != "auto":
        return stream.isolation == "process"
    return may_hang(stream.source)
