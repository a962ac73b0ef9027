"""Cameras on real sockets: an RTSP server that comes and goes, children that are stopped, killed and hung."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from camera_rig import (
    SYNTHETIC,
    RtspServer,
    capture_children,
    emitted,
    free_port,
    holdings,
    null_pipeline,
    started_pipelines,
    unaccounted,
    wait_for,
)

from edge.chaos.camera import ChaosCamera
from edge.config.schema import StreamSettings
from edge.errors import ConfigError, EdgeError, MissingError, SourceError
from edge.pipeline import Pipeline
from edge.pipeline.memory_plan import PROCESS_MB, plan_memory
from edge.sources.deadlines import Deadlines
from edge.sources.isolation.source import IsolatedSource


@pytest.fixture
def server() -> Iterator[RtspServer]:
    running = RtspServer()
    yield running
    running.kill()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    """Starts pipelines of cameras whose engine finds nothing, so that only the cameras are tested; stops them."""
    with started_pipelines() as start:
        yield lambda sources, **settings: start(null_pipeline(tmp_path, sources, **settings))


@pytest.mark.real_server
def test_a_camera_comes_back_after_its_server_was_killed(
    server: RtspServer, running: Callable[..., Pipeline], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    pipeline = running([server.url], stall_timeout_s=1.5)
    (stream,) = pipeline.streams.values()
    wait_for(lambda: emitted(pipeline)["cam0"] >= 5, 20, "first pictures")
    server.kill()
    wait_for(lambda: stream.status.state == "backing_off", 10, "the loss is noticed")
    before = emitted(pipeline)["cam0"]
    server.start()
    wait_for(lambda: emitted(pipeline)["cam0"] >= before + 5, 15, "pictures after the restart")
    assert stream.status.state == "streaming"
    assert stream.metrics.counters["reconnects"] >= 1
    assert "canarysecret" not in caplog.text
    assert "canarysecret" not in str(stream.stats())


@pytest.mark.real_server
def test_a_dead_camera_does_not_keep_the_others_from_starting(
    server: RtspServer, running: Callable[..., Pipeline]
) -> None:
    pipeline = running([f"rtsp://127.0.0.1:{free_port()}/none", server.url])
    wait_for(lambda: emitted(pipeline)["cam1"] >= 5, 20, "pictures of the living camera")
    assert emitted(pipeline)["cam0"] == 0


def test_a_server_that_accepts_and_stays_silent_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(SourceError, match=r"no picture for 1 s|does not answer in time"):
            IsolatedSource(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", deadlines=Deadlines(open_s=1.0))
        assert time.monotonic() - started < 3.0


def endless(**options: object) -> IsolatedSource:
    query = "&".join(
        f"{key}={value}" for key, value in {"seed": 1, "size": "320x180", "fps": 30, "live": 1, **options}.items()
    )
    return IsolatedSource(f"synthetic://street?{query}", deadlines=Deadlines(open_s=20.0, stall_s=1.0))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGSTOP, "no picture for 1 s"),
        (signal.SIGKILL, "ended by SIGKILL"),
        (signal.SIGSEGV, "ended by SIGSEGV"),
    ],
)
def test_a_child_that_hangs_or_dies_is_noticed_and_reaped(number: signal.Signals, expected: str) -> None:
    source = endless()
    assert source.read() is not None
    os.kill(source.pid, number)
    with pytest.raises(SourceError, match=expected):
        while source.read() is not None:
            pass
    source.close()
    assert not psutil.pid_exists(source.pid)


def test_a_picture_stays_whole_while_somebody_holds_it() -> None:
    source = endless()
    first = source.read()
    assert first is not None
    held, copy = first[0], first[0].copy()
    for _ in range(30):
        source.read()
    assert (held == copy).all()
    source.close()
    assert (held == copy).all()


def test_held_pictures_cost_drops_and_never_more_memory() -> None:
    source = endless(fps=60)
    held = [source.read() for _ in range(7)]
    threading.Timer(0.6, held.clear).start()
    assert source.read() is not None
    assert source.take_drops()["drop_ring_full"] >= 5
    source.close()


def test_stopping_ends_a_wait_at_once() -> None:
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"
        threading.Timer(0.3, stopping.set).start()
        started = time.monotonic()
        with pytest.raises(SourceError, match="stopped while connecting"):
            IsolatedSource(url, deadlines=Deadlines(open_s=30), is_stopping=stopping.is_set)
        assert time.monotonic() - started < 2.0


def test_opening_and_closing_leaves_no_threads_files_or_children() -> None:
    process = psutil.Process()

    def held() -> tuple[int, int, int]:
        gc.collect()
        return process.num_fds(), process.num_threads(), len(process.children(recursive=True))

    endless().close()
    before = held()
    for _ in range(5):
        source = endless()
        source.read()
        source.close()
    del source
    # on a busy machine the first one's child may have been there still
    wait_for(lambda: all(now <= was for now, was in zip(held(), before, strict=True)), 20, "no more is held")


def test_an_isolated_file_gives_every_frame_of_the_film(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for index in range(40):
        writer.write(np.full((48, 64, 3), index * 6, np.uint8))
    writer.release()
    source = IsolatedSource(str(path))
    levels = []
    while (picture := source.read()) is not None:
        levels.append(int(picture[0].mean()))
        time.sleep(0.002)
    source.close()
    assert levels == pytest.approx([index * 6 for index in range(40)], abs=3)


def test_the_child_dies_with_its_parent() -> None:
    code = (
        "from edge.sources.isolation.source import *; "
        "s = IsolatedSource('synthetic://street?seed=1&size=320x180&live=1', "
        "deadlines=Deadlines(open_s=20)); print(s.pid, flush=True); import time; time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(child), 5, "the child ends")


def test_under_overload_every_frame_is_fresh_fair_and_accounted_for(tmp_path: Path) -> None:
    """Eight cameras of 10 fps, an engine that takes 20 frames per second: a quarter of what comes."""
    sources = [SYNTHETIC.format(seed=index, fps=10) for index in range(8)]
    pipeline = null_pipeline(
        tmp_path, sources, engine_s=0.2, max_batch=4, max_age_ms=900, sinks=[f"jsonl:{tmp_path}/{{stream}}.jsonl"]
    )
    pipeline.start()
    wait_for(lambda: min(emitted(pipeline).values()) >= 3, 20, "all cameras deliver")
    before = emitted(pipeline)
    time.sleep(8)
    counts = {name: count - before[name] for name, count in emitted(pipeline).items()}
    assert pipeline.stop()
    assert not any(unaccounted(pipeline).values())
    mean = sum(counts.values()) / len(counts)
    assert max(abs(count - mean) for count in counts.values()) <= max(0.1 * mean, 1), counts
    files = [tmp_path / f"{name}.jsonl" for name in counts]
    ages = [[json.loads(line)["age_ms"] for line in path.read_text().splitlines()] for path in files]
    assert max(max(age) for age in ages) < 900
    early = np.percentile([value for age in ages for value in age[: len(age) // 2]], 90)
    late = np.percentile([value for age in ages for value in age[len(age) // 2 :]], 90)
    assert late < 1.25 * early + 50
    oldest = max(max(age) for age in ages)
    print(f"\nages p90 {early:.0f} ms, then {late:.0f} ms, oldest {oldest:.0f} ms; frames {sorted(counts.values())}")


def test_a_priority_of_two_is_served_twice_as_often_under_overload(tmp_path: Path) -> None:
    pipeline = null_pipeline(tmp_path, [SYNTHETIC.format(seed=index, fps=20) for index in range(3)], engine_s=0.05)
    streams = [
        stream.config.model_copy(update={"priority": 2 if name == "cam0" else 1})
        for name, stream in pipeline.streams.items()
    ]
    config = pipeline.config.model_copy(update={"streams": tuple(streams)})
    config = config.model_copy(update={"models": (config.models[0].model_copy(update={"max_batch": 1}),)})
    pipeline = Pipeline(config)
    (model,) = pipeline.models.values()
    from edge.engines.null import NullEngine

    model.engine = NullEngine(model.manifest.input, max_batch=1, seconds=0.05)
    pipeline.start()
    wait_for(lambda: min(emitted(pipeline).values()) >= 2, 20, "all cameras deliver")
    before = emitted(pipeline)
    time.sleep(4)
    counts = {name: count - before[name] for name, count in emitted(pipeline).items()}
    assert pipeline.stop()
    others = (counts["cam1"] + counts["cam2"]) / 2
    assert counts["cam0"] == pytest.approx(2 * others, rel=0.2), counts


@pytest.mark.timeout(300)
def test_a_camera_that_dies_or_hangs_leaves_the_other_seven_alone(running: Callable[..., Pipeline]) -> None:
    fps, window_s = 5, 4.0
    sources = [SYNTHETIC.format(seed=index, fps=fps) for index in range(8)]
    pipeline = running(sources, isolation="process", stall_timeout_s=1.5, open_timeout_s=30)
    wait_for(lambda: min(emitted(pipeline).values()) >= 3, 60, "all cameras deliver")
    children = capture_children()
    assert len(children) == 8
    for victim, number in ((1, signal.SIGKILL), (4, signal.SIGSEGV), (6, signal.SIGSTOP)):
        before = emitted(pipeline)
        os.kill(children[victim].pid, number)
        time.sleep(window_s)
        after = emitted(pipeline)
        told = {name: (after[name] - before[name]) / (fps * window_s) for name in after}
        # children start one by one, in the order of the streams, but which is whose is not to be known: the worst is it
        dead = min(told, key=lambda name: told[name])
        rates = sorted(rate for name, rate in told.items() if name != dead)
        print(f"\n{number.name}: the others kept {rates[0]:.2f} to {rates[-1]:.2f} of their rate")
        assert rates[0] >= 0.95, told
        last = after[dead]
        wait_for(lambda last=last, dead=dead: emitted(pipeline)[dead] > last + 2, 30, "the dead one returns")


@pytest.mark.real_server
@pytest.mark.timeout(300)
def test_reconnects_leave_no_threads_files_children_or_memory(
    server: RtspServer, running: Callable[..., Pipeline]
) -> None:
    """Fifteen here; a thousand in tests/soak."""
    pipeline = running([server.url], stall_timeout_s=2, retry_base_s=0.05, retry_cap_s=0.1)
    (stream,) = pipeline.streams.values()
    held, back_s = [], []
    for _ in range(15):
        before = stream.metrics.counters["emitted"]
        wait_for(lambda before=before: stream.metrics.counters["emitted"] > before, 20, "pictures")
        held.append(holdings())
        (child,) = capture_children()
        child.kill()
        back_s.append(wait_for(lambda: stream.metrics.counters["reconnects"] >= len(held), 10, "the loss is noticed"))
    assert all(held[-1][what] <= held[2][what] for what in ("threads", "fds", "children")), (held[2], held[-1])
    assert held[-1]["rss_kb"] < held[7]["rss_kb"] * 1.02


def test_cameras_come_and_go_while_the_others_run(running: Callable[..., Pipeline]) -> None:
    """Twenty here; a thousand in tests/soak."""
    pipeline = running([SYNTHETIC.format(seed=0, fps=20)])
    guest = pipeline.config.streams[0].model_copy(update={"name": "guest"})
    held = []
    for _ in range(20):
        stream = pipeline.add_stream(guest)
        wait_for(lambda stream=stream: stream.metrics.counters["emitted"] > 0, 10, "pictures of the guest")
        assert pipeline.remove_stream("guest")
        counts = stream.metrics.counters.snapshot()
        assert counts["captured"] == counts["emitted"] + sum(n for name, n in counts.items() if name[:5] == "drop_")
        held.append(holdings())
    assert list(pipeline.streams) == ["cam0"]
    assert all(held[-1][what] <= held[1][what] for what in ("threads", "fds", "children")), (held[1], held[-1])
    before = emitted(pipeline)["cam0"]
    wait_for(lambda: emitted(pipeline)["cam0"] > before + 5, 5, "the other one goes on")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "a stream called 'cam0' runs already"),
        ({"name": "new", "model": "other"}, "asks for model 'other'; loaded: model"),
        ({"name": "new", "source": "/nowhere.mp4"}, "no such file"),
        ({"name": "new", "sinks": ("jsonl:/nowhere/x.jsonl",)}, "cannot be created"),
    ],
)
def test_a_stream_that_does_not_fit_is_not_added(
    running: Callable[..., Pipeline], change: dict[str, Any], expected: str
) -> None:
    pipeline = running([SYNTHETIC.format(seed=0, fps=20)])
    with pytest.raises(EdgeError, match=expected):
        pipeline.add_stream(pipeline.config.streams[0].model_copy(update=change))
    assert list(pipeline.streams) == ["cam0"]
    with pytest.raises(ConfigError, match="no stream is called 'new'; running: cam0"):
        pipeline.remove_stream("new")


CANARY = (255, 0, 255)
MASK = ((0.2, 0.2), (0.8, 0.3), (0.7, 0.8), (0.25, 0.7))


def canary_film(folder: Path, count: int = 12) -> Path:
    """A grey film, in which everything that the mask shall cover is of a colour that occurs nowhere else."""
    import cv2

    folder.mkdir()
    for index in range(count):
        image = np.full((180, 320, 3), 60 + 5 * index, np.uint8)
        cv2.fillPoly(image, [np.floor(np.array(MASK) * (320, 180)).astype(np.int32)], CANARY)
        cv2.imwrite(str(folder / f"{index:03d}.png"), image)
    return folder


def has_canary(image: np.ndarray[Any, Any]) -> bool:
    """Whether anything magenta is left; the film is grey."""
    image = image.astype(np.int16)
    return bool((image[..., 0] - image[..., 1] > 40).any() or (image[..., 2] - image[..., 1] > 40).any())


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("change", [{}, {"rotate": 90, "size": (200, 300), "roi": (0.1, 0.1, 0.9, 0.9)}])
def test_what_a_privacy_mask_covers_is_found_in_no_output(
    tmp_path: Path, isolation: str, change: dict[str, Any]
) -> None:
    import av
    import cv2

    film = canary_film(tmp_path / "film")
    outputs = [f"jsonl:{tmp_path}/out.jsonl", f"mp4:{tmp_path}/out.mp4", f"snapshot:{tmp_path}/shots"]
    (tmp_path / "shots").mkdir()
    pipeline = null_pipeline(tmp_path, [str(film)], isolation=isolation, masks=(MASK,), sinks=outputs, **change)
    seen: list[bool] = []
    stream = pipeline.streams["cam0"]
    update = stream.analysis.update
    stream.analysis.update = lambda frame, *rest: (seen.append(has_canary(frame.image)), update(frame, *rest))[1]  # type: ignore[method-assign]
    pipeline.start()
    assert pipeline.wait(60)
    assert pipeline.stop()
    assert seen == [False] * 12
    shots = list((tmp_path / "shots").glob("*.jpg"))
    assert shots
    assert not any(has_canary(np.asarray(cv2.imread(str(path)))) for path in shots)
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert not any(has_canary(frame.to_ndarray(format="bgr24")) for frame in video.decode(video=0))
    assert has_canary(np.asarray(cv2.imread(str(film / "000.png")))), "the test itself can tell"


def test_a_frozen_camera_is_an_event_a_state_and_an_end_of_both(tmp_path: Path) -> None:
    camera = ChaosCamera()
    sinks = [f"jsonl:{tmp_path}/out.jsonl"]
    pipeline = null_pipeline(tmp_path, [camera.url], health={"frozen_s": 1.5, "hold_s": 0}, sinks=sinks)
    pipeline.start()
    stream = pipeline.streams["cam0"]
    wait_for(lambda: stream.metrics.counters["emitted"] > 5, 20, "pictures")
    camera.set_fault("frozen")
    wait_for(lambda: stream.status.state == "frozen", 10, "the picture is found to be frozen")
    assert stream.stats()["health"] == ["frozen"]
    camera.set_fault("none")
    wait_for(lambda: stream.status.state == "streaming", 10, "it lives again")
    wait_for(lambda: not stream.pending_events, 5, "both events are out")
    assert pipeline.stop()
    camera.close()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    told = [(event["kind"], event["data"].get("from")) for line in lines for event in line["events"]]
    assert told == [("camera_frozen", None), ("camera_recovered", "frozen")]


def test_a_frozen_camera_that_is_opened_anew_is_neither_live_at_once_nor_frozen_for_ever(
    running: Callable[..., Pipeline],
) -> None:
    camera = ChaosCamera()
    pipeline = running([camera.url], health={"frozen_s": 1.5, "hold_s": 0})
    stream = pipeline.streams["cam0"]
    wait_for(lambda: stream.metrics.counters["emitted"] > 5, 20, "pictures")
    camera.set_fault("frozen")
    wait_for(lambda: stream.status.state == "frozen", 10, "the picture is found to be frozen")
    for _ in range(2):
        before, last = stream.metrics.counters["reconnects"], stream.metrics.counters["emitted"]
        (child,) = capture_children()
        child.kill()
        wait_for(lambda before=before: stream.metrics.counters["reconnects"] > before, 10, "the loss is noticed")
        last = stream.metrics.counters["emitted"]
        wait_for(lambda last=last: stream.metrics.counters["emitted"] > last + 10, 20, "pictures after the opening")
        assert stream.status.state == "frozen"
    camera.set_fault("none")
    wait_for(lambda: stream.status.state == "streaming", 10, "it lives again")
    assert stream.stats()["health"] == []
    camera.close()


def test_a_camera_that_is_off_is_asked_again_by_the_same_process(running: Callable[..., Pipeline]) -> None:
    """A new process for every attempt would cost more processor time than a camera that works."""
    pipeline = running([f"rtsp://127.0.0.1:{free_port()}/none"], retry_base_s=0.05, retry_cap_s=0.05)
    (stream,) = pipeline.streams.values()
    wait_for(lambda: stream.metrics.counters["reconnects"] >= 3, 20, "attempts")
    (before,) = capture_children()
    wait_for(lambda: stream.metrics.counters["reconnects"] >= 23, 10, "further attempts")
    (after,) = capture_children()
    assert after.pid == before.pid
    before.kill()
    last = stream.metrics.counters["reconnects"]
    wait_for(lambda: stream.metrics.counters["reconnects"] >= last + 3, 10, "attempts by another one")
    assert [child.pid for child in capture_children()] != [before.pid]


def test_what_one_camera_lacks_costs_no_other_camera(running: Callable[..., Pipeline]) -> None:
    """OpenCV from pip has no GStreamer; the pipeline's name is wrong in any case."""
    pipeline = running([SYNTHETIC.format(seed=0, fps=20), "gst:nosuchelement ! appsink"], open_timeout_s=30)
    stream = pipeline.streams["cam1"]
    wait_for(lambda: stream.metrics.counters["reconnects"] >= 2, 40, "it is tried again")
    assert stream.status.state in ("backing_off", "connecting")
    before = emitted(pipeline)["cam0"]
    wait_for(lambda: emitted(pipeline)["cam0"] > before + 5, 5, "the other one goes on")
    wait_for(lambda: "GStreamer" in stream.status.reason, 10, "the reason is told")
    assert not pipeline.failures()


