"""Packets on their way to the recording: bounded, in order, and what is lost is known."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config.load import parse_config
from edge.errors import ConfigError
from edge.sources.av import Waiting
from edge.sources.isolation.messages import CodedPicture, Group, Level, PacketRing, parse_message
from edge.sources.isolation.packet_wire import PacketReceiver, PacketSender
from edge.video.packets import (
    EVERYTHING,
    ITEM_BYTES,
    MAX_GROUP,
    EventMark,
    PacketForm,
    PacketQueue,
    PacketTaker,
    PacketTap,
    SoundLevel,
    SourcePacket,
    Wanted,
)
from edge.video.parameter_sets import parameter_sets

FORM = PacketForm("h264", 64, 48, b"header")


def packet(number: int, size: int = 10) -> SourcePacket:
    return SourcePacket(bytes([number % 256]) * size, number, number, number % 5 == 0, number, number)


def drained(queue: PacketQueue) -> list[Any]:
    queue.close()
    found = []
    while (item := queue.get(0.0)) is not None:
        found.append(item)
    return found


def test_a_full_queue_drops_the_newest_and_the_next_one_says_how_many() -> None:
    queue = PacketQueue(3 * (ITEM_BYTES + 10))
    for number in range(6):
        queue.take(packet(number))
    assert queue.counters["packets_lost"] == 3
    assert isinstance(queue.get(0.0), SourcePacket)
    queue.take(packet(6))
    assert [(item.pts, item.lost_before) for item in drained(queue)] == [(1, 0), (2, 0), (6, 3)]


def test_forms_without_packets_do_not_pile_up() -> None:
    queue = PacketQueue()
    for _ in range(1000):
        queue.begin(FORM)
    assert drained(queue) == [FORM]


def test_marks_without_events_are_replaced_and_those_with_events_stay() -> None:
    queue = PacketQueue()
    marks = [EventMark(1, 1), EventMark(2, 2), EventMark(3, 3, ("tick",)), EventMark(4, 4), EventMark(5, 5)]
    for mark in marks:
        queue.mark(mark)
    assert [mark.time_ns for mark in drained(queue)] == [3, 5]


def test_after_its_close_a_queue_takes_nothing() -> None:
    queue = PacketQueue()
    queue.close()
    queue.take(packet(0))
    queue.begin(FORM)
    queue.mark(EventMark(1, 1, ("tick",)))
    assert queue.is_finished
    assert queue.num_bytes == 0
    # the recording has ended: that is no loss
    assert queue.counters["packets_lost"] == 0


class Collector(PacketTaker):
    def __init__(self) -> None:
        self.forms: list[PacketForm] = []
        self.packets: list[SourcePacket] = []
        self.levels: list[SoundLevel] = []
        self.wants = EVERYTHING

    @property
    def wanted(self) -> Wanted:
        return self.wants

    def hear(self, level: SoundLevel) -> None:
        self.levels.append(level)

    def begin(self, form: PacketForm) -> None:
        self.forms.append(form)

    def take(self, packet: SourcePacket) -> None:
        self.packets.append(packet)


class Wire:
    """A sender and its receiver; ``pump`` delivers what is under way."""

    def __init__(self, ring_bytes: int, *, can_ride: bool = False) -> None:
        from edge.sources.isolation.ring import receive_bytes

        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(0.0)
        self.theirs = theirs
        self.sender = PacketSender(theirs, ring_bytes=ring_bytes, can_ride=can_ride)
        self.found = Collector()
        self._receiver = PacketReceiver(self.found)
        self._receive = receive_bytes
        self.sender.begin(FORM)

    def pump(self) -> None:
        while True:
            try:
                received = self._receive(self._ours)
            except BlockingIOError:
                return
            assert received is not None
            message = parse_message(received[0])
            if isinstance(message, PacketRing):
                self._receiver.begin(message, received[1][0])
            elif isinstance(message, Level):
                self._receiver.hear(message)
            elif isinstance(message, Group):
                self._receiver.take_group(message)
            else:
                assert isinstance(message, CodedPicture)
                self._receiver.take(message)

    def close(self) -> None:
        self._ours.close()
        self.theirs.close()
        os.close(self.sender._fd)


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans(), st.booleans()), max_size=60))
def test_what_comes_through_the_ring_is_what_went_in_and_the_rest_is_counted(
    steps: Sequence[tuple[int, bool, bool]],
) -> None:
    """One by one or several at a time."""
    wire = Wire(512)
    sent = [packet(number, size) for number, (size, _, _) in enumerate(steps)]
    group: list[SourcePacket] = []
    for one, (_, is_read, goes_on) in zip(sent, steps, strict=True):
        group.append(one)
        if not goes_on or len(group) == MAX_GROUP or one is sent[-1]:
            wire.sender.take_group(group)
            group = []
        if is_read:
            wire.pump()
    wire.pump()
    wire.close()
    assert wire.found.forms == [FORM]
    by_number = {one.pts: one for one in sent}
    next_number = 0
    for one in wire.found.packets:
        assert one.pts == next_number + one.lost_before
        assert one.data == by_number[one.pts].data
        next_number = one.pts + 1


@pytest.mark.parametrize(
    ("codec", "data", "expected"),
    [
        ("h264", b"\0\0\0\1\x67AB\0\0\0\1\x68C\0\0\1\x65picture", b"\0\0\0\1\x67AB\0\0\0\1\x68C"),
        ("h264", b"\0\0\1\x09\xf0\0\0\1\x67AB\0\0\1\x06sei\0\0\1\x65x\0\0\1\x67no", b"\0\0\0\1\x67AB"),
        ("h264", b"\0\0\1\x65picture", b""),
        (
            "hevc",
            b"\0\0\0\1\x40\1V\0\0\0\1\x42\1S\0\0\1\x44\1P\0\0\1\x26\1x",
            b"\0\0\0\1\x40\1V\0\0\0\1\x42\1S\0\0\0\1\x44\1P",
        ),
        ("h264", b"", b""),
        ("h264", b"\0\0\1", b""),
    ],
)
def test_parameter_sets_are_found_before_the_picture(codec: str, data: bytes, expected: bytes) -> None:
    assert parameter_sets(data, codec) == expected


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (
            {"masks": [[[0, 0], [1, 0], [1, 1]]]},
            "stream 'door': record.content = \"source\" would show the picture with",
        ),
        ({"rotate": 90}, "without its rotate"),
        ({"roi": [0, 0, 0.5, 0.5]}, "without its roi"),
        ({"source": "synthetic://street"}, "needs a network address or a video file"),
        ({"source": "/dev/video0"}, "needs a network address or a video file"),
        ({"decoder": "opencv"}, "needs a network address or a video file"),
    ],
)
def test_a_stream_that_must_not_be_shown_as_it_is_cannot_be_recorded_as_source(
    stream: dict[str, Any], message: str
) -> None:
    record = {"folder": "/tmp/x", "content": "source"}
    raw = {
        "model": {"path": "m.onnx"},
        "streams": [{"name": "door", "source": "rtsp://a/b", "record": record, **stream}],
    }
    with pytest.raises(ConfigError, match=r"record\.content = .source.") as error:
        parse_config(raw, where="edge.toml")
    assert message in str(error.value)


def test_a_child_hears_what_is_wanted_and_tells_how_loud_it_is() -> None:
    wire = Wire(512)
    wire.pump()
    assert wire.sender.wanted == EVERYTHING
    wire.found.wants = Wanted.SOUND
    wire._receiver.tell_wanted()
    assert wire.sender.wanted == Wanted.SOUND
    wire.sender.hear(SoundLevel(-23.5, 7))
    wire.pump()
    wire.close()
    assert wire.found.levels == [SoundLevel(-23.5, 7)]


class Piece:
    """As much of a packet of PyAV as waiting needs."""

    def __init__(self, size: int = 1000) -> None:
        self.size = size


def groups(arrivals_s: Sequence[float], size: int = 1000) -> list[list[float]]:
    """When the packets came that were passed on together."""
    waiting, found = Waiting(0.2), []
    for at in arrivals_s:
        if waiting.add(Piece(size), round(at * 1e9)):
            found.append([arrived_ns / 1e9 for _, arrived_ns in waiting.taken()])
    return found


def test_packets_that_nobody_watches_go_in_groups_and_none_waits_longer_than_it_may() -> None:
    of_20_fps = groups([number / 20 for number in range(100)])
    assert {len(group) for group in of_20_fps[1:]} == {4}
    assert all(group[-1] - group[0] <= 0.2 for group in of_20_fps)
    # the next picture of a slow camera would come too late for this one
    assert all(len(group) == 1 for group in groups([float(number) for number in range(20)])[1:])
    assert max(len(group) for group in groups([number / 1000 for number in range(200)])) == MAX_GROUP
    assert all(len(group) == 1 for group in groups([number / 20 for number in range(20)], 2 << 20))


def test_packets_come_in_groups_while_all_that_take_them_are_patient() -> None:
    queue, viewer = PacketQueue(), Collector()
    tap = PacketTap(queue)
    wire = Wire(512)
    wire.pump()
    assert not wire.sender.is_patient
    receiver = wire._receiver
    receiver._taker = tap
    receiver.tell_wanted()
    assert wire.sender.is_patient
    tap.listen(viewer)
    receiver.tell_wanted()
    assert not wire.sender.is_patient
    wire.sender.take_group([packet(1, 20), packet(2, 30)])
    wire.pump()
    wire.close()
    assert [one.pts for one in viewer.packets] == [1, 2] == [queue.get().pts, queue.get().pts]  # type: ignore[union-attr]


def test_what_a_result_has_not_shown_wakes_nobody() -> None:
    queue = PacketQueue()
    woken = threading.Event()
    taker = threading.Thread(target=lambda: (queue.get(), woken.set()))
    taker.start()
    queue.mark(EventMark(1, 1))
    assert not woken.wait(0.2)
    queue.mark(EventMark(2, 2, ("line_crossed",)))
    assert woken.wait(5)
    taker.join()


def test_a_patient_takers_packet_goes_with_its_picture_and_none_waits_for_a_second_one() -> None:
    wire = Wire(512, can_ride=True)
    wire.pump()
    wire._receiver._taker = queue = PacketQueue()
    wire._receiver.tell_wanted()
    wire.sender.take(packet(1))
    wire.pump()
    assert len(queue) == 0
    (riding,) = wire.sender.riding()
    wire._receiver.take(CodedPicture.model_validate_json(json.dumps(riding)))
    # no picture came of the second
    for number in (2, 3):
        wire.sender.take(packet(number))
    wire.pump()
    wire.sender.take(packet(4))
    wire.sender.flush()
    wire.pump()
    wire.close()
    assert wire.sender.riding() == []
    assert [one.pts for one in drained(queue)] == [1, 2, 3, 4]
