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


class _Statistics(Collector):
    """Gives one set of statistics to the library."""

    def __init__(self, stats: Mapping[str, Any]) -> None:
        self._streams: Mapping[str, Mapping[str, Any]] = stats.get("streams") or {}
        self._live: Mapping[str, Mapping[str, int]] = stats.get("live") or {}

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
        for stream, facts in self._streams.items():
            up.add_metric([stream], float(facts.get("state") in ("streaming", "live")))
            for what, count in (facts.get("counts") or {}).items():
                frames.add_metric([stream, what], count)
            for stage, times in (facts.get("stages") or {}).items():
                stages.add_metric([stream, stage], times.get("median_ms", 0.0))
        viewers = GaugeMetricFamily("edgeloop_viewers", "Viewers of the live pictures", labels=["stream"])
        encoded = CounterMetricFamily("edgeloop_pictures_encoded", "Pictures encoded for viewers", labels=["stream"])
        for stream, counts in self._live.items():
            viewers.add_metric([stream], counts["viewers"])
            encoded.add_metric([stream], counts["encoded"])
        yield from (up, frames, stages, viewers, encoded)


def prometheus_text(stats: Mapping[str, Any]) -> bytes:
    """The statistics of the pipeline (``streams``) and of the board (``live``) as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Statistics(stats))
    text: bytes = generate_latest(registry)
    return text
