"""Models on servers: the same objects as here, and nothing but their own model suffers when a server does."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from kserve_server import HOSTILE, DripServer, HostileProcess, KserveServer, good_answer
from model_servers import MlServer, ModelServer, Triton
from server_kills import kill_and_restart
from tiny_models import tiny_model
from watched_pipeline import FALLBACK, FPS, HERE, MAX_AGE_MS, REMOTE, remote_config, watched

import edge
from edge.addresses.secrets import redacted
from edge.cli import run_command
from edge.config.load import parse_config
from edge.config.remote import RemoteSettings
from edge.daemon.credentials import with_secrets
from edge.errors import ConfigError, EngineError, ManifestError, ModelError
from edge.models.shipped import FOLDER
from edge.types import UInt8

MODEL = FOLDER / "street-nano-int8.onnx"
PATIENT = RemoteSettings(timeout_ms=20_000)
SERVED = 0.75


def pictures() -> list[UInt8]:
    """Frames of the built-in street."""
    source = edge.open_source("synthetic://street?seed=5&size=640x360&frames=40")
    with source:
        return [frame.image for frame in source][::8]


@pytest.mark.real_server
@pytest.mark.parametrize(("kind", "way"), [(Triton, "shared memory"), (MlServer, "network")])
def test_what_a_server_finds_is_bit_identical(kind: type[ModelServer], way: str, tmp_path: Path) -> None:
    """Whatever number of pictures is asked for: they are cut into batches as they are here."""
    (tmp_path / "server").mkdir()
    images = pictures()
    with (
        kind(tmp_path / "server", MODEL) as server,
        edge.open_model(MODEL, engine="kserve", url=server.url, remote=PATIENT, max_batch=4) as there,
        edge.open_model(MODEL, engine="ort", threads=1, max_batch=4) as here,
    ):
        assert there.engine.name.endswith(way)
        for count in (1, 4, 5):
            for found, expected in zip(there(images[:count]), here(images[:count]), strict=True):
                assert isinstance(found, edge.Detections)
                assert isinstance(expected, edge.Detections)
                assert len(found) > 0
                for name in ("xyxy", "score", "class_id"):
                    assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.real_server
def test_a_killed_server_is_replaced_and_comes_back(tmp_path: Path) -> None:
    kill_and_restart(tmp_path, 3)


@pytest.mark.real_server
def test_a_server_that_hangs_is_replaced_within_a_second(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    tiny_model(tmp_path / "tiny.onnx")
    with (
        Triton(tmp_path / "server", tmp_path / "tiny.onnx") as server,
        watched(remote_config(tmp_path, server.url)) as seen,
    ):
        seen.wait_for(REMOTE, time.monotonic(), streams=4, limit_s=20)
        stopped_s = time.monotonic()
        server.signal(signal.SIGSTOP)
        assert seen.wait_for(FALLBACK, stopped_s, streams=4, limit_s=2.0) < 1.0
        server.signal(signal.SIGCONT)
        seen.wait_for(REMOTE, time.monotonic(), streams=4, limit_s=5.0)
        assert all(one.age_ms <= MAX_AGE_MS for one in seen.answers)


@pytest.mark.parametrize("kind", [*HOSTILE, "drip", "nobody"])
def test_a_hostile_server_costs_only_its_model(kind: str, tmp_path: Path) -> None:
    """Its cameras get nothing false, and those of another model all that they would get without it."""
    server, drip = HostileProcess(kind), DripServer()
    url = {"drip": drip.url, "nobody": "grpc://127.0.0.1:1/tiny"}.get(kind, server.url)
    config = remote_config(tmp_path, url, cameras=("a", "b"), neighbours=("x", "y"), has_fallback=False, timeout_ms=800)
    with watched(config) as seen:
        seen.wait_for(HERE, time.monotonic(), streams=2, limit_s=20)
        if kind in HOSTILE:
            seen.wait_for(SERVED, time.monotonic(), streams=2, limit_s=20)
        server.say("spoil")
        began_s = time.monotonic() + 0.3
        time.sleep(1.8)
        neighbours = [one for one in seen.since(began_s) if one.score == HERE]
        assert {one.score for one in seen.answers} <= {SERVED, HERE}
        assert max(one.age_ms for one in seen.answers) <= MAX_AGE_MS
        assert len(neighbours) >= 0.85 * 2 * 1.5 * FPS
        assert seen.pipeline is not None
        facts = seen.pipeline.server("there")
        assert facts is not None
        assert facts["state"] == "away"
        server.say("heal")
        if kind in HOSTILE:
            seen.wait_for(SERVED, time.monotonic(), streams=2, limit_s=30)
    server.close()
    drip.close()


def with_url(config: Any, url: str) -> Any:
    there = config.models[0].model_copy(update={"url": url})
    return config.model_copy(update={"models": (there, *config.models[1:])})


def test_who_waits_for_a_server_is_told_so(tmp_path: Path) -> None:
    config = remote_config(tmp_path, "grpc://127.0.0.1:1/tiny", cameras=("a",), has_fallback=False)
    with watched(config) as seen:
        pipeline = seen.pipeline
        assert pipeline is not None
        assert pipeline.not_ready() == "the model's server is away, for a"
        facts = pipeline.server("there")
        assert facts is not None
        assert (facts["state"], facts["runs"]) == ("away", None)
        assert "nobody answers there" in str(facts["reason"])
        time.sleep(1.0)
        # frames that wait for a server are no sign of a stuck pipeline: the watchdog must not bite
        assert not pipeline.progress()["inference"].has_work


def test_a_file_waits_for_its_server_and_loses_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 96))
    for _ in range(60):
        writer.write(np.full((96, 160, 3), 90, np.uint8))
    writer.release()
    config = remote_config(tmp_path, "grpc://127.0.0.1:1/tiny", cameras=("a",), has_fallback=False)
    with KserveServer() as server:
        stream = config.streams[0].model_copy(update={"source": str(path)})
        with watched(with_url(config, server.url).model_copy(update={"streams": (stream,)})) as seen:
            seen.wait_for(SERVED, time.monotonic(), streams=1, limit_s=20)
            server.stop()
            time.sleep(0.5)
            server.start()
            assert seen.pipeline is not None
            assert seen.pipeline.wait(30)
        assert [one.seq for one in seen.answers] == list(range(60))
        assert {one.score for one in seen.answers} == {SERVED}


def test_another_model_than_the_manifest_says_is_refused_before_the_first_frame(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    with KserveServer(side=64) as server, pytest.raises(ManifestError, match=r"\(64, 64, 3\)"):
        edge.open_model(tmp_path / "tiny.onnx", engine="kserve", url=server.url)
    with KserveServer(box_names="rectangles") as server, pytest.raises(ManifestError, match="boxes, scores, labels"):
        edge.open_model(tmp_path / "tiny.onnx", engine="kserve", url=server.url)


def test_only_the_manifest_is_needed_here(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx").unlink()
    with (
        KserveServer() as server,
        edge.open_model(tmp_path / "tiny.onnx", engine="kserve", url=server.url.removesuffix("/tiny")) as model,
    ):
        found = model(np.zeros((32, 32, 3), np.uint8))
    assert isinstance(found, edge.Detections)
    assert found.score.tolist() == [0.75, np.float32(0.7)]


def test_a_token_goes_through_tls_only_and_is_wanted(tmp_path: Path, tls: tuple[Path, Path]) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    good, wrong = tmp_path / "token", tmp_path / "wrong"
    good.write_text("a-token-of-many-letters-1\n")
    wrong.write_text("a-token-of-many-letters-2\n")

    def found(token: Path, ca: Path | None = tls[0]) -> Any:
        remote = RemoteSettings(token_file=token, ca_file=ca)
        with edge.open_model(tmp_path / "tiny.onnx", engine="kserve", url=server.url, remote=remote) as model:
            return model(np.zeros((32, 32, 3), np.uint8))

    with KserveServer(tls=tls, token="a-token-of-many-letters-1") as server:
        assert len(found(good)) == 2
        with pytest.raises(EngineError, match="the token is not accepted"):
            found(wrong)
        with pytest.raises(EngineError, match="nobody answers there"):
            found(good, ca=None)
        with pytest.raises(ModelError, match="ca_file"):
            found(good, ca=tmp_path / "none.pem")


def test_a_batch_that_is_late_is_asked_for_again(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny.onnx")
    num_asked = 0

    def now_and_then(rows: int) -> Any:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 40:
            time.sleep(1.5)
        return good_answer(rows)

    with (
        KserveServer() as server,
        edge.open_model(
            tmp_path / "tiny.onnx", engine="kserve", url=server.url, remote=RemoteSettings(timeout_ms=2000)
        ) as model,
    ):
        server.answer, server.is_spoiled = now_and_then, True
        spent_s = []
        for _ in range(60):
            began_s = time.monotonic()
            model(np.zeros((32, 32, 3), np.uint8))
            spent_s.append(time.monotonic() - began_s)
        assert num_asked == 61
        assert max(spent_s) < 1.0
        assert model.remote is not None
        assert model.remote.state()["hedged"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": None}, "are expected together"),
        ({"engine": "ort"}, "are expected together"),
        ({"url": "http://gpu:8001"}, "url"),
        ({"fallback": "nothing"}, "no model is called 'nothing'"),
        ({"remote": {"token_file": "t"}}, "encrypted"),
        ({"remote": {"timeout_ms": 2000}}, "max_age_ms = 1000 is less than remote.timeout_ms = 2000"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    model = {"path": "tiny.onnx", "engine": "kserve", "url": "grpc://gpu:8001", **change}
    with pytest.raises(ConfigError, match=message):
        parse_config({"model": model, "streams": [{"name": "a", "source": "0"}]}, where="test")


def test_check_and_plan_speak_with_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model(tmp_path / "tiny.onnx")

    def slowly(rows: int) -> Any:
        time.sleep(0.02)
        return good_answer(rows)

    with KserveServer() as server:
        server.answer, server.is_spoiled = slowly, True
        source = "synthetic://street?seed=1&size=160x96&objects=1&live=1"
        (tmp_path / "edge.toml").write_text(
            f'[model]\nname = "there"\npath = "{tmp_path}/tiny.onnx"\nengine = "kserve"\nurl = "{server.url}"\n'
            f'[[streams]]\nname = "a"\nsource = "{source}"\nsize = [160, 96]\n'
        )
        assert run_command(["check", str(tmp_path / "edge.toml")]) == 0
        capsys.readouterr()
        assert run_command(["bench", str(tmp_path / "edge.toml"), "--plan", "--seconds", "1", "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert 0 < plan["busy"]["server of there"] <= 1
        assert plan["servers"]["server of there"]["30 fps"] > 0
    assert run_command(["check", str(tmp_path / "edge.toml"), "--json"]) == 2
    assert "nobody answers there" in capsys.readouterr().out


def test_the_token_of_a_server_may_be_short(tmp_path: Path) -> None:
    """Those that open our own page may not."""
    (tmp_path / "token").write_text("s3cr3t\n")
    remote = {"token_file": str(tmp_path / "token")}
    model = {"path": "tiny.onnx", "engine": "kserve", "url": "grpcs://gpu:8001", "remote": remote}
    with_secrets(parse_config({"model": model, "streams": [{"name": "a", "source": "0"}]}, where="test"))
    assert "s3cr3t" not in redacted("the server said: Bearer s3cr3t")


def test_a_fallback_of_other_classes_is_refused(tmp_path: Path) -> None:
    config = remote_config(tmp_path, "grpc://127.0.0.1:1/tiny", cameras=("a",))
    tiny_model(tmp_path / "instead.onnx", classes=("person", "dog"))
    with pytest.raises(ConfigError, match="fallback 'instead' finds other classes"):
        edge.Pipeline(config)
