"""The packets of MQTT 3.1.1 and 5 that a publisher, and who takes commands, sends and gets; no sockets, no clocks.

Numbers are those of the OASIS standards, section 2.2 (packets) and 2.2.2 (properties of version 5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14
# what a publisher gets is far smaller; of what others publish it holds the longest topic, and the rest is thrown away
MAX_PACKET_BYTES = 1 << 17
V311, V5 = 4, 5
_QOS, _QOS_1, _RETAIN = 0x06, 0x02, 0x01
# version 5: nothing that is retained is sent when we subscribe
_NO_RETAINED = 0x20
_FAILURE = 0x80
# version 5: property -> bytes of its value; 0: a length and as many bytes, twice for the pair of a user property
_PROPERTY_BYTES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
_TEXTS = {0x12: 1, 0x15: 1, 0x16: 1, 0x1A: 1, 0x1C: 1, 0x1F: 1, 0x26: 2}
_KEEP_ALIVE, _RECEIVE_MAXIMUM, _MAXIMUM_QOS, _MAXIMUM_PACKET = 0x13, 0x21, 0x24, 0x27
_REFUSALS = {
    1: "unsupported protocol version",
    2: "client id not accepted",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorised",
    0x84: "unsupported protocol version",
    0x85: "client id not accepted",
    0x86: "bad user name or password",
    0x87: "not authorised",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8E: "another client took over this client id",
    0x95: "packet too large",
    0x97: "quota exceeded",
    0x9F: "too many connections",
}


class ProtocolError(Exception):
    """The other end sends what a broker must not send to us."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a CONNECT packet says. The will is published, retained, when the connection ends without a DISCONNECT."""

    client_id: str
    username: str | None
    password: str | None
    will_topic: str
    will: str
    keep_alive_s: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a CONNACK packet says.

    Attributes:
        refusal: why we may not come in; empty where we may.
        receive_maximum: messages that may be under way at once.
        max_packet_bytes: of what we send; 0: no limit.
        keep_alive_s: in place of ours; 0: ours.
        has_acknowledgements: whether QoS 1 is offered.
    """

    refusal: str = ""
    receive_maximum: int = 65535
    max_packet_bytes: int = 0
    keep_alive_s: int = 0
    has_acknowledgements: bool = True


def connect(login: Login, version: int) -> bytes:
    """A clean session: what was under way in an earlier one is sent again by the outbox."""
    flags = 0x02 | 0x04 | _QOS_1 << 2 | 0x20
    no_properties = b"\0" if version == V5 else b""
    payload = _text(login.client_id) + no_properties + _text(login.will_topic) + _text(login.will)
    if login.username is not None:
        flags |= 0x80
        payload += _text(login.username)
    if login.password is not None:
        flags |= 0x40
        payload += _text(login.password)
    head = _text("MQTT") + struct.pack("!BBH", version, flags, login.keep_alive_s) + no_properties
    return _packet(CONNECT << 4, head + payload)


def publish(topic: str, payload: str | bytes, number: int, version: int, *, is_retained: bool = False) -> bytes:
    """A message with QoS 1; ``number`` (1 to 65535) is that of its acknowledgement."""
    no_properties = b"\0" if version == V5 else b""
    head = PUBLISH << 4 | _QOS_1 | (_RETAIN if is_retained else 0)
    content = payload.encode() if isinstance(payload, str) else payload
    return _packet(head, _text(topic) + struct.pack("!H", number) + no_properties + content)


@dataclass(frozen=True, slots=True)
class Published:
    """What somebody else has published.

    Attributes:
        payload: as far as it fits into ``MAX_PACKET_BYTES``.
        number: that of the acknowledgement that is due; 0: none is.
        is_retained: the broker has kept it for those who come later.
    """

    topic: str
    payload: bytes
    number: int
    is_retained: bool


def published(flags: int, body: bytes, version: int) -> Published:
    """What a PUBLISH packet with these flags says. Raises: ProtocolError: nothing that we know."""
    qos = (flags & _QOS) >> 1
    start = 2 + int.from_bytes(body[:2], "big")
    end = start + (2 if qos else 0)
    if qos > 1 or len(body) < max(2, end):
        raise ProtocolError("a message that is cut, or that needs more than an acknowledgement")
    number = int.from_bytes(body[start:end], "big")
    if version == V5:
        place, length = _varint(body, end)
        end = place + length
    # a topic that is no text is none of ours
    topic = body[2:start].decode(errors="replace")
    return Published(topic, body[end:], number, bool(flags & _RETAIN))


def acknowledge(number: int) -> bytes:
    """A PUBACK of what somebody else has published."""
    return _packet(PUBACK << 4, struct.pack("!H", number))


def subscribe(topics: Sequence[str], number: int, version: int) -> bytes:
    """Ask for what others publish to these topics, with QoS 1 at most; what is retained there is not wanted."""
    options = 1 | (_NO_RETAINED if version == V5 else 0)
    no_properties = b"\0" if version == V5 else b""
    wanted = b"".join(_text(topic) + bytes([options]) for topic in topics)
    return _packet(SUBSCRIBE << 4 | 0x02, struct.pack("!H", number) + no_properties + wanted)


def subscribed(body: bytes, version: int) -> tuple[int, bool]:
    """The number of a SUBACK's request, and whether the broker grants all of it."""
    if len(body) < 3:
        raise ProtocolError("a SUBACK that is cut")
    place = 2
    if version == V5:
        place, length = _varint(body, 2)
        place += length
    codes = body[place:]
    return int.from_bytes(body[:2], "big"), bool(codes) and max(codes) < _FAILURE


