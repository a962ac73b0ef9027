"""One connection to an MQTT broker: every wait has a deadline, and nothing that nobody asked for is taken."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edge.net.timed_socket import Limits, TimedSocket
from edge.sinks import mqtt_packets as packets
from edge.sinks.mqtt_packets import Login, PacketReader, ProtocolError

# brokers let so many through at once by default
WINDOW = 20
CHUNK_BYTES = 1 << 14
# acknowledgements of a batch, or answers to pings, are far smaller
MAX_ANSWER_BYTES = 1 << 18


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
        if (data := self._socket.recv_ready(CHUNK_BYTES)) is not None:
            self._take(data)
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
        kind, body = found[0]
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
        self._number = self._number % 0xFFFF + 1
        topic, payload = message.topic, message.payload
        data = packets.publish(topic, payload, self._number, self._version, is_retained=message.is_retained)
        if self._max_bytes and len(data) > self._max_bytes:
            self._answers[index] = f"it takes at most {self._max_bytes} bytes"
            return
        self._under_way[self._number] = index
        self._send(data)

    def _take(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("the broker has closed the connection")
        for kind, body in self._reader.feed(data):
            if kind == packets.PUBACK:
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
        self._limits.grant(time.monotonic() + self._timeout_s, MAX_ANSWER_BYTES)

    def _received(self) -> bytes:
        data = self._socket.recv(CHUNK_BYTES)
        if not data:
            raise ConnectionError("the broker has closed the connection")
        return data

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)
        self._sent_s = time.monotonic()
