"""The files of the containers: configurations are valid, hold no password, and the add-on asks for its broker."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml
from jsonschema import Draft202012Validator
from supervisor import TOKEN, supervisor

from edge.config.edit import parse_drawn, with_drawn
from edge.config.load import load_config
from edge.errors import EdgeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "container"
ADDON = FOLDER / "home-assistant" / "edgeloop"
CANARY = "canary-7f3a-password"
BROKER = {"host": "core-mosquitto", "port": 1883, "ssl": False, "username": "addons", "password": CANARY}
OPTIONS = {
    "token": "a-token-of-sixteen-characters",
    "streams": [
        {"name": "door", "source": "rtsp://10.0.0.2/one", "username": "admin", "password": CANARY},
        {"name": "yard", "source": "0"},
    ],
}

ARCHITECTURES = ["amd64", "aarch64"]
# one value in the options of an add-on
ELEMENT = r"^(bool|email|url|port|device|str|password|int|float|match\(.*\)|list\(.+\))\??$"
# what the Supervisor knows in the config.yaml of an add-on (developers.home-assistant.io, add-on configuration), as far
# as it is used here: it ignores a key that it does not know, so a mistyped one is a fault
CONFIG: dict[str, Any] = {
    "type": "object",
    "required": ["name", "version", "slug", "description", "arch"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "slug": {"pattern": r"^[-_.A-Za-z0-9]+$"},
        "description": {"type": "string"},
        "arch": {"items": {"enum": ARCHITECTURES}, "minItems": 1},
        "init": {"type": "boolean"},
        "startup": {"enum": ["initialize", "system", "services", "application", "once"]},
        "boot": {"enum": ["auto", "manual", "manual_only"]},
        "video": {"type": "boolean"},
        "services": {"items": {"pattern": r"^(mqtt|mysql):(provide|want|need)$"}},
        "ports": {
            "propertyNames": {"pattern": r"^\d+(/tcp|/udp)?$"},
            "additionalProperties": {"type": ["integer", "null"]},
        },
        "webui": {"pattern": r"^(https?|\[PROTO:\w+\])://\[HOST\]:\[PORT:\d+\].*$"},
        "options": {"type": "object"},
        "schema": {"additionalProperties": {"$ref": "#/$defs/element"}},
    },
    "$defs": {
        "element": {
            "anyOf": [
                {"type": "string", "pattern": ELEMENT},
                {"type": "object", "additionalProperties": {"$ref": "#/$defs/element"}},
                {"type": "array", "minItems": 1, "maxItems": 1, "items": {"$ref": "#/$defs/element"}},
            ]
        }
    },
}
# an image of build.yaml: a name without a registry and a folder is refused
IMAGE = r"^([a-zA-Z\-.:\d{}]+/)*?[-\w{}]+/[-\w{}]+(:[.\-\w{}]+)?$"


@pytest.fixture(scope="module")
def addon() -> dict[str, Any]:
    return runpy.run_path(str(ADDON / "run.py"))


def test_the_configuration_of_compose_is_valid_and_asks_for_a_token() -> None:
    config = load_config(FOLDER / "edge.toml")
    assert config.server.host == "0.0.0.0"
    assert config.server.token_file == Path("/run/secrets/token")
    assert config.mqtt[0].host == "mosquitto"


def test_compose_holds_the_specification_and_names_what_is_there() -> None:
    compose = compose_spec.PyCompose.from_yaml((FOLDER / "compose.yaml").read_text())
    compose.validate()
    raw = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    edge = raw["services"]["edge"]
    assert (FOLDER / edge["build"]["context"] / edge["build"]["dockerfile"]).is_file()
    for service in raw["services"].values():
        assert set(service.get("depends_on", ())) <= set(raw["services"])
        for source in (text.partition(":")[0] for text in service.get("volumes", ())):
            assert (FOLDER / source).is_file() if source.startswith(".") else source in raw["volumes"]
    config = load_config(FOLDER / "edge.toml")
    assert edge["ports"] == [f"127.0.0.1:{config.server.port}:{config.server.port}"]
    assert config.mqtt[0].host in raw["services"]
    # None: MQTT's own
    assert config.mqtt[0].port is None
    assert "\nlistener 1883\n" in (FOLDER / "mosquitto.conf").read_text()


def fits(kind: Any, value: Any) -> bool:
    """Whether the Supervisor takes this value for an option of this kind."""
    if isinstance(kind, list):
        return all(fits(kind[0], one) for one in value)
    if isinstance(kind, dict):
        needed = {key for key, one in kind.items() if not (isinstance(one, str) and one.endswith("?"))}
        return needed <= set(value) <= set(kind) and all(fits(kind[key], one) for key, one in value.items())
    if match := re.fullmatch(r"match\((.*)\)\??", kind):
        return re.match(match[1], value) is not None
    return isinstance(value, bool if kind.startswith("bool") else str)


def test_the_addon_holds_the_rules_of_the_supervisor() -> None:
    config = yaml.safe_load((ADDON / "config.yaml").read_text())
    Draft202012Validator(CONFIG).validate(config)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert config["version"] == project["version"]
    # every option has a default, and what the tests give is what a user could
    assert set(config["options"]) == set(config["schema"])
    assert fits(config["schema"], {**OPTIONS, "switches": True})
    assert not fits(config["schema"], config["options"]), "a token must be chosen"
    assert fits(config["schema"], {**config["options"], "token": OPTIONS["token"]})
    build = yaml.safe_load((ADDON / "build.yaml").read_text())
    assert set(build) == {"build_from"}
    assert set(build["build_from"]) == set(config["arch"])
    assert all(re.match(IMAGE, image) for image in build["build_from"].values())


def test_the_addon_makes_a_configuration_of_options_and_broker(addon: dict[str, Any], tmp_path: Path) -> None:
    with supervisor(BROKER) as url:
        path = addon["write_config"](tmp_path, OPTIONS, addon["ask_broker"](url, TOKEN))
    config = load_config(path)
    assert [(stream.name, stream.source) for stream in config.streams] == [
        ("door", "rtsp://10.0.0.2/one"),
        ("yard", "0"),
    ]
    (broker,) = config.mqtt
    assert (broker.host, broker.username, broker.discovery) == ("core-mosquitto", "addons", "homeassistant")
    assert not broker.commands
    addon["write_config"](tmp_path, {**OPTIONS, "switches": True}, BROKER)
    assert load_config(path).mqtt[0].commands
    assert CANARY not in path.read_text()
    secrets = [config.streams[0].password_file, broker.password_file, config.server.token_file]
    for file in secrets:
        assert file is not None and file.stat().st_mode & 0o777 == 0o600
    assert (config.server.enabled, config.server.host, config.server.port) == (True, "0.0.0.0", 8080)


def test_what_was_drawn_on_the_page_outlives_a_start_of_the_addon(addon: dict[str, Any], tmp_path: Path) -> None:
    path = addon["write_config"](tmp_path, OPTIONS, BROKER)
    line = {"name": "gate", "points_share": [[0.1, 0.5], [0.9, 0.5]]}
    path.write_text(with_drawn(path.read_text(), "yard", parse_drawn({"lines": [line]})))
    streams = [*OPTIONS["streams"][1:], {"name": "new", "source": "1"}]
    addon["write_config"](tmp_path, {**OPTIONS, "streams": streams}, BROKER)
    yard, new = load_config(path).streams
    assert [(one.name, one.points_share) for one in yard.analytics.lines] == [("gate", ((0.1, 0.5), (0.9, 0.5)))]
    assert new.analytics.lines == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"token": "short"}, "the option token has 5 characters"), ({"streams": []}, "no stream is configured")],
)
def test_an_option_that_is_missing_is_named(
    addon: dict[str, Any], changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(EdgeError, match=words):
        addon["write_config"](tmp_path, {**OPTIONS, **changed}, BROKER)


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.nvidia", "Containerfile.jetson"])
def test_every_image_runs_as_a_user_and_is_asked_for_its_health(name: str) -> None:
    text = (FOLDER / name).read_text()
    last = text[text.rindex("\nFROM ") :]
    for line in ("USER 10001", "HEALTHCHECK", "STOPSIGNAL SIGTERM", 'ENTRYPOINT ["/opt/edge/bin/edge"]'):
        assert line in last
    assert "COPY --from=build" in last
