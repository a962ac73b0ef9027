"""What Home Assistant is told: its entities read what we publish, whatever lines and zones are called."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.config.events import MqttSettings
from edge.sinks.home_assistant import Standing, discovery, slug, state_of

SETTINGS = MqttSettings(host="broker", discovery="homeassistant", topic="site/edge")


def counts(line: str = "gate", zone: str = "yard", occupancy: int = 2) -> dict[str, Any]:
    return {
        "lines": {line: {"in": 3, "out": 1, "by_class": {"in": {}, "out": {}}}},
        "zones": {zone: {"occupancy": occupancy, "entered": 5, "left": 3, "mean_dwell_s": 1.0, "is_crowded": False}},
    }


def entities(standing: Standing) -> dict[str, dict[str, Any]]:
    """Unique id → facts."""
    found = discovery(SETTINGS, ["door"], "box", {"door": standing})
    facts = [json.loads(text) for text in found.values()]
    assert len({one["unique_id"] for one in facts}) == len(facts)
    return {one["unique_id"]: one for one in facts}


def shown(entity: dict[str, Any], standing: Standing) -> str:
    """As Home Assistant makes it: its templates are Jinja's."""
    template = jinja2.Environment(autoescape=False).from_string(entity["value_template"])
    return template.render(value_json=json.loads(json.dumps(state_of(standing))))


def test_every_entity_shows_its_value() -> None:
    standing = Standing("streaming", ("dark",), counts())
    found = entities(standing)
    values = {
        name.removeprefix("edgeloop-box-door-"): shown(entity, standing)
        for name, entity in found.items()
        if entity.get("state_topic") == "site/edge/door/state"
    }
    assert values == {
        "connected": "ON",
        "health": "dark",
        "line-gate-in": "3",
        "line-gate-out": "1",
        "zone-yard-count": "2",
        "zone-yard": "ON",
    }


@pytest.mark.parametrize(
    ("standing", "connected", "health"),
    [(Standing("backing_off"), "OFF", "ok"), (Standing("streaming", ("frozen", "dark")), "ON", "frozen, dark")],
)
def test_a_camera_that_is_away_or_blind_is_told(standing: Standing, connected: str, health: str) -> None:
    assert state_of(standing) == {"connected": connected, "health": health, "lines": {}, "zones": {}}


def test_each_camera_is_a_device_of_its_own() -> None:
    found = discovery(SETTINGS, ["door", "yard"], "box", {})
    devices = {json.loads(text)["device"]["name"] for text in found.values()}
    assert devices == {"Edgeloop box", "door", "yard"}
    assert "homeassistant/image/edgeloop-box/door-picture/config" in found


def test_nothing_is_announced_unless_wanted() -> None:
    assert discovery(SETTINGS.model_copy(update={"discovery": None}), ["door"], "box", {}) == {}


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(line=NAMES, zone=NAMES, number=st.integers(0, 3))
def test_no_name_breaks_a_template_or_an_id(line: str, zone: str, number: int) -> None:
    standing = Standing("streaming", (), counts(line, zone, number))
    found = entities(standing)
    assert shown(found[f"edgeloop-box-door-line-{slug(line)}-in"], standing) == "3"
    assert shown(found[f"edgeloop-box-door-zone-{slug(zone)}"], standing) == ("ON" if number else "OFF")
    topics = discovery(SETTINGS, ["door"], "box", {"door": standing})
    for topic in topics:
        assert all(char.isascii() and (char.isalnum() or char in "_-") for part in topic.split("/") for char in part)


@given(one=NAMES, other=NAMES)
def test_two_names_have_two_ids(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)
