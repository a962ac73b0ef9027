"""A real RTSP server (GStreamer) for tests: rtsp_server.py PORT [WIDTH HEIGHT FPS | FILE], with the system's Python.

It shows a ball, or an MP4 file with H.264 from its beginning to every client.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer


def main() -> None:
    port = sys.argv[1]
    words = sys.argv[2:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    if len(words) == 1:
        factory.set_launch(f'( filesrc location="{words[0]}" ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 )')
    else:
        width, height, fps = (int(value) for value in (words or ("320", "240", "15")))
        factory.set_launch(
            f"( videotestsrc is-live=true pattern=ball ! video/x-raw,width={width},height={height},framerate={fps}/1 "
            "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )"
        )
        factory.set_shared(True)
    server.get_mount_points().add_factory("/cam", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is in use")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
