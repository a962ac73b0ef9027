"""Adding a camera from the page: found or typed, looked at with its login, then saved as it was looked at."""

from __future__ import annotations

import base64
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from edge.addresses.secrets import register, register_uri, with_credentials
from edge.addresses.uris import masked, scheme_of
from edge.config.camera import Camera, free_name
from edge.errors import ConfigError, SourceError, UsageError
from edge.sources.deadlines import Deadlines

if TYPE_CHECKING:
    from edge.onvif.device import Device
    from edge.types import UInt8

FIND_S = 3.0
ASK_S = 6.0
OPENING = Deadlines(open_s=8.0, stall_s=5.0)
# pipelines, files and packages' own sources could do more than show a picture
SCHEMES = ("rtsp", "rtsps")
LOCAL = re.compile(r"\d{1,3}|/dev/video\d{1,3}")
MAX_LOOKS = 8
MAX_SIDE_PX = 640
JPEG_QUALITY = 80


class Editor(Protocol):
    """What writes a camera into the file; see ``edge.daemon.edit.ConfigEditor``."""

    def names(self) -> list[str]: ...

    def add(self, camera: Camera) -> dict[str, Any]: ...


class CameraAdder:
    """Any thread; one search or look at a time.

    Args:
        editor: of the file.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._busy = threading.Lock()
        # what was looked at, with its password, which therefore is sent here once
        self._looks: dict[str, Camera] = {}

    def find(self) -> list[dict[str, str]]:
        """The ONVIF cameras of the network: ``place`` to look at, ``name`` and ``hardware`` as they say.

        Raises:
            SourceError: no network can be asked.
            UsageError: another search is under way.
        """
        from edge.onvif.discovery import find_devices

        with self._alone():
            return [{"place": one.url, "name": one.name, "hardware": one.hardware} for one in find_devices(FIND_S)]

    def look(self, place: str, username: str, password: str) -> dict[str, Any]:
        """Ask a camera what it is, and take a picture.

        Args:
            place: ``HOST``, ``HOST:PORT`` or the address of its device service; or an ``rtsp://`` address of a picture;
                or the number of a camera of this machine.
            username, password: its user; empty where there is none.

        Returns:
            JSON values: ``id`` for ``add``, a free ``name``, what is known of it, and ``picture``, a JPEG as base64.

        Raises:
            EdgeError: there is no such camera, or no picture; or another look is under way.
        """
        register(password)
        register_uri(place)
        with self._alone():
            facts, camera = _asked(place, username, password)
            picture = _picture(camera)
            key = secrets.token_urlsafe(9)
            self.keep(key, camera)
        height, width = picture.shape[:2]
        return {
            **facts,
            "id": key,
            "name": free_name(camera.source, self._editor.names()),
            "source": masked(camera.source),
            "record_source": masked(camera.record_source),
            "size": [width, height],
            "picture": base64.b64encode(_jpeg(picture)).decode(),
        }

    def keep(self, look: str, camera: Camera) -> None:
        """Have a camera ready for ``add``; of the last few only."""
        self._looks[look] = camera
        while len(self._looks) > MAX_LOOKS:
            del self._looks[next(iter(self._looks))]

    def add(self, look: str, name: str) -> dict[str, Any]:
        """Write what was looked at into the file, under a name.

        Raises:
            ConfigError: it was not looked at, or the name cannot be; nothing was written.
            SinkError: the file cannot be written.
        """
        camera = self._looks.get(look)
        if camera is None:
            raise ConfigError("this camera was looked at too long ago; look at it again")
        answer = self._editor.add(replace(camera, name=name))
        self._looks.pop(look, None)
        return answer

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError("another search for cameras is under way; wait for its end")
        try:
            yield
        finally:
            self._busy.release()


def _asked(place: str, username: str, password: str) -> tuple[dict[str, Any], Camera]:
    """What is known of a camera, and its addresses."""
    from edge.onvif.device import look_at, service_url
    from edge.onvif.soap import Login

    if scheme_of(place) in SCHEMES or LOCAL.fullmatch(place):
        camera = Camera.of("", place)
        typed = {"username": username, "password": password} if username or password else {}
        return {"maker": "", "model": ""}, replace(camera, **typed)
    return _of_device(look_at(service_url(place), Login(username, password), ASK_S), username, password)


def _of_device(device: Device, username: str, password: str) -> tuple[dict[str, Any], Camera]:
    from edge.onvif.device import small_and_large

    if device.fault:
        raise SourceError(device.fault)
    try:
        small, large = small_and_large(device.profiles)
    except ValueError as error:
        raise SourceError(f"{device.host}: {error}; give the address of its picture instead: rtsp://…") from None
    profiles = [
        {"codec": one.codec, "width": one.width, "height": one.height, "fps": one.fps} for one in device.profiles
    ]
    facts = {"maker": device.maker, "model": device.model, "profiles": profiles}
    return facts, Camera("", small.address, "" if large is None else large.address, username, password)


def _picture(camera: Camera) -> UInt8:
    """A picture (H, W, 3) BGR of what will be analysed."""
    from edge.sources.choose import open_source

    uri = camera.source
    login = (camera.username or None, camera.password or None)
    whole = with_credentials(uri, *login) if any(login) else uri
    register_uri(whole)
    source = open_source(whole, deadlines=OPENING)
    try:
        read = source.read()
    finally:
        source.close()
    if read is None:
        raise SourceError(f"{masked(uri)}: it ends without a picture")
    return read[0]


def _jpeg(picture: UInt8) -> bytes:
    """At most 640 pixels wide and high."""
    import cv2

    scale = min(1.0, MAX_SIDE_PX / max(picture.shape[:2]))
    small = picture if scale == 1.0 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()
