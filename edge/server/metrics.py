"""The statistics in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

GAUGES = {
    "fps_in": ("edgeloop_captured_fps", "Frames per second from the source"),
    "fps_out": ("edgeloop_emitted_fps", "Frames per second that came out"),
    "age_median_ms": ("edgeloop_age_median_ms", "Median age of the frames that came out, milliseconds"),
    "age_p99_ms": ("edgeloop_age_p99_ms", "99th percentile of the age of the frames that came out, milliseconds"),
}


# key of the statistics -> name, words, factor to the unit in the name
PROCESS = {
    "rss_mb": ("edgeloop_process_rss_bytes", "Memory of the process", 2**20),
    "threads": ("edgeloop_process_threads", "Threads of the process", 1),
    "open_files": ("edgeloop_process_open_files", "Open files of the process", 1),
    "cpu_s": ("edgeloop_process_cpu_seconds", "Processor time of the process", 1),
    "children_cpu_s": ("edgeloop_children_cpu_seconds", "Processor time of its ended decoders", 1),
}
DEVICE = {
    "temperature_c": ("edgeloop_device_temperature_celsius", "Of the hottest part", 1),
    "power_w": ("edgeloop_device_power_watts", "Of the card, or of the whole Jetson module", 1),
    "load": ("edgeloop_gpu_load", "Share of the time that the GPU is busy", 1),
    "memory_used_mb": ("edgeloop_gpu_memory_bytes", "Used memory of the GPU", 2**20),
    "is_throttled": ("edgeloop_device_throttled", "1 while heat or power slow it down", 1),
}


class _Statistics(Collector):
    """Gives one set of statistics to the library."""

    def __init__(self, stats: Mapping[str, Any]) -> None:
        self._streams: Mapping[str, Mapping[str, Any]] = stats.get("streams") or {}
        self._live: Mapping[str, Mapping[str, int]] = stats.get("live") or {}
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        for key, (name, words) in GAUGES.items():
            gauge = GaugeMetricFamily(name, words, labels=["stream"])
            for stream, facts in self._streams.items():
                if isinstance(facts.get(key), (int, float)):
                    gauge.add_metric([stream], facts[key])
            yield gauge
        up = GaugeMetricFamily("edgeloop_stream_up", "Whether pictures come from the source", labels=["stream"])
        frames = CounterMetricFamily("edgeloop_frames", "What happened to frames", labels=["stream", "what"])
        stages = GaugeMetricFamily("edgeloop_stage_ms", "Median milliseconds per stage", labels=["stream", "stage"])
        away = GaugeMetricFamily("edgeloop_model_server_away", "1 while its model's server is away", labels=["stream"])
        for stream, facts in self._streams.items():
            if facts.get("server"):
                away.add_metric([stream], float(facts["server"]["state"] == "away"))
            up.add_metric([stream], float(facts.get("state") in ("streaming", "live")))
            for what, count in (facts.get("counts") or {}).items():
                frames.add_metric([stream, what], count)
            for stage, times in (facts.get("stages") or {}).items():
                stages.add_metric([stream, stage], times.get("median_ms", 0.0))
        yield from self._accuracy()
        yield from self._lost()
        yield from self._device()
        viewers = GaugeMetricFamily("edgeloop_viewers", "Viewers of the live pictures", labels=["stream"])
        encoded = CounterMetricFamily("edgeloop_pictures_encoded", "Pictures encoded for viewers", labels=["stream"])
        for stream, counts in self._live.items():
            viewers.add_metric([stream], counts["viewers"])
            encoded.add_metric([stream], counts["encoded"])
        yield from (up, away, frames, stages, viewers, encoded)

    def _accuracy(self) -> Iterator[Metric]:
        """What somebody confirmed of each camera: ``edge accuracy``."""
        for name, words in (("recall", "Share of the objects that are seen"), ("precision", "Share of what is seen")):
            gauge = GaugeMetricFamily(f"edge_{name}", f"{words}, as confirmed last", labels=["stream", "bound"])
            for stream, facts in (self._stats.get("accuracy") or {}).items():
                for bound, value in facts[name].items():
                    if isinstance(value, (int, float)):
                        gauge.add_metric([stream, bound], value)
            yield gauge

    def _lost(self) -> Iterator[Metric]:
        """Drops by cause and reconnects: what somebody may want to be woken for."""
        drops = CounterMetricFamily(
            "edgeloop_dropped_frames", "Frames that did not come out", labels=["stream", "cause"]
        )
        reconnects = CounterMetricFamily("edgeloop_reconnects", "Times the source was opened again", labels=["stream"])
        objects = CounterMetricFamily("edgeloop_objects", "Objects in frames that came out", labels=["stream"])
        parts = CounterMetricFamily(
            "edgeloop_part_failures", "Failed calls of parts of installed packages", labels=["stream", "part"]
        )
        for stream, facts in self._streams.items():
            for part, numbers in (facts.get("parts") or {}).items():
                parts.add_metric([stream, part.removeprefix(f"{stream}: ")], numbers["failures"])
            counts = facts.get("counts") or {}
            for cause, count in counts.items():
                if cause.startswith("drop_"):
                    drops.add_metric([stream, cause.removeprefix("drop_")], count)
            reconnects.add_metric([stream], counts.get("reconnects", 0))
            objects.add_metric([stream], counts.get("objects", 0))
        yield from (drops, reconnects, objects, parts)

    def _device(self) -> Iterator[Metric]:
        """The process, the GPU, and whether all is as configured."""
        for key, (name, words, factor) in PROCESS.items():
            value = (self._stats.get("process") or {}).get(key)
            if value is not None:
                yield GaugeMetricFamily(name, words, value=float(value) * factor)
        for key, (name, words, factor) in DEVICE.items():
            value = (self._stats.get("gpu") or {}).get(key)
            if value is not None:
                yield GaugeMetricFamily(name, words, value=float(value) * factor)
        config = self._stats.get("config") or {}
        is_safe = float(config.get("state") == "safe")
        yield GaugeMetricFamily("edgeloop_config_safe_mode", "1 while the file is broken", value=is_safe)
        stuck = float(bool(self._stats.get("stuck")))
        yield GaugeMetricFamily("edgeloop_stage_stuck", "1 while a stage makes no progress", value=stuck)
        yield from self._workers()
        governor = self._stats.get("governor")
        if governor:
            share = float(governor.get("share", 1.0))
            yield GaugeMetricFamily("edgeloop_governor_share", "Share of the frames that may be inferred", value=share)

    def _workers(self) -> Iterator[Metric]:
        """The processes that the streams are dealt to, where there are several."""
        workers = self._stats.get("workers") or ()
        if not workers:
            return
        up = GaugeMetricFamily("edgeloop_worker_up", "Whether its process runs its streams", labels=["worker"])
        restarts = CounterMetricFamily("edgeloop_worker_restarts", "Times it was started again", labels=["worker"])
        memory = GaugeMetricFamily("edgeloop_worker_rss_bytes", "Memory of its process", labels=["worker"])
        for worker in workers:
            number = [str(worker["number"])]
            up.add_metric(number, float(worker["state"] == "running"))
            restarts.add_metric(number, worker["restarts"])
            memory.add_metric(number, float((worker.get("process") or {}).get("rss_mb", 0.0)) * 2**20)
        yield from (up, restarts, memory)


def prometheus_text(stats: Mapping[str, Any]) -> bytes:
    """The statistics of the pipeline (``streams``) and of the board (``live``) as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Statistics(stats))
    text: bytes = generate_latest(registry)
    return text
