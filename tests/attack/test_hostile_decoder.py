"""A decoder process that a stream has taken over ends its own attempt, whatever it sends, and nothing else."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import tiny_model
from waiting import wait_until as until

from edge.config.load import parse_config
from edge.errors import MissingError, SourceError
from edge.pipeline import Pipeline
from edge.sources.isolation import process
from edge.sources.isolation.ring import sealed_memory
from edge.sources.isolation.source import IsolatedSource
from edge.sources.prepared import PreparedSource
from edge.threads.python_process import python_command
from edge.video.packets import PacketQueue

HEIGHT, WIDTH, SLOTS = 24, 32, 7
RING_BYTES = HEIGHT * WIDTH * 3 * SLOTS
PACKET_BYTES = 1 << 16
INFO = {"width": WIDTH, "height": HEIGHT, "fps": 25.0, "is_live": True, "num_frames": None, "decoder": "PyAV h264"}
OPENED = {"kind": "opened", "info": INFO}
FORM_OF_RING = {"format": "bgr", "height": HEIGHT, "width": WIDTH, "matrix": "bt601", "is_full": False}
RING = {"kind": "ring", "generation": 1, **FORM_OF_RING, "num_slots": SLOTS}
FRAME = {"kind": "frame", "slot": 0, "captured_ns": 1, "pts_ns": None, "drops": {}, "changes": []}
ILL = {"changes": [["camera_frozen", {"seconds": 3.0}], ["camera_recovered", {"from": "frozen", "seconds": 1.0}]]}
SOUND = {"codec": "opus", "header": "00000018"}
FORM = {"codec": "h264", "width": WIDTH, "height": HEIGHT, "header": "00000001", "sound": SOUND}
PACKETS = {"kind": "packets", "form": FORM, "bytes": PACKET_BYTES}
PACKET = {"kind": "packet", "at": 0, "size": 100, "facts": [0, 0, True, 1, 1, 0, 0, False]}
GROUP = {"kind": "group", "packets": [PACKET, PACKET | {"at": 100}]}
WHOLE: list[dict[str, Any]] = [
    *(OPENED, PACKETS, RING, FRAME | {"packets": [PACKET]}, PACKET, GROUP),
    FRAME | ILL | {"drops": {"drop_ring_full": 2}},
    *({"kind": "alive"}, FRAME | {"slot": 6, "captured_ns": 2}, {"kind": "error", "text": "it broke"}),
]
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        7,
        999,
        1 << 31,
        1 << 62,
        1 << 70,
        -(1 << 70),
        1e308,
        -0.5,
        "",
        "a",
        "\x1b[2J\n",
        "x" * 3000,
    ),
    *([], [[]], {}, {"a": {}}, [1] * 500),
)
TRUNCATED = json.dumps(FRAME).encode()[:-3]
DEEP = b'{"kind":' + b"[" * 20_000 + b"]" * 20_000 + b"}"


def memory(kind: str) -> int:
    """What may come next to a message, as an open file."""
    if kind == "sealed":
        return sealed_memory("t", RING_BYTES + PACKET_BYTES + 4096)
    if kind == "small":
        return sealed_memory("t", 100)
    if kind == "pipe":
        reading, writing = os.pipe()
        os.close(writing)
        return reading
    fd = os.memfd_create("t", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, RING_BYTES + PACKET_BYTES + 4096)
    if kind == "read-only":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | 0x10)
    return fd


class Taken:
    """A decoder process that was taken over, as its parent knows it; its messages wait in the socket already."""

    pid = 0
    num_openings = 1
    fence = None

    def __init__(self, messages: list[tuple[bytes, list[str]]]) -> None:
        self.channel, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(0.1)
        for data, files in messages:
            fds = [memory(kind) for kind in files]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            self._theirs.sendmsg([data], rights)
            for fd in fds:
                os.close(fd)
        self._theirs.shutdown(socket.SHUT_WR)

    def take(self) -> Taken:
        return self

    def keep(self, child: Any) -> None:
        child.channel.close()
        self._theirs.close()

    def kill(self) -> None:
        self._theirs.close()

    def death(self) -> str:
        return "it has ended"


def listen(messages: list[tuple[bytes, list[str]]]) -> int:
    """Hear all that a decoder says, and look at its pictures; how many came."""
    num_pictures = 0
    with contextlib.suppress(SourceError, MissingError):
        source = IsolatedSource("rtsp://camera/", spare=Taken(messages), packets=PacketQueue())  # type: ignore[arg-type]
        try:
            while (picture := source.read()) is not None:
                assert picture[0].sum() == 0
                num_pictures += 1
                source.take_changes(), source.take_drops()
        finally:
            source.close()
    return num_pictures


def coded(messages: list[dict[str, Any]]) -> list[tuple[bytes, list[str]]]:
    files = {"ring": ["sealed"], "packets": ["sealed"]}
    return [(json.dumps(message).encode(), files.get(message["kind"], [])) for message in messages]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(rng: random.Random) -> list[tuple[bytes, list[str]]]:
    """What a decoder says, with one message made wrong."""
    found = coded(json.loads(json.dumps(WHOLE)))
    index = rng.randrange(len(found))
    data, files = found[index]
    match rng.randrange(6):
        case 0:
            raw = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            data = bytes(raw)
        case 1:
            data = rng.choice((b"\xff", b"{}", b"[]", b"null", TRUNCATED, DEEP, data[: rng.randrange(1, len(data))]))
        case 2:
            files = rng.choice((["open"], ["small"], ["pipe"], ["read-only"], ["sealed", "sealed"], []))
        case 3:
            found.insert(index, found[rng.randrange(len(found))])
        case _:
            message = json.loads(data)
            *way, last = rng.choice([place for place in places(message) if place])
            inner = message
            for key in way:
                inner = inner[key]
            if rng.random() < 0.3 and isinstance(inner, dict):
                del inner[last]
            else:
                inner[last] = rng.choice(ODD)
            data = json.dumps(message).encode()
    found[index] = (data, files)
    return found


def num_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 1e6


def test_what_a_decoder_may_say_is_heard() -> None:
    assert listen(coded(WHOLE)) == 3


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_mutated_messages_leave_memory_and_files_flat(count: int) -> None:
    rng = random.Random(24)
    for _ in range(200):
        listen(mutated(rng))
    files, before_mb, num_pictures = num_files(), resident_mb(), 0
    for _ in range(count):
        num_pictures += listen(mutated(rng))
    grown_mb = resident_mb() - before_mb
    print(f"{count} mutated messages: {grown_mb:+.1f} MB, {num_files()} open files as before, {num_pictures} pictures")
    assert num_files() == files
    assert grown_mb < 8
    assert num_pictures > count / 2, "most of what came before the wrong message is heard"


@pytest.mark.parametrize(
    "message",
    [
        *(b"no json", b"[]", b'{"kind":"frame"}', DEEP, b"\xff\xfe", b"{" * 60_000),
        *(json.dumps(FRAME | {"slot": slot}).encode() for slot in (-1, 7, 63, 999, "a", None, 1e9, 1 << 70)),
        *(json.dumps(FRAME | {"captured_ns": time_ns}).encode() for time_ns in (-1, 1 << 59, "now", 1.5)),
        *(json.dumps(FRAME | {"drops": drops}).encode() for drops in ({"drop_x": 1}, {"drop_max_fps": -1}, [])),
        *(json.dumps(FRAME | {"changes": changes}).encode() for changes in ([1], [["camera_recovered", {}]], "x")),
        *(json.dumps(RING | {"height": size}).encode() for size in (0, -5, 1 << 40, 30_000)),
        b'{"kind":"fence"}',
        json.dumps(PACKET | {"size": PACKET_BYTES + 1}).encode(),
    ],
)
def test_a_wrong_message_ends_the_attempt_with_a_sentence(message: bytes) -> None:
    said = [*coded([OPENED, PACKETS, RING, FRAME | {"captured_ns": 5}]), (message, ["sealed"])]
    source = IsolatedSource("rtsp://camera/", spare=Taken(said), packets=PacketQueue())  # type: ignore[arg-type]
    files = num_files()
    assert source.read() is not None
    with pytest.raises(
        SourceError, match=r"rtsp://camera/: the decoder process sent .+; it was ended|picture of another"
    ):
        source.read()
    source.close()
    assert num_files() <= files


@pytest.mark.parametrize("kind", ["open", "small", "pipe"])
@pytest.mark.parametrize("message", [RING, PACKETS])
def test_memory_that_could_shrink_is_never_mapped(message: dict[str, Any], kind: str) -> None:
    """A picture in memory that was cut off would end the whole daemon by SIGBUS."""
    said = [*coded([OPENED]), (json.dumps(message).encode(), [kind]), *coded([FRAME])]
    source = IsolatedSource("rtsp://camera/", spare=Taken(said), packets=PacketQueue())  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="shared memory"):
        source.read()
    source.close()


def test_files_that_no_message_asks_for_are_closed() -> None:
    files = num_files()
    said = [
        *coded([OPENED]),
        *((b'{"kind":"alive"}', ["sealed", "pipe"]) for _ in range(200)),
        *coded([{"kind": "end"}]),
    ]
    assert listen(said) == 0
    assert num_files() == files


def test_texts_of_a_decoder_move_no_cursor_and_begin_no_line() -> None:
    said = coded([{"kind": "error", "text": "gone\n2026 door: all is well\x1b[2J"}])
    with pytest.raises(SourceError) as caught:
        IsolatedSource("rtsp://camera/", spare=Taken(said))  # type: ignore[arg-type]
    assert str(caught.value) == "gone 2026 door: all is well [2J"


# real processes

EVIL = """
import json, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
channel.recv(65536)
for text in json.loads(sys.argv[3]):
    channel.send(text.encode())
