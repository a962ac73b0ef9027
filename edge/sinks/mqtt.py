"""Event target that publishes to an MQTT broker, with birth and will messages and Home Assistant discovery."""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import SinkError
from edge.events.delivery import Delivered
from edge.sinks.home_assistant import OFFLINE, ONLINE, Standing, discovery, state_of
from edge.sinks.mqtt_commands import Commands
from edge.sinks.mqtt_packets import V5, V311, Login, ProtocolError
from edge.sinks.mqtt_session import Message, MqttSession, RefusedError
from edge.sinks.retained import Retained

if TYPE_CHECKING:
    from edge.config.events import MqttSettings
    from edge.events.stored import StoredEvent
    from edge.interfaces import Switch

log = logging.getLogger(__name__)
KEEP_ALIVE_S = 30
MQTT_PORT, MQTTS_PORT = 1883, 8883
# of a stream and a broker: what changes faster is told once in this time
STATE_S = 1.0
# somebody who sends nonsense must not fill the log
REPORT_EVERY_S = 60.0
MAX_PICTURE_BYTES = 2 << 20


class MqttTarget:
    """Publishes with QoS 1: an event counts as delivered when the broker's PUBACK is there.

    Args:
        settings: of the broker.
        streams: gives the names of the streams that run now, for discovery; asked now and then.
        node: what the device is called in client id and discovery.
        standings: gives how the streams stand now, for Home Assistant.
        memory: a file for the topics that Home Assistant reads; None: what goes while nothing runs stays there.
        switch: carries out what comes from the broker, where the settings allow that.
    """

    def __init__(
        self,
        settings: MqttSettings,
        streams: Callable[[], Sequence[str]],
        node: str,
        standings: Callable[[], Mapping[str, Standing]] = dict,
        memory: Path | None = None,
        switch: Switch | None = None,
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._streams = streams
        self._standings = standings
        self._told_s = float("-inf")
        self._retained = Retained(memory)
        self._node = node
        takes_commands = settings.commands and switch is not None
        self._commands = Commands(settings.topic, streams, switch) if takes_commands and switch else None
        # whether the broker lets us hear them
        self._is_heard = False
        self._refusal_told_s = float("-inf")
        port = settings.port or (MQTTS_PORT if settings.tls else MQTT_PORT)
        self._address = (settings.host, port)
        self._session: MqttSession | None = None

    def deliver(self, events: Sequence[StoredEvent]) -> Delivered:
        topic = self._settings.topic
        messages = [Message(f"{topic}/{event.stream}/events", event.body) for event in events]
        with self._in_words():
            session = self._connected()
            refusals = session.publish(messages)
        if len(refusals) < len(messages):
            # a new session forgets what is still under way, which is sent again
            self._drop()
        if refusals[0]:
            log.error("%s: event %s was refused by %s: %s", self.name, events[0].id, self._label, refusals[0])
            return Delivered(0, 1)
        if self._session is session:
            # what the broker has is acknowledged, whatever becomes of this
            with suppress(SinkError), self._in_words():
                self._tell_of_streams(session)
                if self._settings.discovery is not None:
                    self._show(session, events)
        num_taken = next((place for place, refusal in enumerate(refusals) if refusal), len(refusals))
        return Delivered(num_taken)

    def try_login(self) -> None:
        """Log in and out again, and say nothing to anybody.

        Raises:
            SinkError: the broker cannot be reached, or lets nobody in.
        """
        with self._in_words():
            # a clean end sends no will
            self._logged_in().close(is_clean=True)

    def keep_alive(self) -> None:
        """Stay connected while nothing happens, so that the birth message is true; tell of streams that came or went.

        Raises:
            SinkError: the broker cannot be reached.
        """
        with self._in_words():
            self._connected()

    def close(self) -> None:
        if self._session is not None:
            with suppress(SinkError), self._in_words():
                self._session.tend()
                # a clean end sends no will
                self._session.publish([Message(f"{self._settings.topic}/status", OFFLINE, is_retained=True)])
                self._session.close(is_clean=True)
        self._drop()

    @property
    def _label(self) -> str:
        return f"mqtt broker {self._address[0]}:{self._address[1]}"

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what a connection says within the block into a ``SinkError``; the connection ends."""
        is_known = self._session is not None
        try:
            yield
        except RefusedError as error:
            text = f"let nobody in ({error})"
        except ProtocolError as error:
            text = f"is no good: it sent {error}"
        except TimeoutError:
            what = "acknowledgement" if is_known or self._session is not None else "answer"
            text = f"is silent: no {what} within {self._settings.timeout_s:g} s"
        except (OSError, ValueError) as error:
            text = f"cannot be reached ({getattr(error, 'strerror', None) or error})"
        else:
            return
        self._drop()
        raise SinkError(f"{self._label} {text}")

    def _connected(self) -> MqttSession:
        if self._session is not None:
            self._session.tend()
        else:
            self._session = self._logged_in()
            self._announce(self._session)
        self._tell_of_streams(self._session)
        return self._session

    def _logged_in(self) -> MqttSession:
        settings = self._settings
        version = V5 if settings.protocol == "5" else V311
        tls = self._tls() if settings.tls else None
        return MqttSession(self._address, tls, self._login(), version, settings.timeout_s)

    def _login(self) -> Login:
        settings = self._settings
        return Login(
            client_id=settings.client_id or f"edgeloop-{self._node}",
            username=settings.username,
            password=self._password(),
            will_topic=f"{settings.topic}/status",
            will=OFFLINE,
            keep_alive_s=KEEP_ALIVE_S,
        )

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.tls_ca_file)
            if settings.tls_cert_file is not None:
                context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SinkError(f"{self._label}: the TLS files cannot be used ({reason})") from None
        return context

    def _password(self) -> str | None:
        path = self._settings.password_file
        if path is None:
            return None
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise SinkError(f"mqtt.password_file: {path} cannot be read; expected one line of text") from None

    def _announce(self, session: MqttSession) -> None:
        """The birth message, kept by the broker for those who come later; what it knew of the streams is forgotten."""
        self._tell(session, [Message(f"{self._settings.topic}/status", ONLINE, is_retained=True)])
        # the broker may be another one, or may have forgotten
        self._retained.forget_texts()
        self._told_s = float("-inf")
        if self._commands is not None:
            self._is_heard = session.subscribe(self._commands.topics, self._commands.take)
            if not self._is_heard:
                log.warning("%s: %s lets nobody subscribe to commands", self.name, self._label)

    def _tell_of_streams(self, session: MqttSession) -> None:
        """Carry out what was asked for, and publish what has changed of entities and states."""
        self._obey(session)
        self._tell_standings(session)

    def _obey(self, session: MqttSession) -> None:
        if self._commands is None:
            return
        has_changed, refused = self._commands.carry_out()
        if has_changed:
            # who has switched is told at once how it stands now
            self._told_s = float("-inf")
        if refused is None:
            return
        if time.monotonic() - self._refusal_told_s >= REPORT_EVERY_S:
            self._refusal_told_s = time.monotonic()
            log.warning("%s: a command to %s was refused: %s", self.name, refused["topic"], refused["reason"])
        text = json.dumps(refused, separators=(",", ":"))
        self._tell(session, [Message(f"{self._settings.topic}/refused", text)])

    def _tell_standings(self, session: MqttSession) -> None:
        """Publish what has changed of entities and states; an empty message takes back what is gone."""
        is_wanted = self._settings.discovery is not None or self._commands is not None
        if not (is_wanted or self._retained) or time.monotonic() - self._told_s < STATE_S:
            return
        self._told_s = time.monotonic()
        streams = self._streams() if is_wanted else ()
        standings = self._standings() if is_wanted else {}
        wanted = discovery(self._settings, streams, self._node, standings, has_switches=self._is_heard)
        for name, standing in standings.items():
            text = json.dumps(state_of(standing), separators=(",", ":"))
            wanted[f"{self._settings.topic}/{name}/state"] = text
        pictures = {self._picture_topic(name) for name in streams}
        # what a stream counts is known with its standing: until then nothing of it is taken back
        is_whole = all(name in standings and standings[name].counts is not None for name in streams)
        missing = self._retained.missing(wanted, pictures, is_whole=is_whole)
        self._tell(session, [Message(topic, text, is_retained=True) for topic, text in missing.items()])
        self._retained.published(wanted, pictures, is_whole=is_whole)

    def _picture_topic(self, stream: str) -> str:
        return f"{self._settings.topic}/{stream}/snapshot"

    def _show(self, session: MqttSession, events: Sequence[StoredEvent]) -> None:
        """Publish the picture of each stream's last event, where there is one."""
        pictures = {event.stream: picture for event in events if (picture := _picture_of(event))}
        messages = [Message(self._picture_topic(name), data, is_retained=True) for name, data in pictures.items()]
        self._tell(session, messages)
        self._retained.add(message.topic for message in messages)

    def _tell(self, session: MqttSession, messages: Sequence[Message]) -> None:
        if not messages:
            return
        refusals = session.publish(messages)
        if len(refusals) < len(messages):
            raise TimeoutError
        for message, refusal in zip(messages, refusals, strict=True):
            if refusal:
                log.warning("%s: %s was refused by %s: %s", self.name, message.topic, self._label, refusal)

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _picture_of(event: StoredEvent) -> bytes:
    """The JPEG that the event links to; empty where it has none, or it is gone."""
    try:
        path = Path(json.loads(event.body)["links"]["snapshot"])
        return path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else b""
    except (OSError, ValueError, KeyError, TypeError):
        return b""
