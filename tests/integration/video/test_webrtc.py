"""Pieces of WebRTC that need no network: the offer's check, a receiver's slot, the encoder that all share."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ConfigError, SinkError, UsageError
from edge.pictures.planes import Planes
from edge.server.board import LiveBoard
from edge.server.webrtc import Peers
from edge.sinks.whip_http import location_of
from edge.types import UInt8
from edge.video.encoder import Packet, find_encoder
from edge.video.feed import VideoFeed
from edge.video.webrtc.offer import checked_offer

aiortc = pytest.importorskip("aiortc", reason="needs aiortc; run: pip install aiortc")
from edge.sinks.whip import endpoint_of
from edge.video.webrtc.track import CAPACITY, PacketTrack, accept_answer, offer_of

VIDEO = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
HOST = "a=candidate:1 1 udp 2113937151 9bb06f93.local 54025 typ host generation 0 network-cost 999"

# the offer


def test_a_hidden_address_is_the_one_that_asked() -> None:
    assert "a=candidate:1 1 udp 2113937151 10.0.0.9 54025 typ host\r\n" in checked_offer(
        f"{VIDEO}{HOST}\r\n", "10.0.0.9"
    )


@pytest.mark.parametrize(
    "candidate",
    [
        "a=candidate:1 1 tcp 2113937151 10.0.0.7 9 typ host tcptype active",
        "a=candidate:1 1 udp 2113937151 camera.example.org 54025 typ host",
        "a=candidate:1 1 udp 2113937151 224.0.0.1 54025 typ host",
        "a=candidate:1 1 udp 2113937151 10.0.0.7 0 typ host",
        "a=candidate:1 1 udp 2113937151 10.0.0.7 70000 typ host",
        "a=candidate:1 1 udp 2113937151 10.0.0.7 5000 typ relay",
        "a=candidate:",
    ],
)
def test_candidates_that_cannot_be_reached_are_left_out(candidate: str) -> None:
    sdp = checked_offer(f"{VIDEO}{candidate}\r\n{HOST}\r\n", "10.0.0.9")
    assert sdp.count("a=candidate:") == 1
    assert "10.0.0.9 54025" in sdp


def test_an_offer_cannot_make_the_device_send_to_many() -> None:
    many = "".join(f"a=candidate:{n} 1 udp 1 10.0.0.{n} 5000 typ host\r\n" for n in range(1, 200))
    assert checked_offer(VIDEO + many, "10.0.0.9").count("a=candidate:") == 16


@pytest.mark.parametrize(
    ("sdp", "message"),
    [
        ("", "expected an SDP offer with one video, found no media"),
        ("m=audio 9 x\r\n", "found audio"),
        (VIDEO + "m=video 9 x\r\n", "found video, video"),
        (VIDEO + "m=application 9 x\r\n", "found video, application"),
        (VIDEO, "holds no UDP candidate; send it when iceGatheringState is complete"),
    ],
)
def test_a_wrong_offer_is_one_sentence(sdp: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked_offer(sdp, "10.0.0.9")


# what Python's splitlines ends a line at, besides CR and LF
@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\0", "\t"])
@pytest.mark.parametrize("smuggled", ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=video 9 x", HOST])
def test_what_one_reader_takes_for_one_line_and_another_for_two_is_refused(end: str, smuggled: str) -> None:
    sdp = f"{VIDEO}a=x{end}{smuggled}\r\n{HOST}\r\n"
    with pytest.raises(UsageError, match=rf"the character U\+{ord(end):04X}, which has no place"):
        checked_offer(sdp, "10.0.0.9")


@settings(max_examples=examples(), deadline=None)
@given(st.text(max_size=60), st.text(max_size=10))
def test_every_reader_sees_the_same_media_in_a_checked_offer(noise: str, end: str) -> None:
    try:
        checked = checked_offer(f"{VIDEO}a=x{end}m=video{noise}\r\n{HOST}\r\n", "10.0.0.9")
    except UsageError:
        return
    for lines in (checked.splitlines(), checked.split("\n"), re.split(r"[\r\n]+", checked)):
        assert [line[:7] for line in lines if line.startswith("m=")] == ["m=video"]


AUDIO = "m=audio {port} UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na={direction}\r\n"


@pytest.mark.parametrize(("port", "direction"), [(0, "recvonly"), (9, "inactive"), (9, "sendonly"), (None, "")])
def test_a_receiver_may_refuse_the_sound_alone(port: int | None, direction: str) -> None:
    audio = "" if port is None else AUDIO.format(port=port, direction=direction)
    assert asyncio.run(accept_answer(None, VIDEO + audio, has_sound=True)) is False


def test_sound_that_was_not_offered_is_no_answer() -> None:
    with pytest.raises(SinkError, match="found video, audio"):
        asyncio.run(accept_answer(None, VIDEO + AUDIO.format(port=9, direction="recvonly")))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "expected one video in the receiver's SDP answer, found none"),
        (VIDEO + "m=application 9 x\r\n", "found video, application"),
        (VIDEO + "a=x\x0cm=application 9 x\r\n", r"U\+000C, which has no place"),
    ],
)
def test_a_receiver_answers_with_one_video(answer: str, message: str) -> None:
    with pytest.raises(SinkError, match=message):
        asyncio.run(accept_answer(None, answer))


# a receiver's slot


def packet(pts: int, *, is_key: bool = False) -> Packet:
    return Packet(b"\0\0\1x", pts, is_key)


def with_track(play: Callable[[PacketTrack, list[int]], Any]) -> None:
    async def run() -> None:
        asked: list[int] = []
        await play(PacketTrack(lambda: asked.append(1)), asked)

    asyncio.run(run())


def test_a_receiver_begins_with_a_key_picture_and_asks_for_one() -> None:
    async def play(track: PacketTrack, asked: list[int]) -> None:
        track.put(packet(0))
        track.put(packet(1, is_key=True))
        track.put(packet(2))
        assert [(await track.recv()).pts, (await track.recv()).pts] == [1, 2]
        assert (len(asked), track.num_missed, track.num_taken) == (1, 1, 2)

    with_track(play)


def test_a_receiver_that_is_late_goes_on_with_the_next_key_picture() -> None:
    async def play(track: PacketTrack, asked: list[int]) -> None:
        track.put(packet(0, is_key=True))
        for pts in range(1, CAPACITY + 3):
            track.put(packet(pts))
        assert asked
        track.put(packet(100, is_key=True))
        assert (await track.recv()).pts == 100
        assert track.num_missed == CAPACITY + 3

    with_track(play)


def test_a_track_that_is_stopped_ends_who_waits_for_it() -> None:
    from aiortc.mediastreams import MediaStreamError

    async def play(track: PacketTrack, asked: list[int]) -> None:
        waiting = asyncio.ensure_future(track.recv())
        await asyncio.sleep(0)
        track.stop()
        with pytest.raises(MediaStreamError):
            await waiting

    with_track(play)


# the encoder


class Encoded:
    """A feed and what it gave; ``next`` waits for the packets of one picture."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.changed = threading.Condition()
        self.feed = VideoFeed("test", find_encoder(), fps=25, deliver=self.take)
        self.time_ns = 1

    def take(self, packet: Packet) -> None:
        with self.changed:
            self.packets.append(packet)
            self.changed.notify_all()

    def next(self, size: tuple[int, int] = (96, 128), step_ns: int = 40_000_000) -> Packet:
        count = len(self.packets)
        self.time_ns += step_ns
        self.feed.put(np.full((*size, 3), 90, np.uint8), self.time_ns)
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.packets) > count, 10)
        return self.packets[-1]

    def close(self) -> None:
        self.feed.stop()
        assert self.feed.join(5)


