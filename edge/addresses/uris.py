"""Source addresses: what kind they are, and how they are printed without their secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

SourceKind = Literal["synthetic", "network", "device", "gstreamer", "file"]
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp", "rtp")
# what may stand before the address itself: the kind of a sink
_ADDRESS = re.compile(rf"(?i)(?:[a-z]+:)?(?:{'|'.join(NETWORK_SCHEMES)})://")
_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")
# people write passwords with / ? # in them although they may not: better too much is hidden than too little
_HIDDEN_INFO = re.compile(
    r"(?<=://)(?:[^/?#\s:\[]*:(?!\d{1,5}(?:[/?#\s]|$))[^\s\"'<>]*@|[^/?#\s]*@)",
)
# user:1/x@host reads as host:port/path too: the host is hidden then, unless it is surely one
_EITHER_INFO = re.compile(
    r"(?<=://)(?!(?:localhost|\d{1,3}(?:\.\d{1,3}){3}):)[^/?#\s:\[]*:\d{1,5}[/?#][^\s\"'<>]*@",
)
_SECRET_WORDS = (
    r"[\w-]*(?:pass|pwd|passwd|password|token|secret|key|auth|passphrase|streamid|signature|sig)[\w-]*|pw|user-pw"
)
_SECRET_KEYS = rf"(?:{_SECRET_WORDS}|user|username|usr|user-id)"
_SECRET_KEY = re.compile(
    rf"(?i)((?:^|[?&;#,\s({{\"'/]){_SECRET_KEYS}=)(?:\"[^\"]*\"|'[^']*'|[^&\s\"'<>]*?(?=:\s|[&\s\"'<>]|$))"
)
# of an address alone: its value goes on to the next key, whatever stands in it
_VALUE = r"([^&]*(?:&[^&=]*(?=&|\Z))*)"
_SECRET_OF_QUERY = re.compile(rf"(?i)([?&;#/]{_SECRET_KEYS}=){_VALUE}")
# recorders write user=admin_password=secret_channel=1 into the path
_SECRET_VALUE = re.compile(rf"(?i)[?&;#/=](?:{_SECRET_WORDS})={_VALUE}")
# characters that end an address in a text, and those that stand in for them while an address is read
_ENDS = [chr(code) for code in range(0x3001) if chr(code).isspace() or chr(code) in "\"'<>"]
_TO_STAND_INS = {ord(letter): 0xE000 + number for number, letter in enumerate(_ENDS)}
_FROM_STAND_INS = {stand_in: letter for letter, stand_in in _TO_STAND_INS.items()}
MIN_KEY_CHARS = 12


def kind_of(uri: str) -> SourceKind:
    """What a source address names: by its scheme, a device number or node, else a file or folder."""
    scheme = uri.split("://", 1)[0].lower() if "://" in uri else ""
    if scheme == "synthetic":
        return "synthetic"
    if scheme in NETWORK_SCHEMES:
        return "network"
    if scheme == "v4l2" or uri.isdigit() or uri.startswith("/dev/"):
        return "device"
    if uri.startswith("gst:") or scheme == "csi":
        return "gstreamer"
    return "file"


def is_live(uri: str) -> bool:
    """Whether frames come at their own pace, so that the newest one matters more than every one."""
    if kind_of(uri) == "synthetic":
        return "live=1" in uri
    return kind_of(uri) != "file"


def masked(uri: str) -> str:
    """The address without passwords, tokens and user names: the only form that may be printed, logged or served.

    A password may hold any character, blanks and quotes too, which in a text would end the address.
    """
    if not _ADDRESS.match(uri):
        return masked_in(uri)
    whole = masked_in(uri.translate(_TO_STAND_INS))
    return _SECRET_OF_QUERY.sub(r"\1***", whole).translate(_FROM_STAND_INS)


def masked_in(text: str) -> str:
    """A text whose addresses are masked as far as they can be told from what stands around them."""
    return _SECRET_KEY.sub(r"\1***", _HIDDEN_INFO.sub("***@", _EITHER_INFO.sub("***@", text)))


def path_keys(uri: str) -> list[str]:
    """The parts of an address' path that may be a key, as of RTMP and of chat webhooks: twelve characters and more."""
    path = re.split(r"[?#]", uri.partition("://")[2].partition("/")[2])[0]
    return [part for part in path.split("/") if len(part) >= MIN_KEY_CHARS]


def without_keys(uri: str) -> str:
    """As ``masked``, for an address that is pushed to: also without the parts of its path that may be a key."""
    for key in path_keys(uri):
        uri = uri.replace(key, "***")
    return masked(uri)


def user_info(uri: str) -> str:
    """What stands before the @ of an address, ``user:password``; empty where there is none."""
    return next(_infos(uri, _USER_INFO, _HIDDEN_INFO), "")


def possible_infos(uri: str) -> list[str]:
    """All that may be the user name and password: ``user:1/x@host`` reads as a host with port and path too."""
    return list(dict.fromkeys(_infos(uri, _USER_INFO, _HIDDEN_INFO, _EITHER_INFO)))


def _infos(uri: str, *readings: re.Pattern[str]) -> Iterator[str]:
    whole = uri.translate(_TO_STAND_INS)
    for reading in readings:
        if found := reading.search(whole):
            yield uri[found.start() : found.end() - 1]


def secret_values(uri: str) -> list[str]:
    """The values of the secret keys of an address as they stand there, each as long and as short as it may be meant."""
    values = [uri[slice(*found.span(1))] for found in _SECRET_VALUE.finditer(uri.translate(_TO_STAND_INS))]
    return [part for value in values for part in (value, re.split(r"[#;&]|_\w+=", value)[0]) if part]


def host_of(uri: str) -> str:
    """The host of a network address, empty for everything else."""
    if kind_of(uri) != "network":
        return ""
    bare = _USER_INFO.sub("", uri.translate(_TO_STAND_INS))
    authority: str = re.split(r"[/?#]", bare.split("://", 1)[1])[0]
    return authority if authority.startswith("[") else authority.rsplit(":", 1)[0]


def short_name(uri: str) -> str:
    """A stream name made from an address: letters, digits, dash and underscore."""
    if kind_of(uri) == "network":
        stem = host_of(uri)
    else:
        stem = "camera" + uri if uri.isdigit() else Path(uri.split("?", 1)[0]).stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")
    return name or "stream"
