"""The camera of the tests is one: the ONVIF library of Home Assistant and Frigate reads from it what edge reads."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from onvif_device import OnvifDevice, Picture, onvif_device

from edge.onvif.device import look_at
from edge.onvif.soap import Login

PEER = Path(__file__).parents[1] / "servers" / "onvif_peer.py"
MAIN = Picture("main", "H264", 2560, 1440, 20, "rtsp://127.0.0.1:8554/main")
SUB = Picture("sub", "H264", 640, 360, 10, "rtsp://127.0.0.1/sub")


@pytest.mark.skipif(importlib.util.find_spec("onvif") is None, reason="needs onvif-zeep-async")
def test_both_read_the_same() -> None:
    camera = OnvifDevice([MAIN, SUB], media=1)
    with onvif_device(camera):
        own = look_at(camera.url("127.0.0.1"), Login(camera.username, camera.password))
        command = [sys.executable, str(PEER), str(camera.port), camera.username, camera.password]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    peer = json.loads(done.stdout)
    assert peer["facts"] == [own.maker, own.model]
    assert peer["profiles"] == [[one.token, one.width, one.height, one.address] for one in own.profiles]
    assert camera.refused == []