while len(sys.argv) > 4:
    channel.send(b'{"kind":"alive"}')
time.sleep(30)
"""


def evil(texts: list[str], *, floods: bool = False) -> Callable[..., list[str]]:
    more = ["flood"] if floods else []
    return lambda module, fd, parent: [sys.executable, "-c", EVIL, fd, parent, json.dumps(texts), *more]


@pytest.fixture
def two_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pipeline]]:
    """A pipeline of two cameras in processes of their own, the second of which is taken over."""
    running: list[Pipeline] = []

    def start(command: Callable[..., list[str]]) -> Pipeline:
        is_first = threading.Lock()

        def chosen(*arguments: str) -> list[str]:
            return python_command(*arguments) if is_first.acquire(blocking=False) else command(*arguments)

        monkeypatch.setattr(process, "python_command", chosen)
        camera = {"source": "synthetic://street?seed=1&size=160x96&fps=20&objects=2&live=1", "isolation": "process"}
        streams = [{"name": name, "retry_base_s": 0.05, "retry_cap_s": 0.2, **camera} for name in ("good", "evil")]
        model = {"path": str(tiny_model(tmp_path / "m.onnx")), "engine": "ort", "threads": 1}
        pipeline = Pipeline(parse_config({"model": model, "streams": streams[:1]}, where="test"))
        pipeline.start()
        running.append(pipeline)
        until(lambda: emitted(pipeline, "good") > 5)
        pipeline.add_stream(parse_config({"model": model, "streams": streams}, where="test").streams[1])
        return pipeline

    yield start
    monkeypatch.undo()
    for pipeline in running:
        assert pipeline.stop()


def emitted(pipeline: Pipeline, name: str) -> int:
    return pipeline.streams[name].metrics.counters.snapshot().get("emitted", 0)


def attempts(pipeline: Pipeline) -> int:
    return pipeline.streams["evil"].metrics.counters.snapshot().get("reconnects", 0)


def assert_the_other_goes_on(pipeline: Pipeline, seconds: float = 2.0) -> None:
    before = emitted(pipeline, "good")
    time.sleep(seconds)
    # 20 a second; the machine of the tests is shared
    assert emitted(pipeline, "good") - before > 10 * seconds
    assert pipeline.failures() == []


@pytest.mark.parametrize(
    "texts", [["no json"], [json.dumps(OPENED), json.dumps(FRAME)], [json.dumps(OPENED), json.dumps(RING)]]
)
def test_a_decoder_that_is_taken_over_is_replaced_and_disturbs_nobody(
    texts: list[str], two_cameras: Callable[..., Pipeline]
) -> None:
    pipeline = two_cameras(evil(texts))
    until(lambda: attempts(pipeline) > 3)
    assert_the_other_goes_on(pipeline)


def test_a_decoder_that_floods_is_ended(two_cameras: Callable[..., Pipeline]) -> None:
    pipeline = two_cameras(evil([json.dumps(OPENED)], floods=True))
    until(lambda: "messages within" in pipeline.streams["evil"].status.reason)
    assert_the_other_goes_on(pipeline)


@pytest.mark.parametrize(("limit", "bound"), [(resource.RLIMIT_NOFILE, 8), (resource.RLIMIT_NPROC, 1)])
def test_no_file_and_no_process_to_be_had_costs_attempts_only(
    limit: int, bound: int, two_cameras: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = two_cameras(python_command)
    until(lambda: emitted(pipeline, "evil") > 5)
    before, children = resource.getrlimit(limit), [child.pid for child in psutil.Process().children()]
    if limit == resource.RLIMIT_NPROC and os.getuid() == 0:
        # root may always have more: the kernel's answer is given here instead
        def refuse(*_: Any, **__: Any) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(subprocess, "Popen", refuse)
    else:
        resource.setrlimit(limit, (bound, before[1]))
    try:
        for child in children:
            os.kill(child, 9)
        until(lambda: attempts(pipeline) > 3)
        assert pipeline.failures() == []
    finally:
        resource.setrlimit(limit, before)
        monkeypatch.undo()
    after = emitted(pipeline, "evil"), emitted(pipeline, "good")
    until(lambda: emitted(pipeline, "evil") > after[0] and emitted(pipeline, "good") > after[1])
    assert pipeline.failures() == []


@pytest.mark.parametrize(
    "fault", [KeyError("slot"), OverflowError("too large"), cv2.error("resize"), RuntimeError("?")]
)
def test_any_fault_of_a_live_source_costs_its_attempt(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process too, where no message is in between."""
    read, num_read = PreparedSource.read_planes, count()

    def faulty(source: PreparedSource) -> Any:
        if next(num_read) % 10 == 9:
            raise fault
        return read(source)

    monkeypatch.setattr(PreparedSource, "read_planes", faulty)
    stream = {"name": "door", "source": "synthetic://street?size=160x96&fps=50&objects=2&live=1", "retry_base_s": 0.05}
    model = {"path": str(tiny_model(tmp_path / "m.onnx")), "engine": "ort", "threads": 1}
    pipeline = Pipeline(parse_config({"model": model, "streams": [stream | {"retry_cap_s": 0.1}]}, where="test"))
    pipeline.start()
    try:
        until(lambda: pipeline.streams["door"].metrics.counters.snapshot().get("reconnects", 0) > 2)
        assert emitted(pipeline, "door") > 0 and pipeline.failures() == []
    finally:
        assert pipeline.stop()