def test_what_the_only_camera_lacks_ends_the_run(tmp_path: Path) -> None:
    pipeline = null_pipeline(tmp_path, ["gst:nosuchelement ! appsink"], open_timeout_s=30)
    pipeline.start()
    assert pipeline.wait(40), "time limit: the run has not ended within 40 s"
    assert pipeline.stop()
    (failure,) = pipeline.failures()
    assert isinstance(failure, MissingError)


def test_a_slow_rate_and_a_gate_count_what_they_hold_back_and_do_not_look_like_a_silent_camera(
    running: Callable[..., Pipeline],
) -> None:
    camera = ChaosCamera()
    gate = {"enabled": True, "floor_fps": 0.4, "hold_s": 0.0, "min_share": 0.9}
    slow = {"name": "slow", "source": camera.url, "max_fps": 0.4, "stall_timeout_s": 1.0}
    pipeline = running([camera.url], motion_gate=gate, stall_timeout_s=1.0, top={"stop_timeout_s": 5})
    stream = pipeline.streams["cam0"]
    other = pipeline.add_stream(StreamSettings.model_validate(slow))
    wait_for(
        lambda: min(stream.metrics.counters["emitted"], other.metrics.counters["emitted"]) >= 3,
        30,
        "pictures at the floor rate",
    )
    assert stream.metrics.counters["drop_no_motion"] >= 30
    assert other.metrics.counters["drop_max_fps"] >= 30
    assert stream.metrics.counters["reconnects"] + other.metrics.counters["reconnects"] == 0
    camera.close()


