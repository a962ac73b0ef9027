"""A camera sends its decoder to nobody else, and its password with it: not by a redirect, not by a playlist."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edge.errors import SourceError
from edge.sources.choose import open_source
from edge.sources.deadlines import Deadlines
from edge.sources.direct import Decoding
from edge.sources.isolation import fence
from edge.sources.isolation.fence import Fence, address_in, addresses_of

CAMERA, OTHER = "127.0.0.1", "127.0.0.2"
SECRET = base64.b64encode(b"admin:geheim-77").decode()
DEADLINES = Deadlines(open_s=8.0, stall_s=4.0)
Answer = Callable[[bytes], bytes]


class Server:
    """Answers each request by a function, and keeps what it heard."""

    def __init__(self, host: str, answer: Answer) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._socket = socket.create_server((host, 0))
        self._socket.settimeout(0.1)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.port = self._socket.getsockname()[1]

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(OSError), self._socket.accept()[0] as client:
                client.settimeout(2)
                while request := client.recv(8192):
                    self.heard.append(request)
                    client.sendall(self._answer(request))


@pytest.fixture
def other() -> Iterator[Server]:
    server = Server(OTHER, lambda request: rtsp(request, "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'))
    yield server
    server.close()


def rtsp(request: bytes, status: str, *headers: str) -> bytes:
    number = next((line for line in request.decode().split("\r\n") if line.startswith("CSeq")), "CSeq: 1")
    return "\r\n".join((f"RTSP/1.0 {status}", number, *headers, "", "")).encode()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def playlist(uri: str) -> bytes:
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:2,\n{uri}\n"
    return http(text.encode(), "200 OK", "Content-Type: application/vnd.apple.mpegurl")


KINDS: dict[str, tuple[str, Callable[[Server], Answer]]] = {
    "rtsp redirect": (
        "rtsp://admin:geheim-77@{}:{}/live",
        lambda other: lambda request: rtsp(request, "302 Found", f"Location: rtsp://{OTHER}:{other.port}/live"),
    ),
    "http redirect": (
        "http://admin:geheim-77@{}:{}/live.mjpg",
        lambda other: lambda _: http(b"", "302 Found", f"Location: http://{OTHER}:{other.port}/live.mjpg"),
    ),
    "hls playlist": (
        "http://admin:geheim-77@{}:{}/live.m3u8",
        lambda other: lambda _: playlist(f"http://{OTHER}:{other.port}/part.ts"),
    ),
}


def look(kind: str, decoder: str, other: Server, allow_hosts: tuple[str, ...] = ()) -> str:
    """Open a camera that sends its decoder on; why it cannot be opened."""
    uri, answer = KINDS[kind]
    camera = Server(CAMERA, answer(other))
    try:
        with pytest.raises(SourceError) as caught:
            open_source(
                uri.format(CAMERA, camera.port),
                decoding=Decoding(decoder),
                deadlines=DEADLINES,
                allow_hosts=allow_hosts,
            )
        assert camera.heard, "the camera was never asked"
    finally:
        camera.close()
    return str(caught.value)


@pytest.mark.parametrize("decoder", ["av", "opencv"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_follows_its_camera_to_nobody_else(kind: str, decoder: str, other: Server) -> None:
    said = look(kind, decoder, other)
    assert other.heard == []
    assert f"it was sent on to {OTHER}:{other.port}" in said and "allow_hosts" in said
    assert "geheim" not in said


@pytest.mark.parametrize("hosts", [(OTHER,), ("*",)])
@pytest.mark.parametrize("kind", ["rtsp redirect", "http redirect"])
def test_who_is_named_may_be_followed(kind: str, hosts: tuple[str, ...], other: Server) -> None:
    said = look(kind, "av", other, hosts)
    assert other.heard
    assert "it was sent on" not in said


def test_a_password_would_be_taken_along_without_the_fence(other: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What FFmpeg does of itself, and why there is a fence: the test above would see it."""
    look("rtsp redirect", "av", other, ("*",))
    assert any(SECRET in request.decode() for request in other.heard)


def test_the_camera_itself_is_asked_at_once_and_after_a_failed_opening() -> None:
    """The same process is asked again; its fence stands, and its own host answers."""
    from edge.sources.isolation.process import SpareChild

    spare = SpareChild()
    camera = Server(CAMERA, lambda _: http(b"", "404 Not Found"))
    try:
        for _ in range(3):
            with pytest.raises(SourceError, match="nothing at this address"):
                open_source(f"http://{CAMERA}:{camera.port}/x", deadlines=DEADLINES, spare=spare)
        child = spare.take()
        assert child.num_openings == 4 and child.fence is not None and not child.fence.refused
        spare.keep(child)
    finally:
        spare.close()
        camera.close()
    assert len(camera.heard) >= 3


def test_a_name_is_looked_up_and_a_name_server_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def looked_up(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(name)
        return [(2, 1, 6, "", ("10.0.0.9", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(fence, "name_servers", lambda: {"10.0.0.1"})
    ours, theirs = socket.socketpair()
    stands = Fence(ours.detach(), "rtsp://admin:x@door.lan/live", ["cdn.lan"])
    assert stands._may("10.0.0.9", 554) and sorted(asked) == ["cdn.lan", "door.lan"]
    assert stands._may("10.0.0.1", 53)
    assert not stands._may("10.0.0.1", 80) and not stands._may("8.8.8.8", 53)
    assert not stands._may("127.0.0.1", 8080)
    before = len(asked)
    time.sleep(1.1)
    assert not stands._may("10.9.9.9", 80) and len(asked) == before + 2
    stands.close()
    theirs.close()


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\2\0\0\x50\x0a\0\0\5" + bytes(8), ("10.0.0.5", 80)),
        (b"\x0a\0\0\x50" + bytes(4) + bytes(10) + b"\xff\xff\x0a\0\0\5" + bytes(4), ("10.0.0.5", 80)),
        (b"\x0a\0\0\x50" + bytes(4) + bytes(15) + b"\1" + bytes(4), ("::1", 80)),
        (b"\1\0/run/nscd", None),
        (b"", None),
    ],
)
def test_addresses_of_the_kernel_are_read(data: bytes, place: tuple[str, int] | None) -> None:
    assert address_in(data) == place


def test_an_address_that_is_cut_off_is_no_address() -> None:
    with pytest.raises(ValueError, match="address"):
        address_in(b"\2\0\0\x50\x0a")


def test_addresses_are_found_by_name() -> None:
    assert "127.0.0.1" in addresses_of("localhost")
    assert addresses_of("127.0.0.2") == {"127.0.0.2"}
    assert addresses_of("no such host") == set()
