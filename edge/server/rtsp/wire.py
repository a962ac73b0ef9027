"""Between the daemon and its RTSP process: packets one way, what is watched the other."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge.video.encoder import Packet

# kind, length of the path, of the rest, pts, delay, is key, wall clock in ns
HEAD = struct.Struct("!cHIqIBq")
SETUP, FORM, PACKET, SOUND = b"S", b"F", b"P", b"A"
MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """What the daemon says.

    Attributes:
        kind: ``SETUP`` (JSON), ``FORM`` (JSON: codec and header of a path and of its sound), ``PACKET`` (a picture),
            ``SOUND`` (a piece of it).
        path: of the stream.
        data: JSON, or what is coded.
    """

    kind: bytes
    path: str
    data: bytes
    pts: int = 0
    delay: int = 0
    is_key: bool = False
    wall_ns: int = 0

    @classmethod
    def of_facts(cls, kind: bytes, path: str, facts: dict[str, Any]) -> Message:
        return cls(kind, path, json.dumps(facts).encode())

    @classmethod
    def of_packet(cls, path: str, packet: Packet, wall_ns: int) -> Message:
        return cls(PACKET, path, packet.data, packet.pts, packet.delay, packet.is_key, wall_ns)

    @classmethod
    def of_sound(cls, path: str, data: bytes, pts: int, wall_ns: int) -> Message:
        return cls(SOUND, path, data, pts, wall_ns=wall_ns)

    @property
    def facts(self) -> Any:
        return json.loads(self.data)

    @property
    def packet(self) -> Packet:
        return Packet(self.data, self.pts, self.is_key, self.delay)

    def pack(self) -> bytes:
        name = self.path.encode()
        head = HEAD.pack(self.kind, len(name), len(self.data), self.pts, self.delay, self.is_key, self.wall_ns)
        return head + name + self.data


class Reader:
    """Puts messages together from what comes."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """More has come: the messages that are whole now."""
        self._waiting += data
        while len(self._waiting) >= HEAD.size:
            kind, path_bytes, num_bytes, pts, delay, is_key, wall_ns = HEAD.unpack_from(self._waiting)
            end = HEAD.size + path_bytes + num_bytes
            if len(self._waiting) < end:
                return
            path = bytes(self._waiting[HEAD.size : HEAD.size + path_bytes]).decode()
            body = bytes(self._waiting[HEAD.size + path_bytes : end])
            del self._waiting[:end]
            yield Message(kind, path, body, pts, delay, bool(is_key), wall_ns)
