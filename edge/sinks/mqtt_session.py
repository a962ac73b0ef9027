"""One connection to an MQTT broker: every wait has a deadline, and nothing that nobody asked for is taken.

What others publish is taken only after ``subscribe``, and acknowledged whatever it says.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edge.net.timed_socket import Limits, TimedSocket
from edge.sinks import mqtt_packets as packets
from edge.sinks.mqtt_packets import Login, PacketReader, ProtocolError, Published

# brokers let so many through at once by default
WINDOW = 20
CHUNK_BYTES = 1 << 14
# acknowledgements of a batch, or answers to pings, are far smaller
MAX_ANSWER_BYTES = 1 << 18
# where others may publish to us as well, between two of our uses of the connection
MAX_OTHERS_BYTES = 1 << 27
# what is there already is read, but not without end
MAX_TEND_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Message:
    """What is published with QoS 1."""

    topic: str
    payload: str | bytes
    is_retained: bool = False


class RefusedError(Exception):
    """The broker answered, and does not let us in."""


class MqttSession:
    """Used by one thread. After any error it is of no more use than to be closed."""

    def __init__(
        self, address: tuple[str, int], tls: ssl.SSLContext | None, login: Login, version: int, timeout_s: float
    ) -> None:
        """Connect and log in.

        Args:
            address: host and port.
            tls: how the certificate is checked; None: no TLS.
            login: who we are.
            version: ``V311`` or ``V5``.
            timeout_s: for the connection, and for each later answer.

        Raises:
            OSError: the broker cannot be reached, or does not answer in time (TimeoutError).
            RefusedError: it lets nobody in.
            ProtocolError: it speaks no MQTT.
        """
        self._version = version
        self._timeout_s = timeout_s
        self._limits = Limits()
        self._reader = PacketReader()
        self._number = 0
        self._under_way: dict[int, int] = {}
        self._answers: dict[int, str] = {}
        self._pinged_s: float | None = None
        self._on_message: Callable[[Published], None] | None = None
        self._is_granted: bool | None = None
        self._asked = 0
        self._grant()
        self._socket = TimedSocket.connect(*address, self._limits, tls)
        with ExitStack() as undo:
            undo.callback(self._socket.close)
            self._log_in(login)
            undo.pop_all()

    def publish(self, messages: Sequence[Message]) -> list[str]:
        """Send messages, and wait for their acknowledgements.

        Returns:
            Of the first messages, up to the first that got none in time: why the broker refused each, empty if it took
            it.

        Raises:
            OSError, ProtocolError: not even the first got one.
        """
        self._grant()
        self._answers, self._under_way = {}, {}
        try:
            self._send_all(messages)
        except (OSError, ProtocolError):
            # what was acknowledged before that counts
            if 0 not in self._answers:
                raise
        done = [index for index in range(len(messages)) if index in self._answers]
        in_order = [index for place, index in enumerate(done) if place == index]
        return [self._answers[index] for index in in_order]

    def subscribe(self, topics: Sequence[str], on_message: Callable[[Published], None]) -> bool:
        """Take what others publish to these topics from now on; whether the broker grants that.

        Args:
            topics: filters of topics.
            on_message: told of each message, within any later use of this connection; must be quick and raise nothing.

        Raises:
            OSError, ProtocolError: it did not answer.
        """
        self._grant()
        self._asked = self._next_number()
        self._on_message, self._reader.takes_messages = on_message, True
        self._send(packets.subscribe(topics, self._asked, self._version))
        while self._is_granted is None:
            self._take(self._received())
        return self._is_granted

    def tend(self) -> None:
        """Answer the keep-alive, and hear whether the broker has gone; never waits.

        Raises:
            OSError: it has, or is silent.
            ProtocolError: it sends what nobody asked for.
        """
        now_s = time.monotonic()
        if self._pinged_s is not None and now_s - self._pinged_s > self._timeout_s:
            raise TimeoutError("no answer to a ping")
        self._grant()
        left = MAX_TEND_BYTES
        while left > 0 and (data := self._socket.recv_ready(CHUNK_BYTES)) is not None:
            self._take(data)
            left -= len(data)
        if self._pinged_s is None and now_s - self._sent_s > self._keep_alive_s / 2:
            self._pinged_s = now_s
            self._send(packets.ping())

    def close(self, *, is_clean: bool = False) -> None:
        """End the connection; a clean end sends no will. May be called twice."""
        if is_clean:
            try:
                self._grant()
                self._send(packets.goodbye())
            except OSError:
                # it has gone already
                pass
        self._socket.close()

    def _log_in(self, login: Login) -> None:
        self._keep_alive_s = login.keep_alive_s
        self._send(packets.connect(login, self._version))
        found: list[tuple[int, bytes]] = []
        while not found:
            found = list(self._reader.feed(self._received()))
        head, body = found[0]
        kind = head >> 4
        if kind != packets.CONNACK or len(found) > 1:
            raise ProtocolError(f"packet {kind} in place of a CONNACK")
        welcome = packets.welcome(body, self._version)
        if welcome.refusal:
            raise RefusedError(welcome.refusal)
        if not welcome.has_acknowledgements:
            raise RefusedError("it acknowledges nothing: QoS 1 is needed")
        self._window = min(WINDOW, welcome.receive_maximum)
        self._max_bytes = welcome.max_packet_bytes
        self._keep_alive_s = welcome.keep_alive_s or login.keep_alive_s

    def _send_all(self, messages: Sequence[Message]) -> None:
        next_index = 0
        while next_index < len(messages) or self._under_way:
            while next_index < len(messages) and len(self._under_way) < self._window:
                self._begin(next_index, messages[next_index])
                next_index += 1
            if self._under_way:
                self._take(self._received())

    def _begin(self, index: int, message: Message) -> None:
        self._next_number()
        topic, payload = message.topic, message.payload
        data = packets.publish(topic, payload, self._number, self._version, is_retained=message.is_retained)
        if self._max_bytes and len(data) > self._max_bytes:
            self._answers[index] = f"it takes at most {self._max_bytes} bytes"
            return
        self._under_way[self._number] = index
        self._send(data)

    def _next_number(self) -> int:
        self._number = self._number % 0xFFFF + 1
        return self._number

    def _hear(self, message: Published) -> None:
        assert self._on_message is not None
        if message.number:
            self._send(packets.acknowledge(message.number))
        self._on_message(message)

    def _take(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("the broker has closed the connection")
        for head, body in self._reader.feed(data):
            kind = head >> 4
            if kind == packets.PUBLISH and self._on_message is not None:
                self._hear(packets.published(head & 0x0F, body, self._version))
            elif kind == packets.SUBACK and self._asked:
                number, self._is_granted = packets.subscribed(body, self._version)
                if number != self._asked:
                    raise ProtocolError(f"an answer to request {number}, which nobody has made")
                self._asked = 0
            elif kind == packets.PUBACK:
                number, refusal = packets.acknowledged(body)
                index = self._under_way.pop(number, None)
                if index is None:
                    raise ProtocolError(f"an acknowledgement of message {number}, which is not under way")
                self._answers[index] = refusal
            elif kind == packets.PINGRESP and self._pinged_s is not None:
                self._pinged_s = None
            elif kind == packets.DISCONNECT and self._version == packets.V5:
                raise ConnectionError(f"the broker ends the connection: {packets.farewell(body)}")
            else:
                raise ProtocolError(f"packet {kind}, which nobody asked for")

    def _grant(self) -> None:
        max_bytes = MAX_ANSWER_BYTES if self._on_message is None else MAX_OTHERS_BYTES
        self._limits.grant(time.monotonic() + self._timeout_s, max_bytes)

    def _received(self) -> bytes:
        data = self._socket.recv(CHUNK_BYTES)
        if not data:
            raise ConnectionError("the broker has closed the connection")
        return data

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)
        self._sent_s = time.monotonic()
