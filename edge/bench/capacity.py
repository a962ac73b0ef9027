"""How many cameras this machine takes: the whole line measured at its limit, on H.264 that is decoded as a camera's is.

Every camera is played from a file as fast as it goes, in a child process of its own, so decoding, inference and outputs
take what they take in service. What a file cannot stand for (networks, receivers of restreams) is left out and named.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.diagnose.explain import ADVICE, loads
from edge.diagnose.gpu_stats import gpu_facts
from edge.metrics.processor_time import machine_s, own_s
from edge.pipeline import Pipeline
from edge.pipeline.memory_plan import plan_memory, size_of
from edge.scene.street import Street
from edge.video.encoder import VideoEncoder, find_encoder

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.models.manifest import Manifest
    from edge.pipeline.stream import Stream

# what stays free for bursts: a batch that comes late, a picture that is hard to decode
HEADROOM = 0.15
RATES_FPS = (5, 10, 15, 25, 30)
# for which the need of servers is told
PLANNED_CAMERAS = 40
CLIP_FPS = 30
# pictures that are drawn; the clip repeats them
CLIP_PICTURES = 60
# more than any machine reads within the measurement
CLIP_BYTES = 300_000_000
WARM_FRAMES = 5
START_LIMIT_S = 60.0
# what a frame costs more in one of several workers than in a single process: measured, see docs/scale.md
WORKER_COST = 1.22
# sinks that a folder can stand for
LOCAL_SINKS = ("jsonl", "snapshot", "mp4", "record", "hls")


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the line does at its limit.

    Attributes:
        num_cores: that this process may use.
        fps: frames per second of all streams together.
        cpu_ms_per_frame: processor time of all processes.
        shares: how busy are the processor (all cores, whoever uses them) and each thread, 1 is all of it.
        others: the share of the processor that other programs took meanwhile.
        streams: stage times of each stream.
        mb_per_camera, mb_left: the plan for one more camera, and what the machine and the budget leave for cameras.
        left_out: parts of the configuration that were not measured.
        mb_per_worker: what one more process with its models takes.
        gpu_load: share of the time that the GPU was busy, None where there is none or nobody knows.
    """

    num_cores: int
    fps: float
    cpu_ms_per_frame: float
    shares: Mapping[str, float]
    others: float
    streams: Mapping[str, Any]
    mb_per_camera: float
    mb_left: float
    left_out: tuple[str, ...] = ()
    mb_per_worker: float = 0.0
    gpu_load: float | None = None

    @property
    def bottleneck(self) -> str:
        """What is busy first."""
        return max(self.shares, key=lambda name: self.shares[name])

    @property
    def servers(self) -> list[str]:
        """Those of models, by their names in ``shares``."""
        return [name for name in self.shares if name.startswith("server of ")]

    @property
    def advice(self) -> str:
        """What to do about the bottleneck."""
        kinds = ("output", "server")
        return ADVICE[next((kind for kind in kinds if self.bottleneck.startswith(kind)), "inference")]

    def num_servers(self, server: str, num_cameras: int, fps: float) -> float:
        """How many servers like this one so many cameras of this rate keep busy, with headroom: arithmetic.

        Args:
            server: its name in ``shares``.
        """
        return num_cameras * fps * self.shares[server] / max(self.fps, 1e-9) / (1 - HEADROOM)

    def num_cameras(self, fps: float) -> int:
        """How many cameras of this rate run with headroom, by time and by memory."""
        by_time = int(self.fps * (1 - HEADROOM) / fps)
        return max(0, min(by_time, int(self.mb_left / self.mb_per_camera)))

    def with_workers(self, fps: float) -> tuple[int, int]:
        """How many cameras of this rate the whole machine takes, and in how many workers; arithmetic, not measured.

        A worker takes what the one process took that was measured; processor, GPU (which all share) or memory end it. A
        process that stands by is counted in.
        """
        in_one = int(self.fps * (1 - HEADROOM) / fps)
        limits = [self.num_cores * 1e3 / (self.cpu_ms_per_frame * WORKER_COST)]
        limits += [self.fps / self.gpu_load] if self.gpu_load else []
        cameras = int(min(limits) * (1 - HEADROOM) / fps)
        if in_one == 0 or cameras <= in_one:
            return self.num_cameras(fps), 1
        while cameras > in_one and self._mb_of(cameras, -(-cameras // in_one)) > self.mb_left:
            cameras -= 1
        return (cameras, -(-cameras // in_one)) if cameras > in_one else (self.num_cameras(fps), 1)

    def _mb_of(self, num_cameras: int, num_workers: int) -> float:
        return num_cameras * self.mb_per_camera + (num_workers + 1) * self.mb_per_worker

    def is_bound_by_memory(self, fps: float) -> bool:
        """Whether memory ends before time does."""
        return self.num_cameras(fps) < int(self.fps * (1 - HEADROOM) / fps)

    def as_json(self) -> dict[str, Any]:
        return {
            "cores": self.num_cores,
            "fps": round(self.fps, 1),
            "cpu_ms_per_frame": round(self.cpu_ms_per_frame, 2),
            "headroom": HEADROOM,
            "bottleneck": self.bottleneck,
            "servers": {
                name: {f"{fps} fps": round(self.num_servers(name, PLANNED_CAMERAS, fps), 2) for fps in RATES_FPS}
                for name in self.servers
            },
            "busy": {name: round(share, 2) for name, share in self.shares.items()},
            "others": round(self.others, 2),
            "cameras": {f"{fps} fps": self.num_cameras(fps) for fps in RATES_FPS},
            "with_workers": {
                f"{fps} fps": dict(zip(("cameras", "workers"), self.with_workers(fps), strict=True))
                for fps in RATES_FPS
            },
            "gpu_load": self.gpu_load,
            "mb_per_camera": round(self.mb_per_camera),
            "mb_left": round(self.mb_left),
            "left_out": list(self.left_out),
            "streams": dict(self.streams),
        }


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time: ours in cores, and the busy share of the whole machine."""

    cores: float
    machine: float


def measure_capacity(config: Config, seconds: float) -> Capacity:
    """Run the streams of a configuration from files for so many seconds.

    Args:
        config: its models, and its streams with everything but their sources.
        seconds: after everything has started.

    Raises:
        EdgeError: a model or a setting is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="edge-capacity-") as name:
        folder = Path(name)
        clips = {size: make_clip(folder, size) for size in {size_of(stream) for stream in config.streams}}
        streams = [_played(stream, clips[size_of(stream)], folder) for stream in config.streams]
        played = config.model_copy(
            update={
                "streams": tuple(streams),
                "events": None,
                "mqtt": (),
                "webhooks": (),
                "notify": (),
                "state_dir": None,
            }
        )
        pipeline = Pipeline(played)
        try:
            fps, usage, facts = _run(pipeline, seconds)
            gpu_load = gpu_facts().get("load")
        finally:
            pipeline.stop()
        manifests = {model: loaded.manifest for model, loaded in pipeline.models.items()}
    num_cores = len(os.sched_getaffinity(0))
    mb_per_camera, mb_left = _memory(config, plan_memory(config, manifests).by_owner())
    shares = {"the processor": usage.machine} | {load.thread: load.share for load in loads(facts)}
    return Capacity(
        num_cores=num_cores,
        fps=fps,
        cpu_ms_per_frame=usage.cores * 1e3 / max(fps, 1e-9),
        shares=shares,
        others=max(0.0, usage.machine - usage.cores / (os.cpu_count() or 1)),
        streams=facts,
        mb_per_camera=mb_per_camera,
        mb_left=mb_left,
        left_out=_left_out(config),
        mb_per_worker=_worker_mb(config, manifests),
        gpu_load=None if gpu_load is None else float(gpu_load),
    )


def make_clip(folder: Path, size: tuple[int, int]) -> Path:
    """A raw H.264 file of a street with people, as long as no machine plays it to its end in a measurement."""
    width, height = size
    street = Street(7, width, height, float(CLIP_FPS), 14)
    encoder = VideoEncoder(find_encoder(), width, height, fps=CLIP_FPS, key_every_s=1.0, has_global_header=False)
    packets = []
    for index in range(CLIP_PICTURES):
        packets += encoder.encode(street.render(index)[0], index * 90_000 // CLIP_FPS)
    data = b"".join(packet.data for packet in packets)
    path = folder / f"street-{width}x{height}.h264"
    with path.open("wb") as file:
        for _ in range(min(400, CLIP_BYTES // len(data))):
            file.write(data)
    return path


def _played(stream: StreamSettings, clip: Path, folder: Path) -> StreamSettings:
    """The same stream, played from a file: each picture is wanted, and outputs go to a folder that is thrown away."""
    sinks = tuple(_local(sink, folder) for sink in stream.sinks if sink.split(":", 1)[0] in LOCAL_SINKS)
    record = None
    if stream.record is not None:
        record = stream.record.model_copy(update={"folder": folder / "recordings"})
    return stream.model_copy(
        update={
            "source": str(clip),
            "username": None,
            "password_file": None,
            "frames": "every",
            "isolation": "process",
            "decoder": "av",
            "max_fps": None,
            "sinks": sinks,
            "record": record,
        }
    )


def _local(sink: str, folder: Path) -> str:
    kind = sink.split(":", 1)[0]
    if kind == "jsonl":
        return "jsonl:/dev/null"
    return f"mp4:{folder}/{{stream}}.mp4" if kind == "mp4" else f"{kind}:{folder}"


def _left_out(config: Config) -> tuple[str, ...]:
    kinds = {sink.split(":", 1)[0] for stream in config.streams for sink in stream.sinks}
    found = [f"sink {kind}" for kind in sorted(kinds) if kind not in LOCAL_SINKS]
    found += ["viewers of the live page"] * config.server.enabled
    return (*found, *(name for name in ("events", "mqtt", "webhooks", "notify") if getattr(config, name)))


def _run(pipeline: Pipeline, seconds: float) -> tuple[float, Usage, dict[str, Any]]:
    """Frames per second, processor use, and the streams' statistics, once all have started."""
    pipeline.start()
    streams = list(pipeline.streams.values())
    deadline = time.monotonic() + START_LIMIT_S
    while min(stream.metrics.counters["emitted"] for stream in streams) < WARM_FRAMES and time.monotonic() < deadline:
        _raise_failures(pipeline)
        time.sleep(0.01)
    before, cpu, started = (
        sum(stream.metrics.counters["emitted"] for stream in streams),
        (own_s(), *machine_s()),
        time.monotonic(),
    )
    pipeline.wait(seconds)
    spent_s = time.monotonic() - started
    fps = (_emitted(streams) - before) / spent_s
    ours_s, busy_s, total_s = (after - first for after, first in zip((own_s(), *machine_s()), cpu, strict=True))
    facts: dict[str, Any] = {stream.name: stream.stats() for stream in streams}
    _raise_failures(pipeline)
    return fps, Usage(ours_s / spent_s, busy_s / max(total_s, 1e-9)), facts


def _emitted(streams: Sequence[Stream]) -> int:
    return sum(stream.metrics.counters["emitted"] for stream in streams)


def _raise_failures(pipeline: Pipeline) -> None:
    for failure in pipeline.failures():
        raise failure


def _memory(config: Config, planned_mb: Mapping[str, float]) -> tuple[float, float]:
    """What the largest camera needs by the plan, and what is left for cameras."""
    names = [stream.name for stream in config.streams]
    shared_mb = sum(mb for owner, mb in planned_mb.items() if owner not in names)
    limits = [_available_mb(), *([config.memory_budget_mb] if config.memory_budget_mb else [])]
    return max(planned_mb[name] for name in names), max(0.0, min(limits) - shared_mb)


def _worker_mb(config: Config, manifests: Mapping[str, Manifest]) -> float:
    """What the plan counts for one more process with its models."""
    return plan_memory(config, manifests, 2).total_mb - plan_memory(config, manifests, 1).total_mb


def _available_mb(meminfo: Path = Path("/proc/meminfo")) -> float:
    lines: Sequence[str] = meminfo.read_text(encoding="utf-8").splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(found.split()[1]) * 1024 / 1e6
