"""What an ONVIF camera is, and which pictures it gives: maker, model, profiles with their RTSP addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element
from xml.sax.saxutils import quoteattr

from edge.errors import SourceError, UsageError
from edge.onvif.soap import CallError, Login, Soap, text_at

DEVICE = "http://www.onvif.org/ver10/device/wsdl"
MEDIA = "http://www.onvif.org/ver10/media/wsdl"
MEDIA2 = "http://www.onvif.org/ver20/media/wsdl"
PTZ = "http://www.onvif.org/ver20/ptz/wsdl"
SERVICE_PATH = "/onvif/device_service"
MAX_PROFILES = 16
LOOK_S = 10.0
# less is a thumbnail: 640x360 and what comes near
MIN_SMALL_PX = 200_000
RTSP_PORT = 554
NOBODY = Login()
_PLACE = re.compile(r"(?:https?://)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?(/[^\s?#]*)?")


@dataclass(frozen=True, slots=True)
class Profile:
    """One of the pictures that a camera gives.

    Attributes:
        codec: ``H264``, ``H265``, ``JPEG``, …; empty where it is not told; sizes and rates are 0 then.
        address: of RTSP, at the camera's own host, without user name and password.
        can_turn: whether it pans, tilts or zooms.
    """

    token: str
    name: str
    codec: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    address: str = ""
    can_turn: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A camera. ``wants_login``: it tells its profiles only to a user; ``fault``: why they are not known."""

    host: str
    url: str
    maker: str = ""
    model: str = ""
    firmware: str = ""
    profiles: tuple[Profile, ...] = ()
    wants_login: bool = False
    fault: str = ""


def service_url(place: str) -> str:
    """The address of the device service for ``HOST``, ``HOST:PORT`` or a whole address.

    Raises:
        UsageError: it is none of them.
    """
    found = _PLACE.fullmatch(place)
    if found is None or int(found[2] or 80) > 65535:
        # it is not repeated: it may hold a password
        raise UsageError("expected a camera as HOST, HOST:PORT or http://HOST/onvif/device_service, without a login")
    scheme = "https" if place.startswith("https:") else "http"
    return f"{scheme}://{found[1]}{':' + found[2] if found[2] else ''}{found[3] or SERVICE_PATH}"


def look_at(url: str, login: Login = NOBODY, timeout_s: float = LOOK_S) -> Device:
    """Ask a camera what it is. One that refuses, or answers with nonsense, is a device with a ``fault``.

    Args:
        url: of its device service.
        login: its user.
        timeout_s: for all questions together.
    """
    soap = Soap(url, login, timeout_s)
    device = Device(urlsplit(url).hostname or "", url)
    try:
        soap.tell_time(DEVICE)
        device = _with_facts(soap, device, is_anybody=not login.username)
        return replace(device, profiles=_profiles(soap))
    except SourceError as error:
        return replace(device, wants_login=isinstance(error, CallError) and error.is_login, fault=str(error))
    finally:
        soap.close()


def _with_facts(soap: Soap, device: Device, *, is_anybody: bool) -> Device:
    """What the camera says of itself; nothing where it says so to users alone.

    Raises:
        CallError: the login is wrong: to try it again with the next question could lock the user out.
    """
    try:
        told = soap.call(soap.url, DEVICE, "GetDeviceInformation")
    except CallError as error:
        if error.is_login and not is_anybody:
            raise
        return device
    maker, model, firmware = (text_at(told, key) for key in ("Manufacturer", "Model", "FirmwareVersion"))
    return replace(device, maker=maker, model=model, firmware=firmware)


def small_and_large(profiles: Sequence[Profile]) -> tuple[Profile, Profile | None]:
    """The picture to analyse and the one to record: the smallest that is no thumbnail, and the largest.

    None for the second where they are the same. JPEG is taken only where there is nothing else.

    Raises:
        ValueError: no profile has an address.
    """
    able = [one for one in profiles if one.address]
    able = [one for one in able if one.codec != "JPEG"] or able
    if not able:
        raise ValueError("no profile has an RTSP address")
    if not all(one.width * one.height for one in able):
        # no size, no choice: makers name the main picture first
        return able[0], None
    by_size = sorted(able, key=lambda one: (one.width * one.height, one.fps))
    large = by_size[-1]
    small = next((one for one in by_size[:-1] if one.width * one.height >= MIN_SMALL_PX), by_size[-2:][0])
    return small, (large if large is not small else None)


