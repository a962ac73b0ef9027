"""Turning an ONVIF camera to the places that were set up in it (presets). Bounded as all that is asked of a camera."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from edge.errors import SourceError, UsageError
from edge.onvif.device import DEVICE, MEDIA, MEDIA2, NOBODY, PTZ, profile_of, services_of
from edge.onvif.soap import Login, Soap, text_at

MAX_PRESETS = 256
# of a reference (ONVIF core specification)
MAX_TOKEN_CHARS = 64
ASK_S = 6.0


@dataclass(frozen=True, slots=True)
class Preset:
    """A place that the camera can turn to; ``name`` is what people call it."""

    token: str
    name: str


def presets_of(url: str, login: Login = NOBODY, timeout_s: float = ASK_S) -> tuple[Preset, ...]:
    """Where a camera can turn to.

    Args:
        url: of its device service.
        login: its user.
        timeout_s: for all questions together.

    Raises:
        SourceError: it does not answer, refuses, or does not turn.
    """
    soap = Soap(url, login, timeout_s)
    try:
        return _presets(soap, *_place(soap))
    finally:
        soap.close()


def go_to(url: str, name: str, login: Login = NOBODY, timeout_s: float = ASK_S) -> None:
    """Turn a camera to the preset of a name; it answers before it is there.

    Raises:
        UsageError: it has no such preset.
        SourceError: it does not answer, refuses, or does not turn.
    """
    soap = Soap(url, login, timeout_s)
    try:
        service, profile = _place(soap)
        presets = _presets(soap, service, profile)
        token = next((one.token for one in presets if one.name == name), None)
        if token is None:
            known = ", ".join(one.name for one in presets[:20]) or "none"
            raise UsageError(f"the camera has no preset {name!r}; known: {known}")
        where = f"<s:ProfileToken>{escape(profile)}</s:ProfileToken><s:PresetToken>{escape(token)}</s:PresetToken>"
        soap.call(service, PTZ, "GotoPreset", where)
    finally:
        soap.close()


def _place(soap: Soap) -> tuple[str, str]:
    """The address of the service that turns, and the token of a profile that can be turned."""
    soap.tell_time(DEVICE)
    services = services_of(soap)
    if PTZ not in services:
        raise SourceError(f"{soap.host}: this camera does not turn (it has no PTZ service)")
    namespace = MEDIA2 if MEDIA2 in services else MEDIA
    inner = "<s:Type>PTZ</s:Type>" if namespace == MEDIA2 else ""
    told = soap.call(services.get(namespace, soap.url), namespace, "GetProfiles", inner)
    found = next((one for one in map(profile_of, told.findall("Profiles")) if one.can_turn), None)
    if found is None:
        raise SourceError(f"{soap.host}: none of the camera's profiles can be turned")
    return services[PTZ], found.token


def _presets(soap: Soap, service: str, profile: str) -> tuple[Preset, ...]:
    told = soap.call(service, PTZ, "GetPresets", f"<s:ProfileToken>{escape(profile)}</s:ProfileToken>")
    found: dict[str, Preset] = {}
    for one in told.findall("Preset"):
        token = one.get("token", "")
        # of two with one name the first is meant
        if token and len(token) <= MAX_TOKEN_CHARS and len(found) < MAX_PRESETS:
            name = text_at(one, "Name") or token
            found.setdefault(name, Preset(token, name))
    return tuple(found.values())
