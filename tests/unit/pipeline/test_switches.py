"""What is switched off stays so over a restart; a damaged file switches nothing off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.config.recording import RecordSettings
from edge.config.schema import StreamSettings
from edge.errors import ConfigError
from edge.pipeline.switches import FILE_NAME, Switches

DOOR = StreamSettings(name="door", source="rtsp://camera.invalid/1")


def test_what_is_switched_off_stays_so_over_a_restart(tmp_path: Path) -> None:
    recorded = DOOR.model_copy(update={"record": RecordSettings(folder=tmp_path)})
    switches = Switches(tmp_path)
    assert switches.change(recorded, "recording", is_on=False)
    assert not switches.change(recorded, "recording", is_on=False)
    assert Switches(tmp_path).off("door") == {"recording"} and Switches(tmp_path).off("yard") == set()
    switches.change(recorded, "recording", is_on=True)
    assert Switches(tmp_path).off("door") == set()
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {}


def test_without_a_folder_it_is_forgotten(tmp_path: Path) -> None:
    switches = Switches(None)
    switches.change(DOOR, "analysis", is_on=False)
    assert switches.off("door") == {"analysis"}
    assert Switches(None).off("door") == set()


def test_a_recording_that_is_not_there_cannot_be_switched() -> None:
    with pytest.raises(ConfigError, match=r"stream 'door' records nothing; expected \[streams.record\]"):
        Switches(None).change(DOOR, "recording", is_on=False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"door": "analysis"}', '{"door": [3, "engine"]}', '{"door": {}}'])
def test_a_damaged_file_switches_nothing_off(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert Switches(tmp_path).off("door") == set()
