"""The streams as RTSP addresses: real clients over TCP and UDP, who may look, slow and hostile clients, one encode."""

from __future__ import annotations

import itertools
import random
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import av
import psutil
import pytest
from camera_rig import wait_for
from needs import RTSP_SERVER, need
from rtsp_rig import FPS, HEIGHT, TOKEN, VIEW_TOKEN, WIDTH, Show, digest, number_in, show

pytestmark = pytest.mark.real_server
PATHS = ("door", "door/source")
# ffplay -fflags nobuffer -flags low_delay -rtsp_transport tcp
FFPLAY = {
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
    "flags": "low_delay",
    "probesize": "32",
    "analyzeduration": "0",
}
GSTREAMER = """
import sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst
Gst.init(None)
pipeline = Gst.parse_launch(f"rtspsrc location={sys.argv[1]} protocols={sys.argv[2]} latency=100 "
    "! rtph264depay ! h264parse ! fakesink name=sink signal-handoffs=true sync=false")
loop, count = GLib.MainLoop(), [0]
def taken(*_):
    count[0] += 1
    if count[0] == 50:
        loop.quit()
pipeline.get_by_name("sink").connect("handoff", taken)
pipeline.set_state(Gst.State.PLAYING)
GLib.timeout_add_seconds(30, loop.quit)
loop.run()
pipeline.set_state(Gst.State.NULL)
print(count[0])
"""


@pytest.fixture(scope="module")
def closed() -> Iterator[Show]:
    """A server that asks for a token."""
    with show(token=True) as running:
        yield running


@pytest.fixture(scope="module")
def opened() -> Iterator[Show]:
    with show() as running:
        yield running


