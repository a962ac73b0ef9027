"""The chaos kit itself: it passes here, it fails where something is broken, its cameras do what their script says."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edge.chaos import drills
from edge.chaos.camera import FAULTS, ChaosCamera, Fault
from edge.chaos.drills import Verdict, run_drills
from edge.commands.selftest import selftest
from edge.errors import EdgeError, SourceError, UsageError
from edge.sources.deadlines import Deadlines
from edge.sources.isolation.source import IsolatedSource
from tests.servers.chaos_proxy import ChaosProxy, NetworkFault

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
from camera_rig import RtspServer, emitted, null_pipeline, unaccounted, wait_for


@pytest.fixture
def camera() -> Iterator[ChaosCamera]:
    opened = ChaosCamera()
    yield opened
    opened.close()


@pytest.mark.timeout(300)
def test_the_guarantees_hold_under_the_faults_that_are_hardest() -> None:
    """All fourteen: edge selftest --chaos, and tests/soak."""
    faults: tuple[Fault, ...] = ("stall_mid_frame", "size_change", "frozen")
    verdicts = run_drills(faults, seconds=3.0, on_verdict=print)
    assert [verdict.drill for verdict in verdicts] == [*faults, "killed_decoder", "nothing_leaks", "accounting"]
    assert [verdict.failures for verdict in verdicts] == [()] * len(verdicts)


def test_a_drill_that_is_not_kept_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drills, "KEPT", 1.5)
    monkeypatch.setattr(drills, "RETURN_S", 1.0)
    monkeypatch.setattr(drills, "_killed", lambda _: Verdict("killed_decoder", (3, 4), ()))
    verdicts = run_drills(("frozen",), seconds=1.0)
    assert not verdicts[0].has_passed
    assert "kept" in verdicts[0].failures[0]
    assert any("frozen" in failure for failure in verdicts[0].failures), "one second is too short to find it"


@pytest.mark.parametrize(
    ("fault", "decoder", "expected"),
    [
        ("refuse", "av", "the connection is refused"),
        ("unauthorised", "av", r"the password is not accepted \(401\)"),
        ("silent", "av", "no picture for 2 s|does not answer"),
        ("unauthorised", "opencv", "is the address right, the camera on and the password valid"),
        ("silent", "opencv", "no picture for 2 s|cannot be opened"),
    ],
)
def test_a_camera_that_cannot_be_opened_says_why_and_keeps_its_password(
    camera: ChaosCamera, fault: Fault, decoder: str, expected: str
) -> None:
    camera.set_fault(fault)
    with pytest.raises(SourceError, match=expected) as caught:
        IsolatedSource(camera.url, options={"decoding": {"decoder": decoder}}, deadlines=Deadlines(open_s=2.0))
    assert "canarysecret" not in str(caught.value)


@pytest.mark.parametrize("decoder", ["av", "opencv"])
@pytest.mark.parametrize("fault", ["half_open", "stall_mid_frame"])
def test_a_camera_that_stops_in_the_middle_is_given_up_in_time(camera: ChaosCamera, decoder: str, fault: Fault) -> None:
    source = IsolatedSource(
        camera.url, options={"decoding": {"decoder": decoder}}, deadlines=Deadlines(open_s=15.0, stall_s=1.0)
    )
    assert source.read() is not None
    camera.set_fault(fault)
    started = time.monotonic()
    with pytest.raises(SourceError, match="no picture for 1 s"):
        while source.read() is not None:
            pass
    assert time.monotonic() - started < 4.0
    source.close()


@pytest.mark.parametrize("decoder", ["av", "opencv"])
def test_a_camera_that_changes_its_size_goes_on(camera: ChaosCamera, decoder: str) -> None:
    source = IsolatedSource(camera.url, options={"decoding": {"decoder": decoder}}, deadlines=Deadlines(open_s=15.0))
    camera.set_fault("size_change")
    shapes = set()
    for _ in range(15):
        picture = source.read()
        assert picture is not None
        shapes.add(picture[0].shape)
    source.close()
    # PyAV gives each picture in its own size, OpenCV scales to the first one
    assert shapes == ({(180, 320, 3), (144, 256, 3)} if decoder == "av" else {(180, 320, 3)})


def test_the_command_reports_in_json_and_fails_where_a_drill_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = [Verdict("refuse", (3, 4), (), {"others_kept": 1.0}), Verdict("flood", (3, 4), ("a neighbour slept",))]
    monkeypatch.setattr(drills, "run_drills", lambda *_, **__: verdicts)
    app = typer.Typer()
    app.command()(selftest)
    done = CliRunner().invoke(app, ["--chaos", "--fault", "refuse", "--json"])
    assert isinstance(done.exception, EdgeError)
    assert "1 of 2 drills failed: flood" in str(done.exception)
    printed = json.loads(done.stdout)
    assert [(verdict["drill"], verdict["passed"]) for verdict in printed] == [("refuse", True), ("flood", False)]
    refused = CliRunner().invoke(app, ["--chaos", "--fault", "earthquake"])
    assert isinstance(refused.exception, UsageError)


def test_every_fault_is_either_survived_or_noticed() -> None:
    assert set(drills.GOES_ON) | set(drills.DROPS) == set(FAULTS)
    assert Verdict("x", (1,), ()).has_passed


@pytest.fixture(scope="module")
def rtsp() -> Iterator[RtspServer]:
    running = RtspServer()
    yield running
    running.kill()


@pytest.mark.real_server
@pytest.mark.parametrize(
    "fault",
    ["half_open", "corrupt", *(pytest.param(fault, marks=pytest.mark.soak) for fault in ("refuse", "silent", "drip"))],
)
def test_a_bad_network_to_a_real_rtsp_server_is_survived_and_touches_nobody_else(
    rtsp: RtspServer, tmp_path: Path, fault: NetworkFault
) -> None:
    proxy, neighbour = ChaosProxy("127.0.0.1", rtsp.port), ChaosCamera()
    url = f"rtsp://viewer:canarysecret@127.0.0.1:{proxy.port}/cam"
    pipeline = null_pipeline(tmp_path, [url, neighbour.url], stall_timeout_s=1.0, open_timeout_s=8)
    pipeline.start()
    try:
        lane = pipeline.lanes["cam0"]
        wait_for(lambda: min(emitted(pipeline).values()) > 3, 40, "pictures of both")
        before, started = emitted(pipeline), time.monotonic()
        proxy.set_fault(fault)
        time.sleep(1.5)
        if fault != "corrupt":
            wait_for(lambda: lane.counters["reconnects"] > 0, 10, "the fault is noticed")
        kept = (emitted(pipeline)["cam1"] - before["cam1"]) / (10.0 * (time.monotonic() - started))
        proxy.set_fault("none")
        last = lane.counters["emitted"]
        back_s = wait_for(lambda: lane.counters["emitted"] > last + 3, 25, "the camera is back")
        print(f"\n{fault}: neighbour kept {kept:.2f}, back after {back_s:.1f} s")
        assert kept > 0.9
    finally:
        assert pipeline.stop()
        proxy.close()
        neighbour.close()
    assert not any(unaccounted(pipeline).values())


@pytest.mark.real_server
@pytest.mark.parametrize("decoding", [{"transport": "tcp"}, {"transport": "udp"}, {"decoder": "opencv"}])
def test_rtsp_over_tcp_and_udp(rtsp: RtspServer, decoding: dict[str, str]) -> None:
    source = IsolatedSource(rtsp.url, options={"decoding": decoding}, deadlines=Deadlines(open_s=15, stall_s=5))
    for _ in range(10):
        picture = source.read()
        assert picture is not None
        assert picture[0].shape == (240, 320, 3)
    assert ("opencv" if "decoder" in decoding else "PyAV h264") in source.info.decoder
    source.close()
