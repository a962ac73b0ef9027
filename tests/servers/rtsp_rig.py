"""What the tests of the RTSP server share: a board that shows numbered pictures, and a camera's packets next to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5

import numpy as np

from edge.server.access import Access
from edge.server.board import LiveBoard
from edge.server.feeds import Feeds
from edge.server.rtsp.server import Offered, RtspServer
from edge.types import UInt8
from edge.video.encoder import TICKS_PER_S, VideoEncoder, find_encoder
from edge.video.packets import PacketForm, PacketTap, SourcePacket

FPS = 25
WIDTH, HEIGHT = 640, 360
BITS, BIT_PX = 16, 32
TOKEN, VIEW_TOKEN = "operate-token-0123456789", "view-token-0123456789abc"


def painted(number: int) -> UInt8:
    """A picture that shows a number as a row of black and white squares."""
    image = np.full((HEIGHT, WIDTH, 3), 96, np.uint8)
    for bit in range(BITS):
        image[:BIT_PX, bit * BIT_PX : (bit + 1) * BIT_PX] = 255 * (number >> bit & 1)
    return image


def number_in(image: UInt8) -> int:
    """The number that a picture (H, W, 3) or (H, W) shows."""
    luma = image if image.ndim == 2 else image[..., 1]
    half = BIT_PX // 2
    return sum(int(luma[half, bit * BIT_PX + half] > 128) << bit for bit in range(BITS))


def digest(token: str, method: str, uri: str, nonce: str) -> str:
    """An Authorization header (RFC 2069)."""
    first = md5(f"viewer:edgeloop:{token}".encode()).hexdigest()
    second = md5(f"{method}:{uri}".encode()).hexdigest()
    response = md5(f"{first}:{nonce}:{second}".encode()).hexdigest()
    return (
        f'Authorization: Digest username="viewer", realm="edgeloop", nonce="{nonce}", uri="{uri}", '
        f'response="{response}"\r\n'
    )


@dataclass
class Show:
    """A running server, and when each picture was published, by its number."""

    server: RtspServer
    board: LiveBoard
    feeds: Feeds
    tap: PacketTap
    port: int = 0
    shown_s: dict[int, float] = field(default_factory=dict)
    streams: dict[str, Offered] = field(default_factory=dict)

    def url(self, path: str, token: str = "") -> str:
        who = f"viewer:{token}@" if token else ""
        return f"rtsp://{who}127.0.0.1:{self.port}/{path}"

    @property
    def fps(self) -> float:
        """Pictures published a second, over the last two."""
        now_s = time.monotonic()
        return sum(now_s - at_s < 2 for at_s in list(self.shown_s.values())[-200:]) / 2


def _publish(show: Show, stopping: threading.Event) -> None:
    """25 pictures a second on the board, and the same as a camera's packets."""
    encoder = VideoEncoder(find_encoder(), WIDTH, HEIGHT, fps=FPS, key_every_s=1, has_global_header=False)
    began_s, number = time.monotonic(), 0
    while not stopping.is_set():
        image = painted(number)
        show.shown_s[number] = time.monotonic()
        show.board.publish("door", b"{}", lambda: image)  # noqa: B023
        for packet in encoder.encode(image, number * TICKS_PER_S // FPS):
            if number == 0:
                show.tap.begin(PacketForm("h264", WIDTH, HEIGHT, b""))
            now_ns = time.monotonic_ns()
            show.tap.take(SourcePacket(packet.data, packet.pts, packet.pts, packet.is_key, now_ns, now_ns))
        number = (number + 1) % (1 << BITS)
        stopping.wait(max(0.0, began_s + (number / FPS) - time.monotonic()))


@contextmanager
def show(*, token: bool = False, max_clients: int = 64) -> Iterator[Show]:
    """A server with the streams ``door`` (with its source) and ``masked`` (without)."""
    board = LiveBoard()
    for name in ("door", "masked"):
        board.add_stream(name, {"fps": FPS})
    feeds, tap = Feeds(board), PacketTap()
    streams = {"door": Offered(tap), "masked": Offered(reason="they would show the picture without its masks")}
    access = Access(TOKEN, VIEW_TOKEN) if token else Access()
    server = RtspServer("127.0.0.1", 0, access, feeds, lambda: dict(streams), max_clients=max_clients)
    running = Show(server, board, feeds, tap, streams=streams)
    _, running.port = server.start()
    stopping = threading.Event()
    thread = threading.Thread(target=_publish, args=(running, stopping), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        stopping.set()
        thread.join(5)
        server.stop()
        feeds.close()