def _profiles(soap: Soap) -> tuple[Profile, ...]:
    services = services_of(soap)
    # the second media service tells of H.265 too, the first of H.264 and JPEG alone
    namespace = MEDIA2 if MEDIA2 in services else MEDIA
    url = services.get(namespace, soap.url)
    inner = "<s:Type>All</s:Type>" if namespace == MEDIA2 else ""
    found = soap.call(url, namespace, "GetProfiles", inner).findall("Profiles")[:MAX_PROFILES]
    profiles = [_with_address(soap, url, namespace, profile_of(one)) for one in found]
    seen: dict[str, Profile] = {}
    for profile in profiles:
        seen.setdefault(profile.address or profile.token, profile)
    return tuple(seen.values())


def services_of(soap: Soap) -> dict[str, str]:
    """Namespace of each service → its address; of older cameras by their capabilities."""
    try:
        told = soap.call(soap.url, DEVICE, "GetServices", "<s:IncludeCapability>false</s:IncludeCapability>")
    except CallError as error:
        if error.is_login:
            raise
        told = soap.call(soap.url, DEVICE, "GetCapabilities", "<s:Category>All</s:Category>")
        turns = text_at(told, "Capabilities/PTZ/XAddr")
        found = {MEDIA: text_at(told, "Capabilities/Media/XAddr") or soap.url}
        return found | ({PTZ: turns} if turns else {})
    return {text_at(one, "Namespace"): text_at(one, "XAddr") or soap.url for one in told.findall("Service")}


def profile_of(element: Element) -> Profile:
    """A profile as the first or the second media service tells it."""
    video = element.find("Configurations/VideoEncoder")
    if video is None:
        video = element.find("VideoEncoderConfiguration")
    turns = ("PTZConfiguration", "Configurations/PTZ")
    token = element.get("token", "")[:200]
    return Profile(
        token,
        text_at(element, "Name") or token,
        text_at(video, "Encoding").upper(),
        _whole(text_at(video, "Resolution/Width")),
        _whole(text_at(video, "Resolution/Height")),
        _rate(text_at(video, "RateControl/FrameRateLimit")),
        can_turn=any(element.find(path) is not None for path in turns),
    )


def _with_address(soap: Soap, url: str, namespace: str, profile: Profile) -> Profile:
    token = f"<s:ProfileToken>{quoteattr(profile.token)[1:-1]}</s:ProfileToken>"
    if namespace == MEDIA2:
        inner, path = f"<s:Protocol>RTSP</s:Protocol>{token}", "Uri"
    else:
        schema = "http://www.onvif.org/ver10/schema"
        inner = (
            f'<s:StreamSetup xmlns:t="{schema}"><t:Stream>RTP-Unicast</t:Stream>'
            f"<t:Transport><t:Protocol>RTSP</t:Protocol></t:Transport></s:StreamSetup>{token}"
        )
        path = "MediaUri/Uri"
    try:
        answer = soap.call(url, namespace, "GetStreamUri", inner)
    except CallError as error:
        if error.is_login:
            raise
        return profile
    return replace(profile, address=own_address((answer.findtext(path) or "").strip(), soap.host))


def own_address(told: str, host: str) -> str:
    """An RTSP address at the host that was asked, whatever host it names; empty where it is no such address.

    Cameras behind a router, or with an old setting, name a host that nobody reaches; one that means harm names a
    machine that shall get the password.
    """
    try:
        parts = urlsplit(told)
        port = parts.port or RTSP_PORT
    except ValueError:
        return ""
    if parts.scheme not in ("rtsp", "rtsps") or len(told) > 1000 or not told.isprintable() or " " in told:
        return ""
    name = f"[{host}]" if ":" in host else host
    place = name if port == RTSP_PORT else f"{name}:{port}"
    return f"{parts.scheme}://{place}{parts.path}{'?' + parts.query if parts.query else ''}"


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,5}", text) else 0


def _rate(text: str) -> float:
    return float(text) if re.fullmatch(r"\d{1,3}(\.\d{1,6})?", text) else 0.0
