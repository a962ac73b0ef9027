"""Several workers behind one daemon: one page, one outbox, one configuration; a lost worker costs its own streams."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import COMMAND, SCENE, Daemon, config_of, daemon, with_tokens
from tiny_models import tiny_model

from edge.recording.index import RecordingIndex

NAMES = ("a", "b", "c")
ZONE = "[[streams.analytics.zones]]\nname = 'all'\npoints_share = [[0, 0], [1, 0], [1, 1], [0, 1]]\n"
QUICK_SWAP = "[swap]\nshadow_frames = 3\nprobation_s = 0.2\nmax_slowdown = 1000\n"
# a worker loads Python, its libraries and its models; other work may have the processor
BACK_S = 60.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


def streams(folder: Path, names: tuple[str, ...] = NAMES, source: str = SCENE) -> str:
    tables = [
        f'[[streams]]\nname = "{name}"\nsource = "{source}"\nsinks = ["jsonl:{folder}/{{stream}}.jsonl"]\n{ZONE}'
        for name in names
    ]
    return "".join(tables) + f'[streams.record]\nfolder = "{folder}/recordings"\nsegment_s = 2\n'


def configuration(folder: Path, model: Path, *, workers: str = "count = 2\nspare = false", more: str = "") -> str:
    server = with_tokens(folder, "can_reload = true\ncan_swap = true\n")
    first = f'state_dir = "{folder}/state"\n[workers]\n{workers}\n[events]\nsnapshots = "{folder}/snapshots"\n'
    return config_of(model, streams(folder), server, f"{first}{QUICK_SWAP}{more}")


def stats(running: Daemon) -> Any:
    with running.client() as client:
        return client.get("/api/stats").json()


def wait_for_results(running: Daemon, names: tuple[str, ...] = NAMES) -> None:
    def all_come() -> bool:
        found = stats(running)["streams"]
        return all(found.get(name, {}).get("fps_out", 0) > 0 for name in names)

    running.until(all_come, BACK_S)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("served")
    with daemon(folder, configuration(folder, model)) as running:
        running.wait_for("READY=1", BACK_S)
        wait_for_results(running)
        yield running
        assert running.stop() == 0, running.text
        assert "Traceback" not in running.text, running.text


def test_streams_are_dealt_and_each_is_there_once(served: Daemon) -> None:
    found = stats(served)
    assert list(found["streams"]) == list(NAMES)
    dealt = [worker["streams"] for worker in found["workers"]]
    assert sorted(name for names in dealt for name in names) == list(NAMES)
    assert sorted(map(len, dealt)) == [1, 2]
    assert len({worker["pid"] for worker in found["workers"]} | {served.process.pid}) == 3


def test_one_page_shows_the_pictures_of_all_workers(served: Daemon) -> None:
    with served.client() as client:
        assert [card["name"] for card in client.get("/api/streams").json()["streams"]] == list(NAMES)
        for name in NAMES:
            answer = client.get(f"/snapshot/{name}.jpg")
            assert answer.status_code == 200 and answer.content[:2] == b"\xff\xd8"
            assert answer.headers["x-is-new"] == "1"
        with client.stream("GET", "/stream/b.mjpeg") as pictures:
            text = b""
            for part in pictures.iter_bytes():
                text += part
                if text.count(b"--edgeloopframe") >= 4:
                    break
        with client.stream("GET", "/api/results/c") as lines:
            line = next(text for text in lines.iter_lines() if text.startswith("data: "))
        assert json.loads(line[6:])["stream"] == "c"
        assert client.get("/heatmap/a.png").status_code == 404
        assert client.get("/readyz").text == "ready\n"


def test_nothing_of_a_frame_goes_to_the_page_while_nobody_watches(served: Daemon) -> None:
    # statistics are kept for half a second
    time.sleep(1.0)
    served.until(lambda: all(not one["viewers"] for one in stats(served)["live"].values()))
    before, start = stats(served), time.monotonic()
    served.until(lambda: time.monotonic() - start > 1.5)
    after = stats(served)
    assert after["live"]["a"]["published"] == before["live"]["a"]["published"]
    assert after["streams"]["a"]["counts"]["emitted"] > before["streams"]["a"]["counts"]["emitted"]


def test_one_endpoint_has_the_metrics_of_all_workers(served: Daemon) -> None:
    with served.client() as client:
        text = client.get("/metrics").text
    for name in NAMES:
        assert f'edgeloop_stream_up{{stream="{name}"}} 1.0' in text
    for number in (1, 2):
        assert f'edgeloop_worker_up{{worker="{number}"}} 1.0' in text


def test_one_outbox_and_one_archive_have_what_all_workers_saw(served: Daemon) -> None:
    with served.client() as client:
        served.until(lambda: {event["stream"] for event in client.get("/api/history").json()} == set(NAMES))
        events = client.get("/api/history").json()
        assert len({event["id"] for event in events}) == len(events)
        # of a frame that came too late there is none
        pictures = [event["links"]["snapshot"] for event in events if "snapshot" in event["links"]]
        picture = client.get("/" + pictures[0])
        assert picture.status_code == 200 and picture.content[:2] == b"\xff\xd8"
        assert client.get("/api/events/a").json()[0]["kind"] == "zone_entered"
        served.until(lambda: bool(client.get("/api/recordings").json()["recordings"]))
        found = client.get("/api/recordings").json()["recordings"][0]
        assert found["stream"] == "c"
        assert client.get("/" + found["url"]).headers["content-type"] == "video/mp4"


def test_a_swap_changes_the_model_in_all_workers(served: Daemon, model: Path) -> None:
    tiny_model(model.with_name("other.onnx"), scores=(0.95, 0.85))
    with served.client() as client:
        assert client.post("/api/models/model/swap", json={"path": "other.onnx"}).status_code == 202
        served.until(lambda: client.get("/api/models/model/swap").json()["report"] is not None, BACK_S)
        report = client.get("/api/models/model/swap").json()["report"]
        assert report["outcome"] == "kept", report
        assert client.get("/api/models").json()["model"]["file"] == "other.onnx"
    assert not any(worker["restarts"] for worker in stats(served)["workers"])


def test_a_reload_adds_and_removes_streams_and_leaves_the_others_alone(served: Daemon) -> None:
    path = Path(str(served.process.args[-1]))  # type: ignore[index]
    before = stats(served)
    text = path.read_text(encoding="utf-8")
    # one is gone, one is new, one gets another zone, which is no reason to begin it again
    text = text.replace('name = "b"', 'name = "d"').replace("name = 'all'", "name = 'everywhere'", 1)
    path.write_text(text, encoding="utf-8")
    with served.client() as client:
        assert client.post("/api/reload").status_code == 202
    served.until(lambda: set(stats(served)["streams"]) == {"a", "c", "d"}, BACK_S)
    wait_for_results(served, ("a", "c", "d"))
    after = stats(served)
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
    assert after["streams"]["a"]["counts"]["captured"] > before["streams"]["a"]["counts"]["captured"]
    assert "stream a was given other lines and zones" in after["config"]["last_reload"]["applied"]
    with served.client() as client:
        assert client.get("/snapshot/d.jpg").status_code == 200
        # the page is brought up to date once a second
        served.until(lambda: client.get("/snapshot/b.jpg").status_code == 404)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines so far; the one that a killed worker was writing may be cut."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def kept_events(folder: Path) -> list[tuple[str, str]]:
    """Id and stream of every event in the outbox."""
    with sqlite3.connect(folder / "state" / "events.db") as outbox:
        return list(outbox.execute("SELECT id, stream FROM events"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_costs_only_its_streams(number: signal.Signals, tmp_path: Path, model: Path) -> None:
    with daemon(tmp_path, configuration(tmp_path, model, workers="count = 2")) as running:
        running.wait_for("READY=1", BACK_S)
        wait_for_results(running)
        hit, other = stats(running)["workers"]
        begun = {name: len(lines_of(tmp_path / f"{name}.jsonl")) for name in NAMES}
        os.kill(hit["pid"], number)
        running.until(lambda: "takes over" in running.text, BACK_S)
        with running.client() as client:
            assert client.get("/readyz").status_code in (200, 503)
        running.until(lambda: stats(running)["workers"][0]["restarts"] == 1, BACK_S)
        wait_for_results(running)
        now = stats(running)["workers"]
        assert now[1]["pid"] == other["pid"] and now[0]["pid"] != hit["pid"]
        running.until(lambda: all(len(lines_of(tmp_path / f"{name}.jsonl")) > begun[name] + 5 for name in NAMES))
        # what went on elsewhere has no gap, and what was written before is still there
        for name in other["streams"]:
            numbers = [line["seq"] for line in lines_of(tmp_path / f"{name}.jsonl")]
            assert numbers == sorted(set(numbers))
        for name in hit["streams"]:
            assert [line["seq"] for line in lines_of(tmp_path / f"{name}.jsonl")].count(0) <= 2
        with running.client() as client:
            assert client.get(f"/snapshot/{hit['streams'][0]}.jpg").headers["x-is-new"] == "1"
        assert running.stop() == 0, running.text
    kept = kept_events(tmp_path)
    assert len(kept) == len({row[0] for row in kept})
    for name in other["streams"]:
        told = sum(len(line["events"]) for line in lines_of(tmp_path / f"{name}.jsonl"))
        assert [row[1] for row in kept].count(name) == told


# the null engine of the worker that finds the file first fails as CUDA does when a kernel has overrun its memory
STICKY = """
import os
from edge.engines.cuda.errors import gpu_error
from edge.engines.null import NullEngine
plain = NullEngine.infer
def infer(self, tensor):
    try:
        os.unlink(os.environ["EDGE_TEST_STICKY"])
        self.is_broken = True
    except FileNotFoundError:
        pass
    if getattr(self, "is_broken", False):
        raise gpu_error("infer", "CUDA error 700: an illegal memory access was encountered")
    return plain(self, tensor)
