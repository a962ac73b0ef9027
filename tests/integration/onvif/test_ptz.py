"""Turning a camera to its presets: over real SOAP, whatever media service and login it has."""

from __future__ import annotations

from typing import Literal

import pytest
from onvif_device import Auth, OnvifDevice, Picture, onvif_device

from edge.errors import SourceError, UsageError
from edge.onvif.ptz import go_to, presets_of
from edge.onvif.soap import CallError, Login

PICTURES = [Picture("main & <1>", "H264", 1280, 720, 10, "rtsp://127.0.0.1/main")]
PRESETS = {"1": "Gate", "p&<2>": "Yard & <garden>", "3": ""}


@pytest.mark.parametrize(
    ("media", "has_services", "auth"),
    [(2, True, "token"), (1, True, "token"), (1, False, "token"), (2, True, "digest"), (2, True, "digest-sha256")],
)
def test_a_camera_turns_where_it_is_told(media: Literal[1, 2], has_services: bool, auth: Auth) -> None:
    device = OnvifDevice(PICTURES, media=media, has_services=has_services, auth=auth, presets=PRESETS)
    with onvif_device(device):
        login = Login(device.username, device.password)
        url = device.url("127.0.0.1")
        assert [one.name for one in presets_of(url, login)] == ["Gate", "Yard & <garden>", "3"]
        for name in ("Yard & <garden>", "Gate", "3"):
            go_to(url, name, login)
        assert device.turned_to == ["p&<2>", "1", "3"]
        with pytest.raises(UsageError, match="no preset 'Roof'; known: Gate"):
            go_to(url, "Roof", login)
        with pytest.raises(CallError):
            go_to(url, "Gate", Login("admin", "wrong"))
        assert len(device.turned_to) == 3


def test_a_camera_that_does_not_turn_says_so() -> None:
    device = OnvifDevice(PICTURES)
    with onvif_device(device), pytest.raises(SourceError, match="does not turn"):
        presets_of(device.url("127.0.0.1"), Login(device.username, device.password))


def test_thousands_of_presets_are_a_few() -> None:
    presets = {f"{number}": f"place {number}" for number in range(1500)} | {"x" * 65: "too long", "": "nothing"}
    device = OnvifDevice(PICTURES, presets=presets)
    with onvif_device(device):
        found = presets_of(device.url("127.0.0.1"), Login(device.username, device.password))
    assert len(found) == 256
