"""A real Home Assistant for tests: its core and its MQTT integration, told what to do by lines of JSON.

Run by the Python of .venv-home (make servers) as ``home_assistant.py FOLDER BROKER_PORT HTTP_PORT``. ``["states"]``
answers entity → state, ``["call", SERVICE, ENTITY]`` presses a button, ``["image", ENTITY]`` answers bytes in hex.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from homeassistant import bootstrap, config_entries, core, loader
from homeassistant.auth import auth_manager_from_config
from homeassistant.setup import async_setup_component


async def begun(folder: Path, port: int, http_port: int) -> Any:
    """Home Assistant with the broker of this port, and nothing else."""
    (folder / "configuration.yaml").touch()
    hass = core.HomeAssistant(str(folder))
    hass.config.skip_pip = True
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    hass.auth = await auth_manager_from_config(hass, [], [])
    await async_setup_component(hass, "http", {"http": {"server_host": "127.0.0.1", "server_port": http_port}})
    broker = {"broker": "127.0.0.1", "port": port, "discovery": True, "discovery_prefix": "homeassistant"}
    entry = config_entries.ConfigEntry(
        version=1, minor_version=1, domain="mqtt", title="mqtt", data=broker, source="user", options={}, entry_id="mqtt"
    )
    await hass.config_entries.async_add(entry)
    assert entry.state is config_entries.ConfigEntryState.LOADED, entry.reason
    await hass.async_start()
    return hass


async def answer(hass: Any, order: list[str]) -> Any:
    match order:
        case ["states"]:
            return {state.entity_id: state.state for state in hass.states.async_all()}
        case ["call", service, entity]:
            domain, _, name = service.partition(".")
            await hass.services.async_call(domain, name, {"entity_id": entity}, blocking=True)
            return True
        case ["image", entity]:
            data = await hass.data["image"].get_entity(entity).async_image()
            return None if data is None else data.hex()
    raise ValueError(order)


async def main() -> None:
    hass = await begun(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps("ready"), flush=True)
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await answer(hass, json.loads(line))), flush=True)
    await hass.async_stop(force=True)


logging.basicConfig(level=logging.WARNING)
asyncio.run(main())
