"""A real RTSP server (GStreamer) for tests. Run with the system's Python: rtsp_server.py PORT [WIDTH HEIGHT FPS]."""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer


def main() -> None:
    port = sys.argv[1]
    width, height, fps = (int(value) for value in (sys.argv[2:5] or ("320", "240", "15")))
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
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
