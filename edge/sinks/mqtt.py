"""Event target that publishes to an MQTT broker, with birth and will messages and Home Assistant discovery."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.errors import MissingError, SinkError
from edge.events.delivery import Delivered

if TYPE_CHECKING:
    from edge.config.events import MqttSettings
    from edge.events.outbox import StoredEvent

QOS_ACKNOWLEDGED = 1
KEEP_ALIVE_S = 30
MQTT_PORT, MQTTS_PORT = 1883, 8883
ONLINE, OFFLINE = "online", "offline"


class MqttTarget:
    """Publishes with QoS 1: an event counts as delivered when the broker's PUBACK is there.

    Args:
        settings: of the broker.
        streams: gives the names of the streams that run now, for discovery; asked now and then.
        node: what the device is called in client id and discovery.

    Raises:
        MissingError: paho-mqtt is not installed.
    """

    def __init__(self, settings: MqttSettings, streams: Callable[[], Sequence[str]], node: str) -> None:
        self.name = settings.name
        self._settings = settings
        self._streams = streams
        self._discovered: Mapping[str, str] = {}
        self._node = node
        port = settings.port or (MQTTS_PORT if settings.tls else MQTT_PORT)
        self._address = (settings.host, port)
        self._client: Any = None
        self._up = threading.Event()
        self._answered = threading.Event()
        self._refusal = ""
        _paho()

    def deliver(self, events: Sequence[StoredEvent]) -> Delivered:
        client = self._connected()
        topic = self._settings.topic
        sent = [client.publish(f"{topic}/{event.stream}/events", event.body, QOS_ACKNOWLEDGED) for event in events]
        deadline = time.monotonic() + self._settings.timeout_s
        num_taken = 0
        for info in sent:
            if not self._is_acknowledged(info, deadline):
                break
            num_taken += 1
        if num_taken < len(sent):
            # what is still under way would be sent a second time by the client itself
            self._drop()
        if not num_taken:
            raise SinkError(f"{self._label}: no acknowledgement within {self._settings.timeout_s:g} s")
        return Delivered(num_taken)

    def keep_alive(self) -> None:
        """Stay connected while nothing happens, so that the birth message is true; tell of streams that came or went.

        Raises:
            SinkError: the broker cannot be reached.
        """
        self._connected()

    def close(self) -> None:
        if self._client is not None and self._up.is_set():
            # a clean end sends no will
            info = self._client.publish(f"{self._settings.topic}/status", OFFLINE, QOS_ACKNOWLEDGED, retain=True)
            self._is_acknowledged(info, time.monotonic() + 1.0)
            self._client.disconnect()
        self._drop()

    @property
    def _label(self) -> str:
        return f"mqtt broker {self._address[0]}:{self._address[1]}"

    def _connected(self) -> Any:
        if self._client is not None and self._up.is_set():
            self._discover()
            return self._client
        self._drop()
        self._client = self._new_client()
        try:
            self._client.connect(*self._address, keepalive=KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            self._drop()
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise SinkError(f"{self._label} cannot be reached ({reason})") from None
        self._client.loop_start()
        self._answered.wait(self._settings.timeout_s)
        if not self._up.is_set():
            reason = self._refusal or f"no answer within {self._settings.timeout_s:g} s"
            self._drop()
            raise SinkError(f"{self._label} let nobody in ({reason})")
        self._announce()
        return self._client

    def _new_client(self) -> Any:
        settings, paho = self._settings, _paho()
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or f"edgeloop-{self._node}",
            protocol=paho.MQTTv5 if settings.protocol == "5" else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = settings.timeout_s
        client.will_set(f"{settings.topic}/status", OFFLINE, QOS_ACKNOWLEDGED, retain=True)
        if settings.username is not None:
            client.username_pw_set(settings.username, self._password())
        if settings.tls:
            client.tls_set_context(self._tls())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        self._up.clear()
        self._answered.clear()
        self._refusal = ""
        return client

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
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise SinkError(f"mqtt.password_file: {path} cannot be read; expected one line of text") from None

    def _on_connect(self, client: Any, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        # another client's callback must not speak for this one
        if client is not self._client:
            return
        if reason.is_failure:
            self._refusal = str(reason)
        else:
            self._up.set()
        self._answered.set()

    def _on_disconnect(self, client: Any, *_: object) -> None:
        if client is self._client:
            self._up.clear()

    def _announce(self) -> None:
        """Birth message and discovery, kept by the broker for those who come later."""
        self._client.publish(f"{self._settings.topic}/status", ONLINE, QOS_ACKNOWLEDGED, retain=True)
        # the broker may be another one, or may have forgotten
        gone = set(self._discovered) - set(discovery(self._settings, self._streams(), self._node))
        self._discovered = dict.fromkeys(gone, "")
        self._discover()

    def _discover(self) -> None:
        """Publish what has changed since the last time; an empty message takes back what is gone."""
        wanted = discovery(self._settings, self._streams(), self._node)
        if wanted == self._discovered:
            return
        changed = {topic: text for topic, text in wanted.items() if self._discovered.get(topic) != text}
        gone = dict.fromkeys(set(self._discovered) - set(wanted), "")
        for topic, text in (gone | changed).items():
            self._client.publish(topic, text, QOS_ACKNOWLEDGED, retain=True)
        self._discovered = wanted

    def _is_acknowledged(self, info: Any, deadline: float) -> bool:
        """Wait for the PUBACK as long as the connection lasts."""
        while self._up.is_set() and time.monotonic() < deadline:
            try:
                info.wait_for_publish(0.1)
            except (ValueError, RuntimeError):
                return False
            if info.is_published():
                return True
        return bool(info.rc == 0 and info.is_published())

    def _drop(self) -> None:
        client, self._client = self._client, None
        self._up.clear()
        if client is not None:
            client.loop_stop()


def discovery(settings: MqttSettings, streams: Sequence[str], node: str) -> dict[str, str]:
    """Topic → retained message that makes Home Assistant show each stream's events and whether we are online."""
    if settings.discovery is None:
        return {}
    status = {"topic": f"{settings.topic}/status", "payload_available": ONLINE, "payload_not_available": OFFLINE}
    device = {"identifiers": [f"edgeloop-{node}"], "name": f"Edgeloop {node}", "manufacturer": "Edgeloop"}
    found: dict[str, dict[str, object]] = {
        f"{settings.discovery}/binary_sensor/edgeloop-{node}/status/config": {
            "name": "Status",
            "unique_id": f"edgeloop-{node}-status",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": status["topic"],
            "payload_on": ONLINE,
            "payload_off": OFFLINE,
            "device": device,
        }
    }
    for stream in streams:
        found[f"{settings.discovery}/event/edgeloop-{node}/{stream}/config"] = {
            "name": stream,
            "unique_id": f"edgeloop-{node}-{stream}",
            "state_topic": f"{settings.topic}/{stream}/events",
            "event_types": list(EVENT_KINDS),
            "value_template": "{{ dict(value_json, event_type=value_json.kind) | tojson }}",
            "availability": [status],
            "device": device,
        }
    return {topic: json.dumps(message, separators=(",", ":")) for topic, message in found.items()}


# Home Assistant refuses kinds that were not announced
EVENT_KINDS = (
    "line_crossed",
    "zone_entered",
    "zone_left",
    "zone_loitering",
    "zone_crowded",
    "object_stopped",
    "camera_offline",
    "camera_frozen",
    "camera_dark",
    "camera_overexposed",
    "camera_defocused",
    "camera_covered",
    "camera_moved",
    "camera_recovered",
)


def _paho() -> Any:
    try:
        from paho.mqtt import client
    except ImportError:
        raise MissingError("mqtt: paho-mqtt is not installed; run: pip install 'edgeloop[events]'") from None
    return client
