"""What Home Assistant shows of a daemon: a device per camera, found through its MQTT discovery.

Its entities read one retained JSON message per stream, ``TOPIC/STREAM/state``, and the events and pictures next to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.config.events import MqttSettings

ONLINE, OFFLINE = "online", "offline"
# Home Assistant refuses kinds that were not announced
EVENT_KINDS = (
    "line_crossed",
    "zone_entered",
    "zone_left",
    "zone_loitering",
    "zone_crowded",
    "object_stopped",
    "loud",
    "camera_offline",
    "camera_frozen",
    "camera_dark",
    "camera_overexposed",
    "camera_defocused",
    "camera_covered",
    "camera_moved",
    "camera_recovered",
)
_NO_SLUG = re.compile(r"[^a-zA-Z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a stream stands now.

    Attributes:
        state: of its capture: ``streaming``, ``backing_off``, …
        health: what is wrong with the camera's picture: ``frozen``, ``dark``, …
        counts: of lines and zones, as ``StreamAnalytics.counts`` gives them.
    """

    state: str = "connecting"
    health: tuple[str, ...] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)


def state_of(standing: Standing) -> dict[str, Any]:
    """The message of a stream, JSON values."""
    return {
        "connected": "ON" if standing.state == "streaming" else "OFF",
        "health": ", ".join(standing.health) or "ok",
        "lines": {
            name: {"in": line["in"], "out": line["out"]} for name, line in standing.counts.get("lines", {}).items()
        },
        "zones": {
            name: {"occupancy": zone["occupancy"], "entered": zone["entered"]}
            for name, zone in standing.counts.get("zones", {}).items()
        },
    }


def discovery(
    settings: MqttSettings, streams: Sequence[str], node: str, standings: Mapping[str, Standing]
) -> dict[str, str]:
    """Topic → retained message; nothing where no discovery is wanted."""
    if settings.discovery is None:
        return {}
    found = {("binary_sensor", "", "status"): _status(settings, node)}
    for stream in streams:
        camera = _Camera(settings, node, stream)
        found |= {(kind, stream, name): facts for kind, name, facts in camera.entities(standings.get(stream))}
    messages = {}
    for (kind, stream, name), facts in found.items():
        place = "/".join(part for part in (f"edgeloop-{node}", f"{stream}-{name}" if stream else name) if part)
        messages[f"{settings.discovery}/{kind}/{place}/config"] = json.dumps(facts, separators=(",", ":"))
    return messages


def _status(settings: MqttSettings, node: str) -> dict[str, Any]:
    return {
        "name": "Status",
        "unique_id": f"edgeloop-{node}-status",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "state_topic": f"{settings.topic}/status",
        "payload_on": ONLINE,
        "payload_off": OFFLINE,
        "device": {"identifiers": [f"edgeloop-{node}"], "name": f"Edgeloop {node}", "manufacturer": "Edgeloop"},
    }


class _Camera:
    """The entities of one stream."""

    def __init__(self, settings: MqttSettings, node: str, stream: str) -> None:
        self._topic = f"{settings.topic}/{stream}"
        self._id = f"edgeloop-{node}-{stream}"
        status = {"topic": f"{settings.topic}/status", "payload_available": ONLINE, "payload_not_available": OFFLINE}
        device = {
            "identifiers": [self._id],
            "name": stream,
            "manufacturer": "Edgeloop",
            "via_device": f"edgeloop-{node}",
        }
        self._common: dict[str, Any] = {"availability": [status], "device": device}

    def entities(self, standing: Standing | None) -> list[tuple[str, str, dict[str, Any]]]:
        """Component, name and facts of each."""
        found = [
            (
                "event",
                "event",
                self._facts(
                    "Event",
                    "event",
                    state_topic=f"{self._topic}/events",
                    event_types=list(EVENT_KINDS),
                    value_template="{{ dict(value_json, event_type=value_json.kind) | tojson }}",
                ),
            ),
            ("image", "picture", self._facts("Last event", "picture", image_topic=f"{self._topic}/snapshot")),
            self._state("binary_sensor", "Connected", "connected", "connected", device_class="connectivity"),
            self._state("sensor", "Picture", "health", "health"),
        ]
        counts = {} if standing is None else standing.counts
        for name in counts.get("lines", {}):
            found += [
                self._state(
                    "sensor",
                    f"{name} {way}",
                    f"line-{slug(name)}-{way}",
                    f"lines[{_quoted(name)}].{way}",
                    state_class="total_increasing",
                )
                for way in ("in", "out")
            ]
        for name in counts.get("zones", {}):
            inside = f"zones[{_quoted(name)}].occupancy"
            found.append(
                self._state("sensor", f"{name} count", f"zone-{slug(name)}-count", inside, state_class="measurement")
            )
            taken = f"{{{{ 'ON' if value_json.{inside} > 0 else 'OFF' }}}}"
            found.append(
                (
                    "binary_sensor",
                    f"zone-{slug(name)}",
                    self._facts(
                        name,
                        f"zone-{slug(name)}",
                        state_topic=f"{self._topic}/state",
                        value_template=taken,
                        device_class="occupancy",
                    ),
                )
            )
        return found

    def _state(self, component: str, words: str, name: str, place: str, **more: str) -> tuple[str, str, dict[str, Any]]:
        """An entity that shows one value of the stream's state."""
        template = f"{{{{ value_json.{place} }}}}"
        facts = self._facts(words, name, state_topic=f"{self._topic}/state", value_template=template, **more)
        if name in ("connected", "health"):
            facts["entity_category"] = "diagnostic"
        return component, name, facts

    def _facts(self, words: str, name: str, **more: Any) -> dict[str, Any]:
        return {"name": words, "unique_id": f"{self._id}-{name}", **more, **self._common}


def slug(name: str) -> str:
    """A part of an id: what it may not hold is replaced, and names that then look alike are told apart."""
    plain = _NO_SLUG.sub("-", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _quoted(name: str) -> str:
    """A name within a template."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
