"""Commands from a broker: what is one, what is refused, how often they are carried out."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from edge.sinks.mqtt_commands import Commands
from edge.sinks.mqtt_packets import (
    MAX_PACKET_BYTES,
    PUBLISH,
    V5,
    V311,
    PacketReader,
    ProtocolError,
    Published,
    publish,
    published,
)


class Device:
    """Streams that are switched, and a clock."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.done: list[tuple[str, str, bool]] = []
        self.commands = Commands("site/edge", lambda: ["door", "yard"], self.switch, lambda: self.now_s)

    def switch(self, stream: str, part: str, *, is_on: bool) -> None:
        if stream == "yard" and part == "recording":
            raise ConfigError("stream 'yard' records nothing")
        self.done.append((stream, part, is_on))

    def take(self, topic: str, payload: bytes, *, is_retained: bool = False) -> None:
        self.commands.take(Published(topic, payload, 1, is_retained))


def test_a_command_is_carried_out() -> None:
    device = Device()
    device.take("site/edge/door/analysis/set", b"OFF")
    assert device.commands.carry_out() == (True, None)
    assert device.done == [("door", "analysis", False)]
    assert device.commands.carry_out() == (False, None)


@pytest.mark.parametrize(
    ("topic", "payload", "is_retained", "reason"),
    [
        ("site/edge/door/analysis/set", b"off", False, "expected ON or OFF, found 3 other bytes"),
        ("site/edge/door/analysis/set", b"", False, "expected ON or OFF, found 0 other bytes"),
        ("site/edge/door/analysis/set", b"\xff" * 70_000, False, "found 70000 other bytes"),
        ("site/edge/door/analysis/set", b"OFF", True, "a retained command is not carried out"),
        ("site/edge/gate/analysis/set", b"OFF", False, "no stream of this name runs; running: door, yard"),
        ("site/edge/yard/recording/set", b"OFF", False, "stream 'yard' records nothing"),
        ("site/edge/door/model/set", b"OFF", False, "expected site/edge/STREAM/analysis/set"),
        ("site/edge/door/analysis/get", b"OFF", False, "expected site/edge/STREAM/analysis/set"),
        ("other/door/analysis/set", b"OFF", False, "expected site/edge/STREAM/analysis/set"),
    ],
)
def test_what_is_no_command_is_told_and_changes_nothing(
    topic: str, payload: bytes, is_retained: bool, reason: str
) -> None:
    device = Device()
    device.take(topic, payload, is_retained=is_retained)
    refused: Any = device.commands.carry_out()[1]
    assert device.done == []
    assert refused["topic"] == topic and reason in refused["reason"] and refused["count"] == 1


def test_a_flood_is_one_change_a_second_and_one_answer() -> None:
    device = Device()
    for number in range(10_000):
        device.take("site/edge/door/analysis/set", b"ON" if number % 2 else b"OFF")
        device.take(f"site/edge/{number}\x1b[2J\n/analysis/set", b"ON")
        device.commands.carry_out()
    assert device.done == [("door", "analysis", False)]
    device.now_s += 1
    refused: Any = device.commands.carry_out()[1]
    assert device.done == [("door", "analysis", False), ("door", "analysis", True)]
    assert refused["count"] == 9_999 and refused["topic"].isprintable()


def test_a_topic_without_end_is_cut_where_it_is_told() -> None:
    device = Device()
    device.take(f"site/edge/{'x' * 60_000}/analysis/set", b"ON")
    refused: Any = device.commands.carry_out()[1]
    assert len(refused["topic"]) == 100


@given(st.binary(max_size=64), st.text(max_size=40))
def test_no_message_breaks_anything(payload: bytes, topic: str) -> None:
    device = Device()
    device.take(topic, payload)
    device.commands.carry_out()
    assert device.done == []


@pytest.mark.parametrize("version", [V311, V5])
@given(payload=st.binary(max_size=300), step=st.integers(1, 400))
def test_messages_of_others_are_read_in_any_pieces(version: int, payload: bytes, step: int) -> None:
    data = publish("edge/door/analysis/set", payload, 7, version) * 2
    reader = PacketReader()
    reader.takes_messages = True
    found = [one for at in range(0, len(data), step) for one in reader.feed(data[at : at + step])]
    assert [head >> 4 for head, _ in found] == [PUBLISH] * 2
    for head, body in found:
        assert published(head & 0x0F, body, version) == Published("edge/door/analysis/set", payload, 7, False)


@pytest.mark.parametrize("size", [MAX_PACKET_BYTES - 1, MAX_PACKET_BYTES, 3 * MAX_PACKET_BYTES])
def test_of_a_huge_message_only_its_beginning_is_kept_and_what_follows_is_read(size: int) -> None:
    huge, small = publish("a/set", b"\0" * size, 1, V311), publish("a/set", b"ON", 2, V311)
    reader = PacketReader()
    reader.takes_messages = True
    found, held = [], 0
    for at in range(0, len(huge), 10_000):
        found += list(reader.feed(huge[at : at + 10_000]))
        held = max(held, len(reader._data))
    found += list(reader.feed(small))
    messages = [published(head & 0x0F, body, V311) for head, body in found]
    assert [one.number for one in messages] == [1, 2]
    assert messages[1].payload == b"ON" and len(messages[0].payload) <= MAX_PACKET_BYTES
    assert held <= MAX_PACKET_BYTES + 10_000


def test_who_has_not_subscribed_takes_no_huge_message() -> None:
    with pytest.raises(ProtocolError, match="expected at most"):
        list(PacketReader().feed(publish("a/set", b"\0" * 2 * MAX_PACKET_BYTES, 1, V311)))


@given(st.binary(max_size=40), st.integers(0, 15), st.sampled_from([V311, V5]))
def test_a_damaged_message_is_a_protocol_error_or_a_message(body: bytes, flags: int, version: int) -> None:
    with suppress(ProtocolError):
        assert isinstance(published(flags, body, version), Published)