class Client:
    """Speaks RTSP as text."""

    def __init__(self, running: Show) -> None:
        self.socket = socket.create_connection(("127.0.0.1", running.port), 20)
        self._url = running.url
        self._number = 0

    def ask(self, method: str, path: str, headers: str = "") -> tuple[int, str]:
        self._number += 1
        text = f"{method} {self._url(path)} RTSP/1.0\r\nCSeq: {self._number}\r\n{headers}\r\n"
        self.socket.sendall(text.encode())
        return self.hear()

    def hear(self) -> tuple[int, str]:
        """Status and text of an answer; 0 at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(4096)
            if not more:
                return 0, data.decode("latin-1")
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
        while len(body) < length:
            body += self.socket.recv(4096)
        return int(head.split()[1]), (head + b"\r\n\r\n" + body).decode()

    def authorization(self, token: str, method: str, path: str) -> str:
        """Digest with this token, for the nonce of this connection."""
        _, text = self.ask("DESCRIBE", path)
        nonce = text.partition('nonce="')[2].partition('"')[0]
        return digest(token, method, self._url(path), nonce)

    def play(self, path: str, transport: str = "RTP/AVP/TCP;unicast;interleaved=0-1") -> str:
        """Begin to receive; the answer to SETUP."""
        assert self.ask("DESCRIBE", path)[0] == 200
        status, text = self.ask("SETUP", f"{path}/trackID=0", f"Transport: {transport}\r\n")
        assert status == 200, text
        session = text.partition("Session: ")[2].partition(";")[0]
        assert self.ask("PLAY", path, f"Session: {session}\r\n")[0] == 200
        return text

    def close(self) -> None:
        self.socket.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("path", PATHS)
def test_ffprobe_sees_a_stream(closed: Show, path: str, transport: str) -> None:
    command = [need("ffprobe"), "-v", "error", "-rtsp_transport", transport, "-read_intervals", "%+2"]
    command += ["-count_frames", "-show_entries", "stream=codec_name,width,height,nb_read_frames", "-of", "csv=p=0"]
    done = subprocess.run(
        [*command, closed.url(path, VIEW_TOKEN)], capture_output=True, text=True, timeout=60, check=True
    )
    codec, width, height, frames = done.stdout.strip().split(",")
    assert (codec, int(width), int(height)) == ("h264", WIDTH, HEIGHT)
    assert int(frames) > FPS
    assert done.stderr == ""


@pytest.mark.parametrize("path", PATHS)
def test_opencv_sees_each_picture_in_turn(closed: Show, path: str) -> None:
    import cv2

    capture = cv2.VideoCapture(closed.url(path, TOKEN), cv2.CAP_FFMPEG)
    numbers = []
    while len(numbers) < 30:
        is_read, image = capture.read()
        assert is_read
        numbers.append(number_in(image))
    capture.release()
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    assert min(steps) >= 0
    # the newest picture wins where this machine is busy; the camera's own packets are all there
    assert statistics.median(steps) == 1


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_gstreamer_sees_a_stream(closed: Show, protocol: str) -> None:
    command = [need(RTSP_SERVER), "-c", GSTREAMER, closed.url("door/source", VIEW_TOKEN), protocol]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == 50, done.stderr


def test_who_shows_no_right_token_sees_nothing(closed: Show) -> None:
    for path in (*PATHS, "masked", "nobody"):
        for method in ("DESCRIBE", "SETUP", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER"):
            client = Client(closed)
            status, text = client.ask(method, path)
            assert (status, "sprop" in text) == (401, False), (method, path)
            assert "Basic" not in text
            client.close()
    client = Client(closed)
    assert client.ask("OPTIONS", "door")[0] == 200
    client.close()


@pytest.mark.parametrize(
    ("token", "status"), [(VIEW_TOKEN, 200), (TOKEN, 200), ("wrong-token-0123456789abcdef", 401), ("", 401)]
)
def test_both_tokens_may_look_and_no_other(closed: Show, token: str, status: int) -> None:
    client = Client(closed)
    assert client.ask("DESCRIBE", "door", client.authorization(token, "DESCRIBE", "door"))[0] == status
    client.close()


def test_an_answer_is_good_for_its_connection_its_method_and_its_address_only(closed: Show) -> None:
    client, other = Client(closed), Client(closed)
    right = client.authorization(VIEW_TOKEN, "DESCRIBE", "door")
    assert other.ask("DESCRIBE", "door", right)[0] == 401
    assert client.ask("SETUP", "door", right)[0] == 401
    assert client.ask("DESCRIBE", "door/source", right)[0] == 401
    assert client.ask("DESCRIBE", "door", right)[0] == 200
    client.close()
    other.close()


def test_guesses_are_slowed_down_and_the_owner_is_not(closed: Show) -> None:
    statuses = []
    for number in range(12):
        client = Client(closed)
        wrong = client.authorization(f"guess-{number:020}", "DESCRIBE", "door")
        statuses.append(client.ask("DESCRIBE", "door", wrong)[0])
        client.close()
    assert statuses[-1] == 429
    client = Client(closed)
    assert client.ask("DESCRIBE", "door", client.authorization(VIEW_TOKEN, "DESCRIBE", "door"))[0] == 200
    client.close()


def test_packets_that_show_too_much_are_not_served(opened: Show) -> None:
    client = Client(opened)
    status, text = client.ask("DESCRIBE", "masked/source")
    assert status == 404
    assert "without its masks" in text
    assert client.ask("SETUP", "masked/source/trackID=0", "Transport: RTP/AVP/TCP;interleaved=0-1\r\n")[0] == 404
    client.close()


def test_udp_goes_to_the_host_that_asked_whatever_it_names(opened: Show) -> None:
    client = Client(opened)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim,
    ):
        ours.bind(("127.0.0.1", 0))
        port = ours.getsockname()[1]
        victim.bind(("127.0.0.2", port))
        victim.settimeout(1.0)
        ours.settimeout(10.0)
        client.play("door", f"RTP/AVP;unicast;destination=127.0.0.2;client_port={port}-{port + 1}")
        assert ours.recv(2048)[0] == 0x80
        with pytest.raises(TimeoutError):
            victim.recv(2048)
    client.close()


@pytest.mark.parametrize(
    "transport",
    [
        "RTP/AVP;multicast",
        "RTP/AVP;unicast;client_port=22-23",
        "RTP/AVP;unicast",
        "RTP/AVP/TCP;interleaved=400-401",
        "",
        "x",
    ],
)
def test_a_transport_that_is_not_offered_is_refused(opened: Show, transport: str) -> None:
    client = Client(opened)
    assert client.ask("SETUP", "door/trackID=0", f"Transport: {transport}\r\n")[0] == 461
    client.close()


def test_one_encode_serves_many_and_stuck_clients_cost_nobody_anything(opened: Show) -> None:
    alone = opened.fps
    encoded_before = opened.board.counts()["door"]["published"]
    with ExitStack() as stack, ThreadPoolExecutor(15) as pool:
        stuck = [Client(opened) for _ in range(5)]
        for client in stuck:
            stack.callback(client.close)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.play("door")
        reading = [pool.submit(_received, opened, 6.0) for _ in range(15)]
        wait_for(lambda: opened.server.stats().get("clients", 0) == 20, 20, "all of them play")
        time.sleep(3)
        feed = opened.feeds._channels["door", False].feed
        encoded, began_s = feed.counters["encoded"], time.monotonic()
        time.sleep(2)
        rate = (feed.counters["encoded"] - encoded) / (time.monotonic() - began_s)
        fps = opened.fps
        received = [one.result() for one in reading]
    print(f"\n{alone:.1f} fps alone, {fps:.1f} with 20 clients; encoded {rate:.1f} a second, received {received}")
    assert opened.board.counts()["door"]["published"] > encoded_before
    assert fps >= 0.97 * FPS
    assert rate <= FPS * 1.1
    assert min(received) >= 0.9 * rate


def _received(running: Show, seconds: float) -> float:
    """Pictures a second that a client of its own decodes nothing of."""
    with av.open(running.url("door"), options={"rtsp_transport": "tcp"}) as source:
        began_s, count = time.monotonic(), 0
        for packet in source.demux(video=0):
            count += bool(packet.size)
            if time.monotonic() - began_s > seconds:
                break
        return count / (time.monotonic() - began_s)


@pytest.mark.parametrize("path", PATHS)
def test_a_picture_is_seen_soon(opened: Show, path: str) -> None:
    ages = []
    with av.open(opened.url(path), options=FFPLAY) as source:
        source.streams.video[0].thread_type = "SLICE"
        for frame in source.decode(video=0):
            number = number_in(frame.to_ndarray(format="gray"))
            ages.append((time.monotonic() - opened.shown_s[number]) * 1e3)
            if len(ages) == 100:
                break
    print(f"\n{path}: median {statistics.median(ages):.0f} ms, p95 {sorted(ages)[95]:.0f} ms")
    assert statistics.median(ages) <= 200


def test_a_stream_that_goes_ends_its_clients_and_can_come_back(opened: Show) -> None:
    client = Client(opened)
    client.play("door")
    gone = opened.streams.pop("door")
    client.socket.settimeout(10)
    with suppress(ConnectionError):
        while client.socket.recv(1 << 16):
            pass
    other = Client(opened)
    assert other.ask("DESCRIBE", "door")[0] == 404
    opened.streams["door"] = gone
    wait_for(lambda: other.ask("DESCRIBE", "door")[0] == 200, 20, "it is back")
    other.close()
    client.close()


def test_its_process_is_started_anew_when_it_ends(opened: Show) -> None:
    _process().kill()
    client: list[Client] = []

    def answers() -> bool:
        with suppress(OSError):
            client[:] = [Client(opened)]
            client[0].socket.settimeout(2)
            return client[0].ask("DESCRIBE", "door")[0] == 200
        return False

    wait_for(answers, 30, "it answers again")
    client[0].close()


def test_no_more_clients_than_allowed() -> None:
    with show(max_clients=1) as running:
        first, second = Client(running), Client(running)
        first.play("door")
        assert second.ask("SETUP", "door/trackID=0", "Transport: RTP/AVP/TCP;interleaved=0-1\r\n")[0] == 200
        assert second.ask("PLAY", "door")[0] == 503
        first.close()
        second.close()


def _process() -> psutil.Process:
    children = psutil.Process().children()
    return next(child for child in children if "edge.server.rtsp.process" in " ".join(child.cmdline()))


WORDS = [
    b"DESCRIBE",
    b"SETUP",
    b"PLAY",
    b"OPTIONS",
    b"TEARDOWN",
    b"rtsp://",
    b"RTSP/1.0",
    b"\r\n",
    b"\r\n\r\n",
    b"CSeq: 1",
]
WORDS += [
    b"Transport: RTP/AVP",
    b";interleaved=",
    b"Session: ",
    b"Content-Length: ",
    b"$\0",
    b"\xff" * 9,
    b"%00",
    b"0" * 300,
]
WORDS += [b"Authorization: Digest ", b'username="', b"trackID=", b"../", b"[::1", b"door", b"/source", b":", b" ", b","]


def fuzzed(chance: random.Random, running: Show) -> bytes:
    """A request that is nearly right, or nothing of the kind."""
    method = chance.choice(["DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "TEARDOWN", "OPTIONS", "PAUSE"])
    headers = "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n" if chance.random() < 0.5 else "Session: 1\r\n"
    data = bytearray(f"{method} {running.url('door')} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n".encode())
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at:at] = chance.choice(WORDS)
            case 1:
                del data[at : at + chance.randrange(20)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(40))
            case _:
                data = data[:at] + data[chance.randrange(len(data) + 1) :]
    return bytes(data) or b"\0"


def fuzz(running: Show, requests: int, capfd: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(7)

    def strike(count: int) -> None:
        for _ in range(count):
            with suppress(OSError), socket.create_connection(("127.0.0.1", running.port), 5) as connection:
                connection.settimeout(0.2)
                for _ in range(chance.randrange(1, 4)):
                    connection.sendall(fuzzed(chance, running))
                if chance.random() < 0.2:
                    connection.recv(4096)

    process = _process()
    strike(requests // 20)
    wait_for(lambda: len(process.net_connections()) < 12, 40, "nothing is left of the first ones")
    before = process.memory_info().rss, process.num_fds()
    strike(requests - requests // 20)
    wait_for(lambda: len(process.net_connections()) < 12, 40, "nothing is left of them")
    grown_mb, more_fds = (process.memory_info().rss - before[0]) / 1e6, process.num_fds() - before[1]
    print(f"\n{requests} requests: memory +{grown_mb:.1f} MB, files {more_fds:+d}, {running.server.stats()}")
    assert _process().pid == process.pid
    assert grown_mb < 8
    assert more_fds <= 2
    assert "Traceback" not in capfd.readouterr().err
    assert running.fps >= 0.9 * FPS


def test_fuzzed_requests_leave_nothing_behind(closed: Show, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz(closed, 600, capfd)


def test_fuzzed_requests_without_a_token_leave_nothing_behind(opened: Show, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz(opened, 600, capfd)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_thousand_fuzzed_requests(opened: Show, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz(opened, 20_000, capfd)
    with capfd.disabled():
        print(f"\n{opened.server.stats()}")
