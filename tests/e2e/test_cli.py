"""The command as a person meets it: exit codes, one-line errors, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import COMMANDS, GROUPS
from edge.models.shipped import demo_model

MODEL = str(demo_model())
SCENE = "synthetic://street?seed=11&fps=30&size=640x360&objects=8&frames=20"


def edge(*arguments: str, timeout_s: float = 90, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from edge.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, check=False)


def test_help_has_a_line_for_every_command_and_no_more() -> None:
    done = edge("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"│ {name} " in done.stdout
    assert len(done.stdout.splitlines()) <= len(COMMANDS) + 2 * len(GROUPS) + 15


def test_a_run_gives_one_line_per_frame_in_order_and_a_summary(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    done = edge("run", "--source", SCENE, "--model", MODEL, "--sink", f"jsonl:{out}", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(20))
    assert list(lines[0]) == ["stream", "epoch", "seq", "captured", "age_ms", "width", "height", "objects", "events"]
    assert json.loads(done.stdout)["frames"] == 20
    assert any(thing["track_id"] for line in lines for thing in line["objects"])


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["run", "--source", "nowhere.mp4", "--model", MODEL], 1, "nowhere.mp4: no such file; expected a video"),
        (["run", "--source", __file__, "--model", MODEL], 1, "is it a video"),
        (["run", "--source", SCENE, "--model", "nowhere.onnx"], 1, "nowhere.onnx: no such model file"),
        (["run", "--source", SCENE], 2, "--source needs --model"),
        (["run"], 2, "expected either a configuration file or --source"),
        (
            ["run", "--source", SCENE, "--model", MODEL, "--sink", "ftp:x"],
            2,
            "'ftp' is no sink; expected one of jsonl:FILE",
        ),
        (["run", "--source", SCENE, "--model", MODEL, "--engine", "warp"], 2, "engine = 'warp'"),
        (["run", "--source", SCENE, "--model", MODEL, "--track", "psychic"], 2, "track.method = 'psychic'"),
        (["run", "--source", "synthetic://street?sed=1", "--model", MODEL], 1, "sed"),
        (["run", "--source", "gst:videotestsrc ! appsink", "--model", MODEL, "--frames", "1"], 3, "GStreamer"),
        (["run", "nowhere.toml"], 2, "nowhere.toml: cannot be read"),
        (["inspect", "nowhere.onnx"], 1, "nowhere.onnx: no such model file"),
        (["probe", "nowhere.mp4"], 1, "nowhere.mp4: no such file"),
        (["run", "--no-such-option"], 2, "No such option"),
        (["fly"], 2, "No such command 'fly'"),
        (["quantise"], 2, "did you mean: edge quantize"),
        (["detect"], 2, "did you mean: edge run"),
        (["eval", "m.onnx", "--data", "x", "--backend", "ort"], 2, "--backend is called --engine now"),
        (["run", "--source", SCENE, "--model", MODEL, "--line", "gate"], 2, "--line gate: expected NAME=x1,y1,x2,y2"),
        (["run", "edge.toml", "--line", "gate=0,0,1,1"], 2, "--line and --zone go with --source"),
        (["run", "--source", SCENE, "--model", MODEL, "--line", "gate=0,1,1,1"], 2, "gate"),
    ],
)
def test_a_mistake_ends_with_one_line_and_its_exit_code(
    arguments: list[str], code: int, expected: str, tmp_path: Path
) -> None:
    done = edge(*arguments, cwd=tmp_path)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_the_version_and_the_completion_are_there() -> None:
    assert edge("--version").stdout.startswith("edge 0.1.0, Python 3.")
    asked = {**os.environ, "_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": "edge qu", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "from edge.cli import main; main()"]
    assert subprocess.run(command, env=asked, capture_output=True, text=True, check=False).stdout.split() == [
        "quantize"
    ]


@pytest.mark.parametrize("count", [1, 13])
def test_frames_is_exact_and_the_end_tells_tracks_lines_zones_and_files(tmp_path: Path, count: int) -> None:
    arguments = ["run", "--source", SCENE, "--model", MODEL, "--frames", str(count)]
    drawn = ["--line", "gate=0.5,0.1,0.5,0.9", "--zone", "all=0.01,0.01,0.99,0.01,0.99,0.99,0.01,0.99"]
    sinks = ["--sink", f"jsonl:{tmp_path}/o.jsonl", "--sink", f"mp4:{tmp_path}/o.mp4"]
    told = json.loads(edge(*arguments, *drawn, *sinks, "--json").stdout)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert told["frames"] == len(lines) == count
    assert told["dropped"] == 0
    ids = {thing["track_id"] for line in lines for thing in line["objects"]} - {None}
    assert told["tracks"] == len(ids)
    events = [event for line in lines for event in line["events"]]
    (stream,) = told["counts"].values()
    entered = [event for event in events if event["kind"] == "zone_entered"]
    assert stream["zones"]["all"]["entered"] == len(entered)
    assert list(stream["lines"]) == ["gate"]
    assert {file["path"]: file["bytes"] for file in told["files"]} == {
        str(path): path.stat().st_size for path in tmp_path.iterdir()
    }


def test_counting_needs_no_file_and_the_closing_lines_are_for_people() -> None:
    done = edge("run", "--source", SCENE, "--model", MODEL, "--zone", "all=0.01,0.01,0.99,0.01,0.99,0.99,0.01,0.99")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    closing = [line for line in done.stderr.splitlines() if line.startswith(("20 frames", "zone all: "))]
    assert len(closing) == 2, done.stderr
    assert "tracked objects (" in done.stderr


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = edge(
            "run", "--source", SCENE, "--model", MODEL, "--sink", f"http:{port}", "--sink", f"jsonl:{tmp_path}/o"
        )
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text(f'[model]\npath = "{MODEL}"\nmax_bach = 2\n[[streams]]\nname = "a"\nsource = "{SCENE}"\n')
    done = edge("run", str(config))
    assert done.returncode == 2
    assert "edge.toml, line 3: unknown key 'model.max_bach'; did you mean 'model.max_batch'?" in done.stderr


def test_check_tries_everything_and_prints_a_table(tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text(
        f'[model]\npath = "{MODEL}"\n[[streams]]\nname = "good"\nsource = "{SCENE}"\n'
        '[[streams]]\nname = "bad"\nsource = "nowhere.mp4"\n'
    )
    done = edge("check", str(config), "--json")
    assert {row["name"]: row["result"] for row in json.loads(done.stdout)} == {
        "model": "ok",
        "good": "ok",
        "bad": "failed",
        "plan": "ok",
    }
    assert done.returncode == 2
    assert json.loads(edge("check", "--schema").stdout)["title"] == "Config"


def test_a_demo_ends_by_itself_with_a_summary() -> None:
    done = edge("demo", "--frames", "30", "--port", "0")
    assert done.returncode == 0, done.stderr
    assert "live page: http://127.0.0.1:" in done.stderr
    assert done.stdout.startswith("30 frames in ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_cleanly_and_the_recording_opens(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "o.mp4"
    source = "synthetic://street?seed=1&size=320x180&live=1"
    command = [sys.executable, "-c", "from edge.cli import main; main()", "run", "--source", source, "--model", MODEL]
    process = subprocess.Popen(
        [*command, "--sink", f"mp4:{out}", "--sink", "jsonl:-"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(10):
        assert process.stdout.readline().startswith('{"stream":')
    process.send_signal(number)
    process.stdout.read()
    assert process.wait(20) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]
    import av

    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 10


def test_systemd_is_told_when_ready_alive_and_stopping(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(10)
        command = [
            sys.executable,
            "-c",
            "from edge.cli import main; main()",
            "run",
            "--source",
            SCENE,
            "--model",
            MODEL,
        ]
        subprocess.run(
            [*command, "--sink", f"jsonl:{tmp_path}/o"],
            env={**os.environ, "NOTIFY_SOCKET": address},
            check=True,
            timeout=60,
        )
        messages = [receiver.recv(100).decode()]
        while messages[-1] != "STOPPING=1":
            messages.append(receiver.recv(100).decode())
    assert messages[0] == "READY=1"
    assert "WATCHDOG=1" in messages


def test_a_run_within_a_program_gives_its_signals_back(tmp_path: Path) -> None:
    from here import run_here

    before = signal.getsignal(signal.SIGINT)
    arguments = ["--quiet", "run", "--source", SCENE, "--model", MODEL, "--sink", f"jsonl:{tmp_path}/o"]
    assert run_here(arguments) == 0
    assert signal.getsignal(signal.SIGINT) is before
