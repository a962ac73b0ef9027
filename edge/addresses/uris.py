"""Source addresses: what kind they are, and how they are printed without their secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

SourceKind = Literal["synthetic", "network", "device", "gstreamer", "file"]
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp", "rtp")
_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")
# people write passwords with / ? # in them although they may not: better too much is hidden than too little
_HIDDEN_INFO = re.compile(
    r"(?<=://)(?:[^/?#\s:@\[]*:(?!\d{1,5}(?:[/?#\s]|$))[^\s\"'<>]*@|[^/?#\s]*@)",
)
# user:1/x@host reads as host:port/path too: the host is hidden then, unless it is surely one
_EITHER_INFO = re.compile(
    r"(?<=://)(?!(?:localhost|\d{1,3}(?:\.\d{1,3}){3}):)[^/?#\s:@\[]*:\d{1,5}[/?#][^\s\"'<>]*@",
)
_SECRET_WORDS = (
    r"[\w-]*(?:pass|pwd|passwd|password|token|secret|key|auth|passphrase|streamid|signature|sig)[\w-]*|pw|user-pw"
)
_SECRET_KEY = re.compile(
    rf"(?i)((?:^|[?&;#,\s({{\"'])(?:{_SECRET_WORDS}|user|username|usr|user-id)=)(?:\"[^\"]*\"|'[^']*'|[^&\s\"'<>]*?(?=:\s|[&\s\"'<>]|$))"
)
MIN_KEY_CHARS = 12
_IS_SECRET_KEY = re.compile(rf"(?i)(?:{_SECRET_WORDS})\Z")


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
    """The address without passwords, tokens and user names: the only form that may be printed, logged or served."""
    return _SECRET_KEY.sub(r"\1***", _HIDDEN_INFO.sub("***@", _EITHER_INFO.sub("***@", uri)))


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
    found = _USER_INFO.search(uri) or _HIDDEN_INFO.search(uri)
    return found[0][:-1] if found else ""


def doubtful_info(uri: str) -> str:
    """``user:1/x`` of an address whose password looks like a port and a path; empty where there is no doubt."""
    found = _EITHER_INFO.search(uri)
    return found[0][:-1] if found else ""


def is_secret_key(key: str) -> bool:
    """Whether the value of this key of an address is a password or token."""
    return _IS_SECRET_KEY.match(key) is not None


def host_of(uri: str) -> str:
    """The host of a network address, empty for everything else."""
    if kind_of(uri) != "network":
        return ""
    authority: str = re.split(r"[/?#]", _USER_INFO.sub("", uri).split("://", 1)[1])[0]
    return authority if authority.startswith("[") else authority.rsplit(":", 1)[0]


def short_name(uri: str) -> str:
    """A stream name made from an address: letters, digits, dash and underscore."""
    if kind_of(uri) == "network":
        stem = host_of(uri)
    else:
        stem = "camera" + uri if uri.isdigit() else Path(uri.split("?", 1)[0]).stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")
    return name or "stream"
