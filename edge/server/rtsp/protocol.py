"""RTSP 1.0 (RFC 2326) as text: requests, answers, Transport headers and Digest authentication (RFC 2069). No I/O."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

MAX_HEAD_BYTES = 8192
MAX_BODY_BYTES = 4096
MAX_HEADERS = 64
END = b"\r\n\r\n"
REALM = "edgeloop"
METHODS = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER")
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    459: "Aggregate Operation Not Allowed",
    461: "Unsupported Transport",
    503: "Service Unavailable",
    505: "RTSP Version not supported",
}
_LINE = re.compile(r"([A-Z_]{1,32}) (\S{1,2048}) RTSP/(\d)\.(\d)")
_PART = re.compile(r'(\w{1,32})="([^"\r\n]{0,512})"')
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Request:
    """A request; header names in small letters."""

    method: str
    uri: str
    headers: Mapping[str, str]

    @property
    def cseq(self) -> str:
        number = self.headers.get("cseq", "")
        return number if number.isascii() and number.isdigit() and len(number) <= 10 else "0"


class BadRequestError(Exception):
    """What came is no request; ``status`` says which kind of mistake it is."""

    def __init__(self, status: int) -> None:
        super().__init__(REASONS[status])
        self.status = status


def parse_head(head: bytes) -> tuple[Request, int]:
    """A request from its head, without the empty line; and the length of the body that follows it.

    Raises:
        BadRequestError: it is none.
    """
    lines = head.decode("latin-1").split("\r\n")
    line = _LINE.fullmatch(lines[0])
    if line is None:
        raise BadRequestError(400)
    if line[3] != "1":
        raise BadRequestError(505)
    if len(lines) > MAX_HEADERS + 1:
        raise BadRequestError(400)
    headers: dict[str, str] = {}
    for text in lines[1:]:
        name, colon, value = text.partition(":")
        if not colon or not name:
            raise BadRequestError(400)
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequestError(400)
    if len(length) > 6 or int(length) > MAX_BODY_BYTES:
        raise BadRequestError(413)
    return Request(line[1], line[2], headers), int(length)


def answer(status: int, cseq: str, headers: Mapping[str, str] | None = None, body: str = "") -> bytes:
    """An answer as bytes."""
    lines = [f"RTSP/1.0 {status} {REASONS[status]}", f"CSeq: {cseq}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    data = body.encode()
    if data:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def path_of(uri: str) -> str | None:
    """``door`` or ``door/source`` of an address, without the track; None where that cannot be read."""
    try:
        path = unquote(urlsplit(uri).path)
    except ValueError:
        return None
    parts = [part for part in path.split("/") if part]
    if parts and parts[-1].startswith("trackID="):
        parts.pop()
    return "/".join(parts)


def track_of(uri: str) -> int:
    """The track of an address: 0 where it names none."""
    last = uri.rstrip("/").rpartition("/")[2]
    number = last.removeprefix("trackID=")
    return int(number) if last != number and number.isascii() and number.isdigit() and len(number) < 4 else 0


@dataclass(frozen=True, slots=True)
class Transport:
    """How a client wants its packets: in the connection, on two channels, or by UDP, to two ports of its host."""

    is_tcp: bool
    first: int
    second: int


def parse_transport(text: str) -> Transport | None:
    """The first way that is offered here, of those that a client proposes; None where there is none."""
    for proposal in text.split(",")[:16]:
        parts = [part.strip().lower() for part in proposal.split(";")]
        facts = dict(part.partition("=")[::2] for part in parts[1:])
        if "multicast" in parts or parts[0] not in ("rtp/avp", "rtp/avp/udp", "rtp/avp/tcp"):
            continue
        is_tcp = parts[0] == "rtp/avp/tcp"
        numbers = _PORTS.fullmatch(facts.get("interleaved" if is_tcp else "client_port", "0-1" if is_tcp else ""))
        if numbers is None:
            continue
        first = int(numbers[1])
        second = int(numbers[2] or first + 1)
        if max(first, second) <= (255 if is_tcp else 65535) and (is_tcp or min(first, second) >= 1024):
            return Transport(is_tcp, first, second)
    return None


@dataclass(frozen=True, slots=True)
class Digest:
    """What a client shows for itself."""

    username: str
    nonce: str
    uri: str
    response: str

    @classmethod
    def of(cls, text: str) -> Digest | None:
        """From an Authorization header; None where it is no Digest."""
        kind, _, rest = text[:4096].partition(" ")
        if kind.lower() != "digest":
            return None
        facts = dict(_PART.findall(rest))
        try:
            return cls(facts["username"], facts["nonce"], facts["uri"], facts["response"])
        except KeyError:
            return None

    def fits(self, password: str, method: str) -> bool:
        """Whether it was made with this password; takes the same time whatever it is."""
        first = _md5(f"{self.username}:{REALM}:{password}")
        right = _md5(f"{first}:{self.nonce}:{_md5(f'{method}:{self.uri}')}")
        return hmac.compare_digest(right.encode(), self.response.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Doors:
    """Who may look.

    Attributes:
        tokens: any of them opens; none: everybody may.
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)

    def lets_in(self, request: Request, nonce: str) -> bool | None:
        """Whether a request shows a token; None where it shows nothing of this connection."""
        if not self.tokens:
            return True
        shown = Digest.of(request.headers.get("authorization", ""))
        # what was made for another connection, or for another address, is asked for again
        if shown is None or not hmac.compare_digest(shown.nonce.encode(), nonce.encode()) or shown.uri != request.uri:
            return None
        fits = [shown.fits(token, request.method) for token in self.tokens]
        return any(fits)


def _md5(text: str) -> str:
    # the method of RTSP's clients; the tokens are too long to be guessed from it
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