NullEngine.infer = infer
"""


def test_recordings_go_on_while_another_worker_loads_the_model_of_a_lost_gpu(tmp_path: Path, model: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STICKY)
    record = f'[streams.record]\nfolder = "{tmp_path}/recordings"\nsegment_s = 2\n'
    tables = "".join(f'[[streams]]\nname = "{name}"\nsource = "{SCENE}"\n{record}' for name in NAMES)
    text = config_of(model, tables, more="[workers]\ncount = 2\nspare = false\n")
    environment = {"PYTHONPATH": str(tmp_path), "EDGE_TEST_STICKY": str(tmp_path / "break")}
    with daemon(tmp_path, text.replace("threads = 1", 'threads = 1\nengine = "null"'), env=environment) as running:
        running.wait_for("READY=1", BACK_S)
        wait_for_results(running)
        (tmp_path / "break").touch()
        running.until(lambda: "it failed: " in running.text, BACK_S)
        running.until(lambda: "has taken over" in running.text, BACK_S)
        taken_s = time.time()
        running.until(lambda: sum(worker["restarts"] for worker in stats(running)["workers"]) == 1)
        wait_for_results(running)
        (hit,) = [worker for worker in stats(running)["workers"] if worker["restarts"]]
        time.sleep(2.5)
        assert running.stop() == 0, running.text
    for name in hit["streams"]:
        # until the next worker was there, a moment ago for it to end what it was writing
        assert recorded_until_s(tmp_path / "recordings" / name, taken_s) > taken_s - 2.5, running.text


def recorded_until_s(folder: Path, moment_s: float) -> float:
    """The end of the last file that was begun before a moment."""
    index = RecordingIndex(folder)
    index.load()
    return max(entry.end_ns for entry in index.entries if entry.start_ns < moment_s * 1e9) / 1e9


def test_streams_of_a_worker_that_stays_away_are_moved(tmp_path: Path, model: Path) -> None:
    """The model file is gone, so no new process can load it; the other worker has it."""
    own = tiny_model(tmp_path / "own.onnx")
    with daemon(tmp_path, configuration(tmp_path, own)) as running:
        running.wait_for("READY=1", BACK_S)
        wait_for_results(running)
        own.unlink()
        lost = stats(running)["workers"][0]
        os.kill(lost["pid"], signal.SIGKILL)
        running.until(lambda: "moved from worker 1 to worker 2" in running.text, 2 * BACK_S)
        wait_for_results(running)
        assert sorted(stats(running)["workers"][1]["streams"]) == list(NAMES)
        assert running.stop() == 0, running.text


def test_workers_end_when_the_daemon_is_killed(tmp_path: Path, model: Path) -> None:
    with daemon(tmp_path, configuration(tmp_path, model)) as running:
        running.wait_for("READY=1", BACK_S)
        pids = [worker["pid"] for worker in stats(running)["workers"]]
        running.process.kill()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_files_give_the_same_lines_as_in_a_single_process(tmp_path: Path, model: Path) -> None:
    found = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        scene = SCENE.replace("&live=1", "&frames=40")
        text = f'[workers]\ncount = {count}\n[model]\npath = "{model}"\nthreads = 1\n{streams(folder, source=scene)}'
        (folder / "edge.toml").write_text(text)
        done = subprocess.run(
            [*COMMAND, "run", str(folder / "edge.toml")], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "120 frames" in done.stderr
        found[count] = {
            name: [{**line, "captured": "", "age_ms": 0} for line in lines_of(folder / f"{name}.jsonl")]
            for name in NAMES
        }
    assert found[1] == found[2]
    assert all(len(lines) == 40 for lines in found[2].values())


REFUSED = {
    "count = 4": "workers.count: 4 workers for 3 streams",
    "count = 0": "workers.count",
    "count = [{device = 0}, {device = 1}]\nspare = true": "workers.spare: one process can stand by for workers that",
}


@pytest.mark.parametrize("workers", REFUSED)
def test_what_several_workers_cannot_do_is_refused_in_a_sentence(workers: str, tmp_path: Path, model: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(configuration(tmp_path, model, workers=workers))
    done = subprocess.run([*COMMAND, "check", str(path)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert REFUSED[workers] in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_number_of_frames_is_for_a_single_process(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(configuration(tmp_path, model))
    command = [*COMMAND, "run", str(path), "--frames", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "--frames counts in a single process" in done.stderr