def test_a_decoder_that_grows_beyond_its_plan_is_ended() -> None:
    source = None
    with pytest.raises(SourceError, match=r"the decoder grew to \d+ MB, over its 5 MB; it was ended"):
        # it may be found while opening, or a second later
        source = IsolatedSource(SYNTHETIC.format(seed=1, fps=10), deadlines=Deadlines(open_s=20, memory_mb=5))
        while source.read() is not None:
            pass
    if source is not None:
        source.close()


@pytest.mark.timeout(240)
def test_the_memory_plan_holds_under_faults(tmp_path: Path) -> None:
    """Rings, children, frames, recordings and a sender of two cameras that break, flood and change their size."""
    cameras = [ChaosCamera((1280, 720)) for _ in range(2)]
    urls = [camera.url for camera in cameras]
    stream: dict[str, Any] = {
        "size": (1280, 720),
        "stall_timeout_s": 1.0,
        "record": {"folder": tmp_path / "recordings", "mode": "events", "pre_roll_mb": 8},
        "sinks": [f"hls:{tmp_path}/hls", f"snapshot:{tmp_path}"],
    }
    manifests = {"model": null_pipeline(tmp_path, urls, **stream).streams["cam0"].manifest}
    budget = plan_memory(null_pipeline(tmp_path, urls, **stream).config, manifests).total_mb + 1
    # other tests of this process have loaded more than a daemon does
    foreign = max(0.0, proportional_mb() - PROCESS_MB)
    pipeline = null_pipeline(tmp_path, urls, top={"memory_budget_mb": budget}, **stream)
    pipeline.start()
    wait_for(lambda: min(emitted(pipeline).values()) > 3, 40, "pictures")
    worst = 0.0
    for fault in ("flood", "size_change", "disconnect", "stall_mid_frame", "none"):
        for camera in cameras:
            camera.set_fault(fault)
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            worst = max(worst, proportional_mb())
            time.sleep(0.05)
    for child in capture_children():
        child.kill()
    wait_for(
        lambda: all(stream.status.state == "streaming" for stream in pipeline.streams.values()), 20, "both are back"
    )
    worst = max(worst, proportional_mb()) - foreign
    assert pipeline.stop()
    for camera in cameras:
        camera.close()
    print(f"\nplanned {budget:.0f} MB, used at most {worst:.0f} MB")
    assert worst < budget


def proportional_mb() -> float:
    """Memory of this process and its children, shared pages counted once."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total / 1e6
