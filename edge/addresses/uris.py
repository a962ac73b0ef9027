"""Source addresses: what kind they are, and how they are printed without their secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

SourceKind = Literal["synthetic", "network", "device", "gstreamer", "plugin", "file"]
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp", "rtp")
# what may stand before the address itself: the kind of a sink
_ADDRESS = re.compile(rf"(?i)(?:[a-z]+:)?(?:{'|'.join(NETWORK_SCHEMES)})://")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")
# people write passwords with / ? # in them although they may not: better too much is hidden than too little; bounded,
# as what a camera answers is searched too, and an expression that tries again from every place would take minutes
_HIDDEN_INFO = re.compile(
    r"(?<=://)(?:[^/?#\s:\[]{0,999}:(?!\d{1,5}(?:[/?#\s]|$))[^\s\"'<>]{0,999}@|[^/?#\s]{0,999}@)",
)
# user:1/x@host reads as host:port/path too: the host is hidden then, unless it is surely one
_EITHER_INFO = re.compile(
    r"(?<=://)(?!(?:localhost|\d{1,3}(?:\.\d{1,3}){3}):)[^/?#\s:\[]{0,999}:\d{1,5}[/?#][^\s\"'<>]{0,999}@",
)
_SECRET = re.compile(r"(?i)pass|pwd|token|secret|key|auth|streamid|sig|\A(?:user-)?pw\Z")
_USER = re.compile(r"(?i)\A(?:user|username|usr|user-id)\Z")
# of a text: what may stand before a key, and where its value ends
_KEY = re.compile(r"(?:^|(?<=[?&;#,\s({\"'/]))([\w-]+)=")
_VALUE = re.compile(r"\"[^\"]{0,999}\"?|'[^']{0,999}'?|[^&\s\"'<>]*?(?=:\s|[&\s\"'<>]|\Z)")
# of an address alone: its value goes on to the next key, whatever stands in it
_KEY_OF_QUERY = re.compile(r"(?<=[?&;#/=])([\w-]+)=")
_VALUE_OF_QUERY = re.compile(r"[^&]*(?:&[^&=]*(?=&|\Z))*")
# characters that end an address in a text, and those that stand in for them while an address is read
_ENDS = [chr(code) for code in range(0x3001) if chr(code).isspace() or chr(code) in "\"'<>"]
_TO_STAND_INS = {ord(letter): 0xE000 + number for number, letter in enumerate(_ENDS)}
_FROM_STAND_INS = {stand_in: letter for letter, stand_in in _TO_STAND_INS.items()}
MIN_KEY_CHARS = 12


def kind_of(uri: str) -> SourceKind:
    """What a source address names: by its scheme, a device number or node, else a file or folder.

    The source of a scheme that is not ours comes with an installed package: ``plugin``.
    """
    scheme = scheme_of(uri)
    if scheme == "synthetic":
        return "synthetic"
    if scheme in NETWORK_SCHEMES:
        return "network"
    if scheme == "v4l2" or uri.isdigit() or uri.startswith("/dev/"):
        return "device"
    if uri.startswith("gst:") or scheme == "csi":
        return "gstreamer"
    return "plugin" if _SCHEME.fullmatch(scheme) and scheme != "file" else "file"


def scheme_of(uri: str) -> str:
    """``rtsp`` of ``rtsp://camera``, in small letters; empty where an address has none."""
    return uri.split("://", 1)[0].lower() if "://" in uri else ""


def may_hang(uri: str) -> bool:
    """Whether reading it is not in our hands, so that it is done in a process that can be ended."""
    return kind_of(uri) in ("network", "device", "gstreamer", "plugin")


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
    return _without_values(whole, _KEY_OF_QUERY, _VALUE_OF_QUERY).translate(_FROM_STAND_INS)


def masked_in(text: str) -> str:
    """A text whose addresses are masked as far as they can be told from what stands around them."""
    return _without_values(_HIDDEN_INFO.sub("***@", _EITHER_INFO.sub("***@", text)), _KEY, _VALUE)


def _without_values(text: str, keys: re.Pattern[str], values: re.Pattern[str]) -> str:
    kept, at = [], 0
    for begin, end in _value_spans(text, keys, values, is_user_secret=True):
        kept += [text[at:begin], "***"]
        at = end
    return "".join((*kept, text[at:]))


def _value_spans(
    text: str, keys: re.Pattern[str], values: re.Pattern[str], *, is_user_secret: bool
) -> Iterator[tuple[int, int]]:
    """Where the values of secret keys begin and end; in one walk through the text."""
    at = 0
    for key in keys.finditer(text):
        is_secret = _SECRET.search(key[1]) or (is_user_secret and _USER.match(key[1]))
        value = values.match(text, key.end()) if is_secret and key.start() >= at else None
        if value is not None:
            at = value.end()
            yield value.span()


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
    spans = _value_spans(uri.translate(_TO_STAND_INS), _KEY_OF_QUERY, _VALUE_OF_QUERY, is_user_secret=False)
    values = [uri[begin:end] for begin, end in spans]
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
