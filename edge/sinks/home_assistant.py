"""What Home Assistant shows of a daemon: a device per camera, found through its MQTT discovery.

Its entities read one retained JSON message per stream, ``TOPIC/STREAM/state``, and the events and pictures next to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from edge.config.events import MqttSettings
    from edge.interfaces import SwitchPart

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
    "night_report",
)
_NO_SLUG = re.compile(r"[^a-zA-Z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a stream stands now.

    Attributes:
        state: of its capture: ``streaming``, ``backing_off``, …
        health: what is wrong with the camera's picture: ``frozen``, ``dark``, …
        counts: of lines and zones, as ``StreamAnalytics.counts`` gives them; None: not known yet.
        off: what is switched off.
        has_recording: whether there is a recording to be switched.
    """

    state: str = "connecting"
    health: tuple[str, ...] = ()
    counts: Mapping[str, Any] | None = field(default_factory=dict)
    off: frozenset[SwitchPart] = frozenset()
    has_recording: bool = False


def state_of(standing: Standing) -> dict[str, Any]:
    """The message of a stream, JSON values."""
    counts = standing.counts or {}
    return {
        "connected": _on(standing.state == "streaming"),
        "health": ", ".join(standing.health) or "ok",
        "analysis": _on("analysis" not in standing.off),
        "recording": _on("recording" not in standing.off) if standing.has_recording else None,
        "lines": {
            name: {"in": line["in"], "out": line["out"], "by_class": _crossed(line)}
            for name, line in counts.get("lines", {}).items()
        },
        "zones": {
            name: {key: zone.get(key, {}) for key in ("occupancy", "entered", "by_class")}
            for name, zone in counts.get("zones", {}).items()
        },
    }


def _crossed(line: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Class → crossings in and out, of the classes that have crossed a line."""
    ways: Mapping[str, Mapping[str, int]] = line.get("by_class", {})
    names = sorted({name for way in ways.values() for name in way})
    return {name: {way: ways[way].get(name, 0) for way in ("in", "out")} for name in names}


def _on(is_on: bool) -> str:
    return "ON" if is_on else "OFF"


def discovery(
    settings: MqttSettings,
    streams: Sequence[str],
    node: str,
    standings: Mapping[str, Standing],
    *,
    has_switches: bool = False,
) -> dict[str, str]:
    """Topic → retained message; nothing where no discovery is wanted. Switches only where commands are heard."""
    if settings.discovery is None:
        return {}
    found = {("binary_sensor", "", "status"): _status(settings, node)}
    for stream in streams:
        camera = _Camera(settings, node, stream)
        entities = camera.entities(standings.get(stream), has_switches=has_switches)
        found |= {(kind, stream, name): facts for kind, name, facts in entities}
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


Entity: TypeAlias = tuple[str, str, dict[str, Any]]


class _Camera:
    """The entities of one stream: component, name and facts of each."""

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
        # who is in a zone is not known while nobody looks: better no answer than an old one
        looks = "{{ 'online' if value_json.connected == 'ON' and value_json.analysis == 'ON' else 'offline' }}"
        self._looked_at: dict[str, Any] = {
            "availability": [status, {"topic": f"{self._topic}/state", "value_template": looks}],
            "availability_mode": "all",
        }

    def entities(self, standing: Standing | None, *, has_switches: bool) -> list[Entity]:
        """All of a stream; what it counts is known with its standing."""
        event = self._facts(
            "Event",
            "event",
            state_topic=f"{self._topic}/events",
            event_types=list(EVENT_KINDS),
            value_template="{{ dict(value_json, event_type=value_json.kind) | tojson }}",
        )
        found = [
            ("event", "event", event),
            ("image", "picture", self._facts("Last event", "picture", image_topic=f"{self._topic}/snapshot")),
            self._state("binary_sensor", "Connected", "connected", ["connected"], device_class="connectivity"),
            self._state("sensor", "Picture", "health", ["health"]),
        ]
        if standing is None:
            return found
        if has_switches:
            found += [self._switch(part) for part in ("analysis", *(("recording",) if standing.has_recording else ()))]
        state = state_of(standing)
        for name, line in state["lines"].items():
            found += self._line(name, list(line["by_class"]))
        for name, zone in state["zones"].items():
            found += self._zone(name, list(zone["by_class"]))
        return found

    def _line(self, name: str, classes: Sequence[str]) -> list[Entity]:
        """How many have crossed it each way, all and by class."""
        place = ["lines", name]
        rows = [(name, f"line-{slug(name)}", place)]
        rows += [
            (f"{name} {one}", f"by-class-line-{_slug_of_both(name, one)}", [*place, "by_class", one]) for one in classes
        ]
        return [
            self._state("sensor", f"{words} {way}", f"{key}-{way}", [*where, way], state_class="total_increasing")
            for words, key, where in rows
            for way in ("in", "out")
        ]

    def _zone(self, name: str, classes: Sequence[str]) -> list[Entity]:
        """Whether somebody is inside, how many are, and how many have entered: all and by class."""
        place = ["zones", name]
        found = self._inside(name, f"zone-{slug(name)}", place)
        for one in classes:
            key = f"by-class-zone-{_slug_of_both(name, one)}"
            found += self._inside(f"{name} {one}", key, [*place, "by_class", one])
        return found

    def _inside(self, words: str, key: str, place: Sequence[str]) -> list[Entity]:
        inside = [*place, "occupancy"]
        count = self._state("sensor", f"{words} count", f"{key}-count", inside, state_class="measurement")
        entered = self._state(
            "sensor", f"{words} entered", f"{key}-entered", [*place, "entered"], state_class="total_increasing"
        )
        taken = self._facts(
            words,
            key,
            state_topic=f"{self._topic}/state",
            value_template=f"{{% set n = {_value(inside)} %}}{{{{ n if n is none else 'ON' if n > 0 else 'OFF' }}}}",
            device_class="occupancy",
        )
        count[2].update(self._looked_at)
        taken.update(self._looked_at)
        return [count, entered, ("binary_sensor", key, taken)]

    def _switch(self, part: str) -> Entity:
        """What switches a part of the stream, and shows how it stands."""
        facts = self._facts(
            part.capitalize(),
            f"switch-{part}",
            command_topic=f"{self._topic}/{part}/set",
            state_topic=f"{self._topic}/state",
            value_template=f"{{{{ value_json.{part} }}}}",
            qos=1,
        )
        return "switch", f"switch-{part}", facts

    def _state(self, component: str, words: str, name: str, place: Sequence[str], **more: str) -> Entity:
        """An entity that shows one value of the stream's state, and nothing while that is not known."""
        template = f"{{{{ {_value(place)} }}}}"
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


def _slug_of_both(name: str, other: str) -> str:
    """The same of two names: no other two have it."""
    both = hashlib.sha256(json.dumps([name, other]).encode()).hexdigest()[:6]
    return f"{_NO_SLUG.sub('-', name)}-{_NO_SLUG.sub('-', other)}-{both}"


def _value(place: Sequence[str]) -> str:
    """What a template reads: keys from the outside in; none where one is missing."""
    steps = [f".get({_quoted(key)}, {{}})" for key in place[:-1]]
    return f"value_json{''.join(steps)}.get({_quoted(place[-1])})"


def _quoted(name: str) -> str:
    """A name within a template."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