@pytest.mark.parametrize("num_steps", range(8))
def test_a_server_that_closes_in_the_middle_of_an_answer_does_not_blame_the_offer(num_steps: int) -> None:
    async def call_and_close() -> Any:
        caller = aiortc.RTCPeerConnection()
        caller.addTransceiver("video", direction="recvonly")
        offer = await offer_of(caller)
        peers = Peers(LiveBoard(), max_peers=1)
        call = asyncio.create_task(peers.answer("door", offer, "127.0.0.1"))
        while not (peer := next(iter(peers._peers.values()), None)) or peer.connection is None:
            await asyncio.sleep(0)
        for _ in range(num_steps):
            await asyncio.sleep(0)
        await peers.close()
        await caller.close()
        return (await asyncio.gather(call, return_exceptions=True))[0]

    found = asyncio.run(call_and_close())
    assert isinstance(found, tuple) or (isinstance(found, SinkError) and "closing" in str(found))


@pytest.fixture
def encoded() -> Any:
    found = Encoded()
    yield found
    found.close()


def test_only_the_first_picture_is_a_key_picture_until_one_is_asked_for(encoded: Encoded) -> None:
    assert [encoded.next().is_key for _ in range(5)] == [True, False, False, False, False]


def test_receivers_that_ask_at_once_share_one_key_picture(encoded: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded.next()
    monkeypatch.setattr("edge.video.feed.MIN_KEY_GAP_S", 0.0)
    for _ in range(3):
        encoded.feed.ask_key()
    assert [encoded.next().is_key for _ in range(3)] == [True, False, False]


def test_a_key_picture_comes_by_itself_for_those_that_never_ask(encoded: Encoded) -> None:
    encoded.next()
    assert encoded.next(step_ns=4_100_000_000).is_key


def test_another_size_begins_with_a_key_picture_and_time_goes_on(encoded: Encoded) -> None:
    before = [encoded.next(), encoded.next()]
    after = encoded.next((64, 64))
    assert after.is_key
    assert after.pts - before[1].pts == 3600


def test_the_stream_is_baseline_with_its_parameters_before_every_key_picture(encoded: Encoded) -> None:
    data = encoded.next().data
    begin = data.index(b"\0\0\1\x67")
    assert data[begin + 4] == 66


# the board


def test_a_video_viewer_gets_pictures_and_no_jpeg_is_made() -> None:
    board = LiveBoard()
    board.add_stream("door", {})
    taken: list[tuple[str, UInt8 | Planes]] = []
    board.listen_pictures(lambda stream, image, time_ns: taken.append((stream, image)))
    image = np.zeros((8, 8, 3), np.uint8)
    assert not board.wants_picture("door")
    board.publish("door", b"{}", lambda: image)
    viewer = board.watch("door", has_pictures=True, is_video=True)
    assert board.wants_picture("door")
    board.publish("door", b"{}", lambda: image)
    assert board.counts()["door"] == {"published": 2, "encoded": 0, "viewers": 1, "missed": 0, "events": 0}
    board.leave(viewer)
    board.publish("door", b"{}", lambda: image)
    assert taken == [("door", image)]
    assert board.counts()["door"]["missed"] == 0


def test_a_picture_for_both_kinds_of_viewers_is_drawn_once() -> None:
    board = LiveBoard()
    board.add_stream("door", {})
    drawn = []
    board.listen_pictures(lambda stream, image, time_ns: None)
    board.watch("door", has_pictures=True, is_video=True)
    board.watch("door", has_pictures=True)

    def picture() -> UInt8:
        drawn.append(1)
        return np.zeros((8, 8, 3), np.uint8)

    board.publish("door", b"{}", picture)
    assert (len(drawn), board.counts()["door"]["encoded"]) == (1, 1)


# the WHIP address


@pytest.mark.parametrize(
    ("address", "url", "authorization"),
    [
        ("https://host/whip/door", "https://host/whip/door", ""),
        ("http://host:8889", "http://host:8889/", ""),
        ("https://abcdef@host/whip?a=1", "https://host/whip?a=1", "Bearer abcdef"),
        ("https://me:pass%20word@host/w", "https://host/w", "Basic bWU6cGFzcyB3b3Jk"),
    ],
)
def test_the_access_of_an_address_goes_into_a_header(address: str, url: str, authorization: str) -> None:
    endpoint = endpoint_of(address)
    assert (endpoint.url, endpoint.authorization) == (url, authorization)
    assert "abcdef" not in endpoint.label
    assert "pass" not in endpoint.label


def test_the_token_may_lie_in_a_file(tmp_path: Any) -> None:
    (tmp_path / "whip").write_text("canary-bearer\n")
    endpoint = endpoint_of(f"https://host/whip#bearer_file={tmp_path}/whip")
    assert (endpoint.url, endpoint.authorization) == ("https://host/whip", "Bearer canary-bearer")
    with pytest.raises(ConfigError, match=r"whip: bearer_file: .* cannot be read"):
        endpoint_of(f"https://host/whip#bearer_file={tmp_path}/none")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/x", "expected whip:https://HOST/PATH"),
        ("host/x", "expected whip:https://HOST/PATH"),
        ("https://host/x#token=abc", "after # only bearer_file=FILE is expected"),
    ],
)
def test_a_wrong_address_is_one_sentence(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        endpoint_of(address)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/session/1", "https://host/session/1"),
        ("session/1", "https://host/whip/session/1"),
        ("https://host/x", "https://host/x"),
        ("https://elsewhere/x", ""),
        ("http://host/x", ""),
        ("", ""),
    ],
)
def test_the_token_is_never_sent_to_another_host(location: str, expected: str) -> None:
    assert location_of("https://host/whip/door", location) == expected
