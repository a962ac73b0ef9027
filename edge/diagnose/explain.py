"""Where the time of a running daemon goes, what is dropped and why, and what will be the next bottleneck.

Works on the statistics of ``/api/stats`` alone, so it says the same on the device and from afar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge.metrics.stages import INFERENCE_STAGES, OUTPUT_STAGES, DropCause, Stage

Level = Literal["ok", "note", "wrong"]
# a thread that is busy for this share of the time has no room for another camera
BUSY = 0.85
# by name: the daemon that is asked may be of another version
CAUSES: Mapping[str, str] = {
    "drop_replaced": "a newer frame came before inference had time: the camera is faster than the model",
    "drop_too_old": "older than max_age_ms when its turn came",
    "drop_output_full": "the sinks are slower than inference",
    "drop_ring_full": "the pipeline held all pictures of the camera's shared memory",
    "drop_stopped": "came after the stream had been stopped",
    "drop_max_fps": "above max_fps, as configured",
    "drop_no_motion": "nothing moved, as configured by motion_gate",
    "drop_no_engine": "the engine failed; they were recorded and not inferred until another worker had loaded it",
    "drop_switched_off": "analysis of this stream is switched off; they were shown and recorded",
    "drop_governor": "the governor holds this stream back because the device is too hot or draws too much",
}
# what somebody asked for is no fault
INTENDED: tuple[DropCause, ...] = (
    "drop_max_fps",
    "drop_no_motion",
    "drop_stopped",
    "drop_switched_off",
)
ADVICE = {
    "inference": "use an INT8 or smaller model, a GPU engine (edge build), or set max_fps",
    "output": "fewer or faster sinks, smaller pictures, or a hardware encoder",
    "server": "a faster server, more instances of the model there, or larger batches (max_batch)",
    "capture": 'a lower camera resolution, hardware = "auto", or max_fps',
}


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of the answer. Attributes: ``topic``: a stream or ``the line``; ``advice``: empty where all is well."""

    topic: str
    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a thread is: ``share`` of its time, 1 is all of it."""

    thread: str
    kind: Literal["inference", "output", "capture", "server"]
    share: float


def explain(stats: Mapping[str, Any]) -> list[Remark]:
    """What there is to say, the line as a whole first.

    Args:
        stats: the answer of ``/api/stats``.
    """
    streams: Mapping[str, Any] = stats.get("streams") or {}
    remarks = [*_bottleneck(streams), *_process(stats)]
    remarks += [*_events(stats), *_recordings(stats)]
    for name, facts in streams.items():
        remarks += [_state(name, facts), *_counting(name, facts), *_time(name, facts), *_drops(name, facts)]
        remarks += [*_server(name, facts), *_parts(name, facts)]
    return remarks


def loads(streams: Mapping[str, Any]) -> list[Load]:
    """How busy every thread is, the busiest first; and every server that runs a model."""
    own = tuple(stage for stage in INFERENCE_STAGES if stage != "infer")
    inference: dict[str, float] = {}
    for facts in streams.values():
        # each of several workers has an inference thread of its own
        thread = f"inference of worker {facts['worker']}" if "worker" in facts else "inference"
        busy = _busy(facts, own if facts.get("server") else INFERENCE_STAGES)
        inference[thread] = inference.get(thread, 0.0) + busy
    found = [Load(thread, "inference", share) for thread, share in inference.items()]
    servers = {one["model"]: float(one["busy"]) for facts in streams.values() if (one := facts.get("server"))}
    found += [Load(f"server of {model}", "server", share) for model, share in servers.items()]
    found += [Load(f"output of {name}", "output", _busy(facts, OUTPUT_STAGES)) for name, facts in streams.items()]
    return sorted(found, key=lambda load: load.share, reverse=True)


def _busy(facts: Mapping[str, Any], stages: tuple[Stage, ...]) -> float:
    times = facts.get("stages") or {}
    spent_ms = sum(float(times.get(stage, {}).get("median_ms", 0.0)) for stage in stages)
    return float(facts.get("fps_out") or 0.0) * spent_ms / 1e3


def _bottleneck(streams: Mapping[str, Any]) -> Iterator[Remark]:
    if not streams:
        yield Remark("the line", "wrong", "no stream runs", "add a [[streams]] table")
        return
    busiest = loads(streams)[0]
    text = f"the busiest thread is {busiest.thread}: {busiest.share:.0%} of its time"
    if busiest.share >= BUSY:
        yield Remark("the line", "wrong", f"{text}; it is the bottleneck", ADVICE[busiest.kind])
    elif busiest.share > 0:
        yield Remark("the line", "ok", f"{text}; about {1 / busiest.share:.1f} times the load fits before it is full")
    else:
        yield Remark("the line", "note", "no frame has come out yet")


def _process(stats: Mapping[str, Any]) -> Iterator[Remark]:
    process: Mapping[str, Any] = stats.get("process") or {}
    if "rss_mb" in process:
        yield Remark("process", "ok", f"{process['rss_mb']:.0f} MB of memory, {process.get('threads', 0)} threads")
    stuck = stats.get("stuck")
    if stuck:
        yield Remark("watchdog", "wrong", str(stuck), "the log says more; systemd restarts the daemon if it lasts")
    for worker in stats.get("workers") or ():
        facts = f"{len(worker['streams'])} streams, started again {worker['restarts']} times"
        advice = "the log says more; its streams go on when it is there again, or elsewhere"
        yield Remark(
            f"worker {worker['number']}",
            "wrong" if worker["reason"] else "ok",
            worker["reason"] or facts,
            advice * bool(worker["reason"]),
        )
    gpu: Mapping[str, Any] = stats.get("gpu") or {}
    if gpu:
        facts = ", ".join(f"{key} {value}" for key, value in gpu.items() if value is not None)
        is_hot = bool(gpu.get("is_throttled"))
        yield Remark("GPU", "wrong" if is_hot else "ok", facts, "it throttles: cool it, or enable [governor]" * is_hot)
    jetson: Mapping[str, Any] = stats.get("jetson") or {}
    if jetson:
        level: Level = "ok" if jetson.get("level") == "ok" else "wrong"
        yield Remark("JetPack", level, str(jetson.get("text")), str(jetson.get("advice", "")))
    config: Mapping[str, Any] = stats.get("config") or {}
    if config.get("state") == "safe":
        yield Remark("configuration", "wrong", str(config.get("reason")), "the last good one runs; run: edge check")


def _events(stats: Mapping[str, Any]) -> Iterator[Remark]:
    """What waits for its receivers, and what was lost before it was written."""
    events: Mapping[str, Any] = stats.get("events") or {}
    outbox: Mapping[str, Any] = events.get("outbox") or {}
    desk: Mapping[str, Any] = events.get("desk") or {}
    if not outbox:
        return
    lost = int(outbox.get("lost", 0)) + int(desk.get("dropped", 0))
    text = f"{outbox.get('kept', 0)} events kept, {lost} lost"
    if error := outbox.get("error"):
        yield Remark(
            "events", "wrong", f"{text}; in memory only: {error}", "mend the disk; it is tried again by itself"
        )
    else:
        advice = "raise events.max_mb, or mend the receiver" * bool(lost)
        yield Remark("events", "wrong" if lost else "ok", text, advice)
    for name, target in (events.get("targets") or {}).items():
        waiting = outbox.get(f"waiting_{name}", 0)
        text = f"{target.get('delivered', 0)} delivered, {waiting} waiting"
        error = target.get("error")
        yield Remark(f"to {name}", "wrong" if error else "ok", f"{text}: {error}" if error else text)


def _recordings(stats: Mapping[str, Any]) -> Iterator[Remark]:
    """Whether each recording goes on, and which pictures it lacks."""
    for name, facts in (stats.get("recordings") or {}).items():
        lost = sum(int(facts.get(key, 0)) for key in ("frames_lost", "packets_lost", "dropped"))
        text = f"recording: {facts.get('files', 0)} files, {facts.get('frames', 0)} pictures, {lost} lost"
        if facts.get("error"):
            yield Remark(name, "wrong", f"{text}: {facts['error']}")
        else:
            yield Remark(name, "note" if lost else "ok", text)


def _state(name: str, facts: Mapping[str, Any]) -> Remark:
    rates = f"{facts.get('fps_in', 0):.1f} fps in, {facts.get('fps_out', 0):.1f} fps out"
    what = f"{facts.get('width', 0)}x{facts.get('height', 0)}, {facts.get('decoder') or 'no decoder'}"
    reconnects = (facts.get("counts") or {}).get("reconnects", 0)
    text = f"{facts.get('state')}: {what}, {rates}, age median {facts.get('age_median_ms', 0):.0f} ms"
    if facts.get("state") in ("backing_off", "failed", "frozen"):
        return Remark(name, "wrong", f"{text}: {facts.get('reason') or facts.get('state')}", "edge probe its address")
    return Remark(name, "note" if reconnects else "ok", text + (f", {reconnects} reconnects" if reconnects else ""))


def _counting(name: str, facts: Mapping[str, Any]) -> Iterator[Remark]:
    if facts.get("analytics_fault"):
        yield Remark(name, "wrong", f"nothing is counted: {facts['analytics_fault']}", "correct it, then restart")


def _server(name: str, facts: Mapping[str, Any]) -> Iterator[Remark]:
    """How the server of its model does."""
    server: Mapping[str, Any] = facts.get("server") or {}
    if server.get("state") == "away":
        runs = server.get("runs") or "nothing"
        text = f"the server of {server.get('model')} is away: {server.get('reason')}; {runs} runs"
        yield Remark(name, "wrong", text, "it is looked for, and comes back by itself")
    elif server:
        yield Remark(
            name, "ok", f"{server.get('model')} runs on {server.get('server')}, away {server.get('left')} times"
        )


def _parts(name: str, facts: Mapping[str, Any]) -> Iterator[Remark]:
    """How the parts of installed packages do."""
    for part, counts in (facts.get("parts") or {}).items():
        failures, calls = int(counts.get("failures", 0)), int(counts.get("calls", 0))
        # its name begins with the stream's
        label = part.removeprefix(f"{name}: ")
        if counts.get("state") == "off":
            yield Remark(
                name, "wrong", f"{label} is off: {counts.get('reason', '')}", "mend or remove it, then restart"
            )
        elif failures:
            late = f", {counts['late']} of them late" if counts.get("late") else ""
            text = f"{label}: {failures} of {calls} calls failed{late}; the last: {counts.get('reason', '')}"
            yield Remark(name, "wrong" if failures > 0.05 * calls else "note", text)
        else:
            yield Remark(name, "ok", f"{label}: {calls} calls, none failed")


def _time(name: str, facts: Mapping[str, Any]) -> Iterator[Remark]:
    times = {
        stage: float(value.get("median_ms", 0.0))
        for stage, value in (facts.get("stages") or {}).items()
        # reading is mostly waiting for the camera
        if stage != "read"
    }
    total = sum(times.values())
    if not total:
        return
    shares = [
        f"{stage} {spent:.1f} ms ({spent / total:.0%})"
        for stage, spent in sorted(times.items(), key=lambda item: item[1], reverse=True)
        if spent / total >= 0.03
    ]
    age = float(facts.get("age_median_ms") or 0.0)
    waited = f"; {age - total:.1f} ms of the age is waiting" if age > total else ""
    yield Remark(name, "ok", f"a frame takes {total:.1f} ms: {', '.join(shares)}{waited}")


def _drops(name: str, facts: Mapping[str, Any]) -> Iterator[Remark]:
    counts: Mapping[str, int] = facts.get("counts") or {}
    captured = max(1, counts.get("captured", 0))
    for cause, count in sorted(counts.items(), key=lambda item: item[1], reverse=True):
        if not cause.startswith("drop_") or not count:
            continue
        words = CAUSES.get(cause, cause.removeprefix("drop_").replace("_", " "))
        share = count / captured
        is_wrong = cause not in INTENDED and share > 0.05
        advice = ADVICE["output"] if cause == "drop_output_full" else ADVICE["inference"]
        text = f"{count} of {captured} frames dropped ({share:.1%}): {words}"
        yield Remark(name, "wrong" if is_wrong else "note", text, advice if is_wrong else "")
    if counts.get("sink_errors"):
        yield Remark(name, "wrong", f"{counts['sink_errors']} results could not be written", "the log names the sink")
