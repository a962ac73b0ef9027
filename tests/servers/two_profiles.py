"""A camera with two profiles (GStreamer's RTSP server): /main and /sub show one square, which moves by the wall clock.

Run with the system's Python: two_profiles.py PORT MAIN SUB [MORE [USER:PASSWORD]], each profile WIDTHxHEIGHTxFPS, MORE
one of aac, pcmu and opus for sound, noise for pictures as a sensor gives them, 4 Mbit/s, or plain. With sound, a flash
and a beep of 100 ms come together every second. With a user, only who shows the password (Digest) sees anything.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

# the square crosses the picture in this time and comes back
CROSSING_S = 4.0
SIDE_SHARE = 0.125
FLASH_S = 0.1
RATE = 8000
VIDEO = (
    "appsrc name=picture is-live=true format=time max-buffers=2 leaky-type=downstream "
    "caps=video/x-raw,format=I420,width={w},height={h},framerate={f}/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max={f} ! rtph264pay name=pay0 pt=96 "
    "config-interval=1"
)
SOUND = (
    " appsrc name=sound is-live=true format=time caps=audio/x-raw,format=S16LE,rate=8000,channels=1,"
    "layout=interleaved ! audioconvert ! audioresample "
)
CODECS = {
    "aac": "! audio/x-raw,rate=48000 ! voaacenc ! rtpmp4gpay name=pay1 pt=97",
    "pcmu": "! mulawenc ! rtppcmupay name=pay1 pt=0",
    "opus": "! audio/x-raw,rate=48000 ! opusenc ! rtpopuspay name=pay1 pt=97",
}


def left_share(now_s: float) -> float:
    """Where the square's left side is."""
    phase = now_s % (2 * CROSSING_S) / CROSSING_S
    return (1 - SIDE_SHARE) * (phase if phase < 1 else 2 - phase)


def running_time(element: Any) -> int:
    """What the pictures and the sound are stamped by, now, in ns: however long painting takes on a busy machine."""
    clock = element.get_clock()
    return 0 if clock is None else clock.get_time() - element.get_base_time()


def push(element: Any, data: bytes, running_ns: int) -> None:
    buffer = Gst.Buffer.new_wrapped(data)
    buffer.pts = max(running_ns, 0)
    element.emit("push-buffer", buffer)


class Camera:
    """Paints while somebody looks."""

    def __init__(self, profile: str, sound: str) -> None:
        self.width, self.height, self.fps = (int(part) for part in profile.split("x"))
        self.sound = sound if sound in CODECS else ""
        size, grain = self.width * self.height, bytes(0x18 + value // 12 for value in range(256))
        self.noise = [os.urandom(size).translate(grain) for _ in range(4 if sound == "noise" else 0)]
        self.num_painted = 0
        self.factory = GstRtspServer.RTSPMediaFactory()
        launch = VIDEO.format(w=self.width, h=self.height, f=self.fps)
        launch += SOUND + CODECS[self.sound] if self.sound else ""
        self.factory.set_launch(f"( {launch} )")
        self.factory.set_shared(True)
        self.factory.connect("media-configure", self.begin)

    def begin(self, _: Any, media: Any) -> None:
        bin_ = media.get_element()
        picture = bin_.get_child_by_name("picture")
        timers = [GLib.timeout_add(1000 // self.fps, self.paint, picture)]
        if self.sound:
            speaker = bin_.get_child_by_name("sound")
            timers.append(GLib.timeout_add(20, self.speak, speaker, []))
        media.connect("unprepared", lambda _: [GLib.source_remove(timer) for timer in timers])

    def paint(self, picture: Any) -> bool:
        now_s, running_ns = time.time(), running_time(picture)
        width, height = self.width, self.height
        is_flash = bool(self.sound) and now_s % 1 < FLASH_S
        self.num_painted += 1
        flat = (b"\x60" if is_flash else b"\x20") * (0 if self.noise else width * height)
        luma = bytearray(self.noise[self.num_painted % 4] if self.noise else flat)
        side_x, side_y = round(SIDE_SHARE * width), round(SIDE_SHARE * width)
        left, top = round(left_share(now_s) * width), (height - side_y) // 2
        row = b"\xe0" * side_x
        for y in range(top, top + side_y):
            luma[y * width + left : y * width + left + side_x] = row
        push(picture, bytes(luma) + b"\x80" * (width * height // 2), running_ns)
        return True

    def speak(self, speaker: Any, spoken: list[float]) -> bool:
        """All samples up to now, without a gap: the first call says when they begin."""
        now_s = time.time()
        if not spoken:
            spoken += [now_s, now_s, running_time(speaker)]
        first, last = round(spoken[1] * RATE), round(now_s * RATE)
        began_ns = int(spoken[2]) + (first - round(spoken[0] * RATE)) * Gst.SECOND // RATE
        spoken[1] = now_s
        beep = [0, 12000, 0, -12000]
        samples = b"".join(
            (beep[n % 4] if n % RATE < FLASH_S * RATE else 0).to_bytes(2, "little", signed=True)
            for n in range(first, last)
        )
        if samples:
            push(speaker, samples, began_ns)
        return True


def ask_for_login(server: Any, factories: list[Any], user: str, password: str) -> None:
    """Let only this user see what the factories make, by Digest."""
    role = "viewer"
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role(role)
    for what in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role(role, what, True)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", role)
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    for factory in factories:
        factory.set_permissions(permissions)


def main() -> None:
    port, large, small = sys.argv[1:4]
    sound = sys.argv[4] if len(sys.argv) > 4 else ""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_service(port)
    factories = [Camera(profile, sound).factory for profile in (large, small)]
    if len(sys.argv) > 5:
        ask_for_login(server, factories, *sys.argv[5].split(":", 1))
    for path, factory in zip(("/main", "/sub"), factories, strict=True):
        server.get_mount_points().add_factory(path, factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is in use")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
