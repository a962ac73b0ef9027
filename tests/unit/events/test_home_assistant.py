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
        "lines": {line: {"in": 3, "out": 1, "by_class": {"in": {"person": 2, "car's": 1}, "out": {"person": 1}}}},
        "zones": {
            zone: {
                "occupancy": occupancy,
                "entered": 5,
                "left": 3,
                "mean_dwell_s": 1.0,
                "is_crowded": False,
                "by_class": {"person": {"occupancy": occupancy, "entered": 4}, "car's": {"occupancy": 0, "entered": 1}},
            }
        },
    }


def entities(standing: Standing) -> dict[str, dict[str, Any]]:
    """Unique id → facts."""
    found = discovery(SETTINGS, ["door"], "box", {"door": standing}, has_switches=True)
    facts = [json.loads(text) for text in found.values()]
    assert len({one["unique_id"] for one in facts}) == len(facts)
    return {one["unique_id"]: one for one in facts}


def shown(entity: dict[str, Any], standing: Standing) -> str:
    """As Home Assistant makes it: its templates are Jinja's."""
    return rendered(entity["value_template"], standing)


def rendered(text: str, standing: Standing) -> str:
    template = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(text)
    return template.render(value_json=json.loads(json.dumps(state_of(standing))))


def test_every_entity_shows_its_value() -> None:
    standing = Standing("streaming", ("dark",), counts(), frozenset({"recording"}), has_recording=True)
    values = {
        entity["name"]: shown(entity, standing)
        for entity in entities(standing).values()
        if entity.get("state_topic") == "site/edge/door/state"
    }
    assert values == {
        "Connected": "ON",
        "Picture": "dark",
        "Analysis": "ON",
        "Recording": "OFF",
        "gate in": "3",
        "gate out": "1",
        "gate person in": "2",
        "gate person out": "1",
        "gate car's in": "1",
        "gate car's out": "0",
        "yard": "ON",
        "yard count": "2",
        "yard entered": "5",
        "yard person": "ON",
        "yard person count": "2",
        "yard person entered": "4",
        "yard car's": "OFF",
        "yard car's count": "0",
        "yard car's entered": "1",
    }


def test_switches_are_there_only_where_they_do_something() -> None:
    def switches(standing: Standing, *, is_heard: bool) -> set[str]:
        found = discovery(SETTINGS, ["door"], "box", {"door": standing}, has_switches=is_heard)
        return {topic.split("/")[-2] for topic in found if topic.startswith("homeassistant/switch/")}

    assert switches(Standing(has_recording=True), is_heard=True) == {"door-switch-analysis", "door-switch-recording"}
    assert switches(Standing(has_recording=False), is_heard=True) == {"door-switch-analysis"}
    assert switches(Standing(has_recording=True), is_heard=False) == set()


def test_a_switch_says_where_it_is_switched_and_how_it_stands() -> None:
    entity = entities(Standing())["edgeloop-box-door-switch-analysis"]
    assert entity["command_topic"] == "site/edge/door/analysis/set" and entity["qos"] == 1
    assert not entity.get("retain") and not entity.get("optimistic")


def test_what_is_not_known_yet_is_unknown_and_not_gone() -> None:
    found = entities(Standing("streaming", (), counts()))
    nothing = Standing("connecting", counts=None)
    for entity in found.values():
        if "zone" in entity["unique_id"] or "line" in entity["unique_id"]:
            assert shown(entity, nothing) == "None"


@pytest.mark.parametrize(
    ("standing", "known"),
    [
        (Standing("streaming", (), counts()), "online"),
        (Standing("backing_off", (), counts()), "offline"),
        (Standing("streaming", (), counts(), frozenset({"analysis"})), "offline"),
    ],
)
def test_who_is_in_a_zone_is_not_told_while_nobody_looks(standing: Standing, known: str) -> None:
    found = entities(standing)
    for name in ("zone-yard", "zone-yard-count"):
        entity = found[f"edgeloop-box-door-{name}"]
        assert entity["availability_mode"] == "all"
        assert rendered(entity["availability"][1]["value_template"], standing) == known
    assert len(found["edgeloop-box-door-line-gate-in"]["availability"]) == 1


@pytest.mark.parametrize(
    ("standing", "connected", "health"),
    [(Standing("backing_off"), "OFF", "ok"), (Standing("streaming", ("frozen", "dark")), "ON", "frozen, dark")],
)
def test_a_camera_that_is_away_or_blind_is_told(standing: Standing, connected: str, health: str) -> None:
    told = {"connected": connected, "health": health, "analysis": "ON", "recording": None, "lines": {}, "zones": {}}
    assert state_of(standing) == told


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
