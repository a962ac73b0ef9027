"""Video is encoded once for all who watch a stream, and no larger than the largest place that shows it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator

import av
import numpy as np
import pytest

from edge.pictures.planes import Planes
from edge.server.board import LiveBoard
from edge.server.feeds import Feeds, Subscription
from edge.server.published import Plain
from edge.video.encoder import Packet, find_encoder

SIZE = (720, 1280, 3)


class Watched:
    """A board with one stream of 1280x720, and the widths of the pictures that viewers get."""

    def __init__(self) -> None:
        self.board = LiveBoard()
        self.board.add_stream("door", {"fps": 25.0})
        self.feeds = Feeds(self.board)
        self.encoder = find_encoder()

    def join(self, width: int, *, is_plain: bool = True) -> tuple[Subscription, list[Packet]]:
        got: list[Packet] = []
        return self.feeds.join("door", self.encoder, got.append, is_plain=is_plain, width=width), got

    def show(self, number: int = 12) -> None:
        image = np.random.default_rng(number).integers(0, 256, SIZE, np.uint8)
        for _ in range(number):
            self.board.publish("door", b"{}", lambda: image, plain=Plain(Planes.of(image), lambda: b"{}"))
            time.sleep(0.02)

    def shown_until(self, got: list[Packet], width: int) -> None:
        deadline = time.monotonic() + 20
        while not any(packet.is_key and width_of(packet) == width for packet in got):
            assert time.monotonic() < deadline, [width_of(packet) for packet in got if packet.is_key]
            got.clear()
            self.show()


def width_of(packet: Packet) -> int:
    """Of a key picture, which says how to decode it."""
    with av.open(io.BytesIO(packet.data), format="h264") as found:
        return found.streams.video[0].codec_context.width


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.feeds.close()


@pytest.mark.parametrize(
    ("place", "encoded"), [(300, 320), (480, 640), (640, 640), (960, 1280), (1920, 1280), (0, 1280)]
)
def test_a_picture_is_encoded_at_the_width_of_its_place(watched: Watched, place: int, encoded: int) -> None:
    _, got = watched.join(place)
    watched.shown_until(got, encoded)


def test_the_largest_place_decides_and_all_share_one_encode(watched: Watched) -> None:
    small, at_small = watched.join(300)
    watched.shown_until(at_small, 320)
    large, at_large = watched.join(1280)
    watched.shown_until(at_large, 1280)
    watched.shown_until(at_small, 1280)
    encoders = [one.name for one in threading.enumerate() if one.name == "video door"]
    assert len(encoders) == 1 and small.feed is large.feed
    watched.feeds.leave(large)
    watched.shown_until(at_small, 320)
    watched.feeds.widen(small, 640)
    watched.shown_until(at_small, 640)


def test_annotated_video_keeps_its_size(watched: Watched) -> None:
    _, got = watched.join(300, is_plain=False)
    watched.shown_until(got, 1280)
