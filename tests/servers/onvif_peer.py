"""What onvif-zeep-async reads from a camera, as JSON: onvif_peer.py PORT USER PASSWORD.

A process of its own: to import the library is to have it set up logging.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def read(port: int, user: str, password: str) -> dict[str, Any]:
    """Maker, model, and token, width, height and address of each profile."""
    from onvif import ONVIFCamera

    camera = ONVIFCamera("127.0.0.1", port, user, password, adjust_time=True)
    try:
        await camera.update_xaddrs()
        device = await camera.create_devicemgmt_service()
        facts = await device.GetDeviceInformation()
        media = await camera.create_media_service()
        told = []
        for one in await media.GetProfiles():
            setup = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
            answer = await media.GetStreamUri({"StreamSetup": setup, "ProfileToken": one.token})
            size = one.VideoEncoderConfiguration.Resolution
            told.append([one.token, size.Width, size.Height, answer.Uri])
        return {"facts": [facts.Manufacturer, facts.Model], "profiles": told}
    finally:
        await camera.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read(int(sys.argv[1]), sys.argv[2], sys.argv[3]))))