def ping() -> bytes:
    """A PINGREQ."""
    return _packet(PINGREQ << 4, b"")


def goodbye() -> bytes:
    """A DISCONNECT that takes the will back."""
    return _packet(DISCONNECT << 4, b"")


class PacketReader:
    """Cuts what comes into packets, and keeps no more than one of them.

    Attributes:
        takes_messages: whether others' messages come, of any length: what is beyond ``MAX_PACKET_BYTES`` is lost.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._unwanted = 0
        self.takes_messages = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The first byte (kind << 4 | flags) and the body of each packet that is whole now.

        Raises:
            ProtocolError: one is announced that is too long, or its length is no number.
        """
        self._data += data
        while (found := self._next()) is not None:
            yield found

    def _next(self) -> tuple[int, bytes] | None:
        if self._unwanted:
            gone = min(self._unwanted, len(self._data))
            del self._data[:gone]
            self._unwanted -= gone
        length, shift = 0, 0
        for place, byte in enumerate(self._data[1:5], start=2):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return self._cut(place, length)
        if len(self._data) >= 5:
            raise ProtocolError("a packet without a length")
        return None

    def _cut(self, start: int, length: int) -> tuple[int, bytes] | None:
        kept = min(length, MAX_PACKET_BYTES)
        if kept < length and not (self.takes_messages and self._data[0] >> 4 == PUBLISH):
            raise ProtocolError(f"a packet of {length} bytes, expected at most {MAX_PACKET_BYTES}")
        if len(self._data) < start + kept:
            return None
        head, body = self._data[0], bytes(self._data[start : start + kept])
        del self._data[: start + kept]
        self._unwanted = length - kept
        return head, body


def welcome(body: bytes, version: int) -> Welcome:
    """What a CONNACK's body says. Raises: ProtocolError: nothing that we know."""
    if len(body) < 2:
        raise ProtocolError("a CONNACK that is cut")
    if body[1] != 0:
        return Welcome(_REFUSALS.get(body[1], f"reason 0x{body[1]:02x}"))
    if version != V5:
        return Welcome()
    numbers = dict(_properties(body[2:]))
    return Welcome(
        receive_maximum=max(1, numbers.get(_RECEIVE_MAXIMUM, 65535)),
        max_packet_bytes=numbers.get(_MAXIMUM_PACKET, 0),
        keep_alive_s=numbers.get(_KEEP_ALIVE, 0),
        has_acknowledgements=numbers.get(_MAXIMUM_QOS, 1) > 0,
    )


def acknowledged(body: bytes) -> tuple[int, str]:
    """The number of a PUBACK's message, and why the broker did not take it; empty where it did."""
    if len(body) < 2:
        raise ProtocolError("a PUBACK that is cut")
    reason = body[2] if len(body) > 2 else 0
    return int.from_bytes(body[:2], "big"), _reason(reason) if reason >= _FAILURE else ""


def farewell(body: bytes) -> str:
    """Why the broker ends the connection, as a DISCONNECT's body says."""
    return _reason(body[0]) if body else "no reason"


def _reason(code: int) -> str:
    return _REFUSALS.get(code, f"reason 0x{code:02x}")


def _properties(data: bytes) -> Iterator[tuple[int, int]]:
    """Property and value of those that are numbers."""
    place, length = _varint(data, 0)
    end = place + length
    if end > len(data):
        raise ProtocolError("properties that are cut")
    while place < end:
        kind = data[place]
        place += 1
        if size := _PROPERTY_BYTES.get(kind):
            yield kind, int.from_bytes(data[place : place + size], "big")
            place += size
            continue
        if kind not in _TEXTS:
            raise ProtocolError(f"property 0x{kind:02x}")
        for _ in range(_TEXTS[kind]):
            place += 2 + int.from_bytes(data[place : place + 2], "big")
    if place != end:
        raise ProtocolError("properties that are cut")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Where the number ends, and the number."""
    value = 0
    for digit in range(4):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << 7 * digit
        if byte < 0x80:
            return place, value
    raise ProtocolError("a length that is no number")


def _packet(head: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([head]) + bytes(digits) + body


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) > 0xFFFF:
        raise ValueError(f"a text of {len(data)} bytes, expected at most {0xFFFF}")
    return struct.pack("!H", len(data)) + data
