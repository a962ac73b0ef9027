"""The camera of the tests is one: the ONVIF library of Home Assistant and Frigate reads from it what edge reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from onvif_device import OnvifDevice, Picture, onvif_device

from edge.onvif.device import look_at
from edge.onvif.soap import Login

MAIN = Picture("main", "H264", 2560, 1440, 20, "rtsp://127.0.0.1:8554/main")
SUB = Picture("sub", "H264", 640, 360, 10, "rtsp://127.0.0.1/sub")


async def read_by_peer(camera: OnvifDevice) -> tuple[Any, list[tuple[str, int, int, str]]]:
    from onvif import ONVIFCamera

    peer = ONVIFCamera("127.0.0.1", camera.port, camera.username, camera.password, adjust_time=True)
    try:
        await peer.update_xaddrs()
        device = await peer.create_devicemgmt_service()
        facts = await device.GetDeviceInformation()
        media = await peer.create_media_service()
        told = []
        for one in await media.GetProfiles():
            setup = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
            answer = await media.GetStreamUri({"StreamSetup": setup, "ProfileToken": one.token})
            size = one.VideoEncoderConfiguration.Resolution
            told.append((one.token, size.Width, size.Height, answer.Uri))
        return facts, told
    finally:
        await peer.close()


def test_both_read_the_same() -> None:
    pytest.importorskip("onvif")
    camera = OnvifDevice([MAIN, SUB], media=1)
    with onvif_device(camera):
        facts, told = asyncio.run(read_by_peer(camera))
        own = look_at(camera.url("127.0.0.1"), Login(camera.username, camera.password))
    assert (facts.Manufacturer, facts.Model) == (own.maker, own.model)
    assert told == [(one.token, one.width, one.height, one.address) for one in own.profiles]
    assert camera.refused == []
